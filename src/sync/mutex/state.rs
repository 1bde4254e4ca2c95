//! Decides who has a lock's value and who waits for it.
//!
//! Pure: a waiter is a payload `W` that is stored and handed back.
//!
//! Choice: the value itself travels. It lies in a box here while the lock is free, moves into the guard of whoever
//! takes the lock (a pointer's worth), and is moved on to the longest waiter when that guard is dropped. So exclusion
//! is ownership, which the compiler checks: no `UnsafeCell`, and no `unsafe`. It costs one allocation per lock.
//!
//! Invariant: if somebody waits, the value is not free.

use crate::sync::locked::Deferred;
use crate::sync::wait_list::{Removed, WaitList, WaiterKey};

/// Where the value is.
#[derive(Debug)]
enum Value<T> {
    /// Here; nobody has the lock, and nobody waits.
    Free(Box<T>),
    /// With the guard.
    Held,
    /// Here, but it belongs to the one waiter that is granted and has not fetched it yet.
    Granted(Box<T>),
}

/// The value and those who wait for it.
#[derive(Debug)]
pub(super) struct MutexState<T, W> {
    value: Value<T>,
    waiters: WaitList<W>,
}

impl<T, W> MutexState<T, W> {
    pub(super) fn new(value: T) -> Self {
        MutexState {
            value: Value::Free(Box::new(value)),
            waiters: WaitList::new(),
        }
    }

    /// Whether the value is with somebody, or on its way to them.
    pub(super) fn is_locked(&self) -> bool {
        !matches!(self.value, Value::Free(_))
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.waiting()
    }

    /// Takes the value if it is free, and by the invariant nobody waits.
    pub(super) fn try_take(&mut self) -> Option<Box<T>> {
        if self.is_locked() {
            return None;
        }
        self.fetch()
    }

    /// Waits at the end of the queue; only while the lock is held.
    pub(super) fn push(&mut self, payload: W) -> WaiterKey {
        debug_assert!(self.is_locked(), "nobody waits for what is free");
        self.waiters.push(payload)
    }

    /// The payload of somebody who waits; `None` once the value is theirs, which they should then
    /// [`claim`](Self::claim).
    pub(super) fn payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        self.waiters.payload_mut(key)
    }

    /// The granted waiter fetches the value.
    pub(super) fn claim(&mut self, key: WaiterKey) -> Box<T> {
        match self.waiters.remove(key) {
            Removed::Granted(()) => self.fetch().expect("a granted waiter's value is here"),
            Removed::Waiting(_) => unreachable!("only the granted waiter may claim"),
        }
    }

    /// A waiter leaves without the value; if that was its own already, it goes to the next.
    pub(super) fn give_up(&mut self, key: WaiterKey) -> Deferred<W> {
        match self.waiters.remove(key) {
            Removed::Waiting(payload) => Deferred::Drop(payload),
            Removed::Granted(()) => {
                let value = self.fetch().expect("a granted waiter's value is here");
                Deferred::wake(self.release(value))
            }
        }
    }

    /// The value comes back. The longest waiter gets it at once, and is the one to wake.
    pub(super) fn release(&mut self, value: Box<T>) -> Option<W> {
        let next = self.waiters.grant_first();
        self.value = match next {
            Some(_) => Value::Granted(value),
            None => Value::Free(value),
        };
        next
    }

    /// Moves the value out, if it is here.
    fn fetch(&mut self) -> Option<Box<T>> {
        match std::mem::replace(&mut self.value, Value::Held) {
            Value::Free(value) | Value::Granted(value) => Some(value),
            Value::Held => None,
        }
    }
}
