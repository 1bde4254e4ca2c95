//! A mutex around the state of a primitive and the wakers of its waiters.
//!
//! All primitives follow one rule: **no foreign code runs under the mutex**. Cloning, waking and
//! dropping a waker runs foreign code, and so does dropping a user's value. So wakers are cloned
//! before the mutex is locked. A waker or value that must be woken or dropped is returned as a
//! [`Deferred`], which runs after the unlock. Therefore a waker may use the primitive that wakes
//! it, and no mutex is ever poisoned.

use std::mem;
use std::task::{Poll, Waker};

use crate::sys::primitives::{Mutex, MutexGuard, lock};

/// A mutex that is locked for a few instructions, never while foreign code runs.
#[derive(Debug)]
pub(super) struct Locked<S>(Mutex<S>);

impl<S> Locked<S> {
    pub(super) fn new(state: S) -> Self {
        Locked(Mutex::new(state))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        // Never poisoned: no foreign code runs under the mutex, and the states' code does not
        // panic.
        lock(&self.0)
    }

    /// Ready if a waiter was granted what it waits for; otherwise stores `waker` as the one to
    /// wake. `find` returns the stored waker, or `None` once the waiter is granted.
    pub(super) fn poll_granted(
        &self,
        waker: &Waker,
        find: impl Fn(&mut S) -> Option<&mut Waker>,
    ) -> Poll<()> {
        match find(&mut self.lock()) {
            None => return Poll::Ready(()),
            Some(known) if known.will_wake(waker) => return Poll::Pending,
            Some(_other) => (),
        }
        let mut replaced = waker.clone();
        // A grant may have woken the old waker since the first lock, so look again. `replaced` is
        // dropped after the unlock.
        match find(&mut self.lock()) {
            None => Poll::Ready(()),
            Some(known) => {
                mem::swap(known, &mut replaced);
                Poll::Pending
            }
        }
    }
}

/// An action on a waker that must run after the unlock.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Deferred<W> {
    /// Wake it: its owner was granted what it waits for.
    Wake(W),
    /// Drop it: it is not needed any more.
    Drop(W),
    /// There is no waker.
    Nothing,
}

impl<W> Deferred<W> {
    /// Wakes the waiter that was granted something, if there is one.
    pub(super) fn wake(granted: Option<W>) -> Self {
        granted.map_or(Deferred::Nothing, Deferred::Wake)
    }
}

impl Deferred<Waker> {
    /// Runs the action. Never call this under the mutex.
    pub(super) fn run(self) {
        match self {
            Deferred::Wake(waker) => waker.wake(),
            Deferred::Drop(waker) => drop(waker),
            Deferred::Nothing => (),
        }
    }
}
