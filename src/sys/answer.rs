//! A value that a thread of this crate hands to a task, once.
//!
//! A channel or a task of smol's would serve as well, but the one wakes while its lock is held, and
//! the other aborts the process if the waker panics. The waker of a task is foreign code.

use std::sync::Mutex;
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

use super::primitives::lock;
use super::unwind::wake_all_and_go_on;

#[derive(Debug)]
pub(crate) struct Answer<T> {
    value: Mutex<Option<T>>,
    caller: AtomicWaker,
}

impl<T> Answer<T> {
    pub(crate) const fn new() -> Self {
        Self {
            value: Mutex::new(None),
            caller: AtomicWaker::new(),
        }
    }

    /// Wakes the caller. If it is gone, the value is dropped with the last handle.
    pub(crate) fn give(&self, value: T) {
        *lock(&self.value) = Some(value);
        wake_all_and_go_on(self.caller.take());
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<T> {
        self.caller.register(cx.waker()); // before the look, so that no value is missed
        match lock(&self.value).take() {
            Some(value) => Poll::Ready(value),
            None => Poll::Pending,
        }
    }
}
