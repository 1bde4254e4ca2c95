//! The state of a mutex: where its value is, and the waiters.
//!
//! The state is pure: a waiter is a payload `W` that is stored and returned.
//!
//! Decision: the value itself is moved. It lies here in a box while the mutex is unlocked, is moved
//! into the guard by locking, and is moved to the longest waiter when that guard is dropped. So
//! exclusion is ownership, which the compiler checks, without `UnsafeCell` and `unsafe`. The price
//! is one allocation per mutex.
//!
//! Invariant: with waiters, the value is not free.

use crate::sync::locked::Deferred;
use crate::sync::wait_list::{Removed, WaitList, WaiterKey};

/// The place of the value.
#[derive(Debug)]
enum Value<T> {
    /// Here: the mutex is unlocked and there are no waiters.
    Free(Box<T>),
    /// In the guard.
    Held,
    /// Here, but it belongs to the one granted waiter, which has not claimed it yet.
    Granted(Box<T>),
}

/// The value and the waiters.
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

    /// Whether the value is in a guard or assigned to a waiter.
    pub(super) fn is_locked(&self) -> bool {
        !matches!(self.value, Value::Free(_))
    }

    /// Returns the number of waiters.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.waiting()
    }

    /// Takes the value if it is free. By the invariant, there are no waiters then.
    pub(super) fn try_take(&mut self) -> Option<Box<T>> {
        if self.is_locked() {
            return None;
        }
        self.fetch()
    }

    /// Adds a waiter at the end of the queue. Call this only while the mutex is locked.
    pub(super) fn push(&mut self, payload: W) -> WaiterKey {
        debug_assert!(self.is_locked(), "a waiter needs a locked mutex");
        self.waiters.push(payload)
    }

    /// Returns the payload of a waiter; `None` once the value is assigned to it, which it must
    /// [`claim`](Self::claim).
    pub(super) fn payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        self.waiters.payload_mut(key)
    }

    /// Removes the granted waiter and returns the value.
    pub(super) fn claim(&mut self, key: WaiterKey) -> Box<T> {
        match self.waiters.remove(key) {
            Removed::Granted(()) => self.fetch().expect("a granted waiter's value is here"),
            Removed::Waiting(_) => unreachable!("only the granted waiter may claim"),
        }
    }

    /// Removes a waiter without the value. If it had been granted the value, that goes to the next
    /// waiter.
    pub(super) fn give_up(&mut self, key: WaiterKey) -> Deferred<W> {
        match self.waiters.remove(key) {
            Removed::Waiting(payload) => Deferred::Drop(payload),
            Removed::Granted(()) => {
                let value = self.fetch().expect("a granted waiter's value is here");
                Deferred::wake(self.release(value))
            }
        }
    }

    /// Puts the value back. The longest waiter gets it and is returned, to be woken.
    pub(super) fn release(&mut self, value: Box<T>) -> Option<W> {
        let next = self.waiters.grant_first();
        self.value = match next {
            Some(_) => Value::Granted(value),
            None => Value::Free(value),
        };
        next
    }

    /// Moves the value out if it is here.
    fn fetch(&mut self) -> Option<Box<T>> {
        match std::mem::replace(&mut self.value, Value::Held) {
            Value::Free(value) | Value::Granted(value) => Some(value),
            Value::Held => None,
        }
    }
}
