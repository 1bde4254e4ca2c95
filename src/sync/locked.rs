//! State behind a mutex, with the wakers of those who wait in it.
//!
//! One rule for everything built on it: **no foreign code runs under the mutex**. Cloning, waking and dropping a waker
//! is foreign code, and so is dropping a user's value. So wakers are cloned before the mutex is taken, and what has to
//! be woken or dropped is handed out as a [`Then`] and done after it is given back. A waker may therefore use the very
//! primitive that wakes it, and nothing here is ever poisoned.

use std::mem;
use std::task::{Poll, Waker};

use crate::sys::primitives::{Mutex, MutexGuard, lock};

/// A mutex that is held for a few instructions, never across foreign code.
#[derive(Debug)]
pub(super) struct Locked<S>(Mutex<S>);

impl<S> Locked<S> {
    pub(super) fn new(state: S) -> Self {
        Locked(Mutex::new(state))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        // No foreign code runs under the lock, and the states' own code does not panic, so it is never poisoned.
        lock(&self.0)
    }

    /// Whether somebody waits no more; if they do, makes `waker` the one to wake. `find` gives the waker that is stored
    /// for them, and `None` once they are granted.
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
        // Between the locks, a grant may have woken the old waker, so look again. `replaced` is dropped last.
        match find(&mut self.lock()) {
            None => Poll::Ready(()),
            Some(known) => {
                mem::swap(known, &mut replaced);
                Poll::Pending
            }
        }
    }
}

/// What is to be done with a waker after the mutex was given back.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Deferred<W> {
    /// Its owner was granted what it waits for.
    Wake(W),
    /// It is of no more use.
    Drop(W),
    /// There is none.
    Nothing,
}

impl<W> Deferred<W> {
    /// Somebody was granted something, or nobody waited.
    pub(super) fn wake(granted: Option<W>) -> Self {
        granted.map_or(Deferred::Nothing, Deferred::Wake)
    }
}

impl Deferred<Waker> {
    /// Does it; never called under the mutex.
    pub(super) fn run(self) {
        match self {
            Deferred::Wake(waker) => waker.wake(),
            Deferred::Drop(waker) => drop(waker),
            Deferred::Nothing => (),
        }
    }
}
