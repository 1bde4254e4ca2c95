//! The reasons for which tasks wait, for the task tree.
//!
//! A future of this crate that returns `Pending` notes its reason in a thread-local. The code that
//! polls a task moves the note into the task's [`WaitCell`] after each poll. So a wait costs a few
//! stores, and text is made only when a tree is drawn.

// Reads pointers back from an atomic.
#![allow(unsafe_code)]

use std::any::type_name;
use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::task::Poll;

/// The reason of a wait. There is one static value for each kind of wait, and for each function
/// that is called elsewhere.
#[derive(Debug)]
pub(crate) enum Wait {
    /// Continues the words "waits for".
    For(&'static str),
    /// A call of a function that runs elsewhere.
    Call {
        call: CallKind,
        /// The call waits for its limiter.
        is_queued: bool,
    },
}

/// The kind of a call, and the function that it calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallKind {
    /// The term for such a function, such as "job".
    noun: &'static str,
    function: fn() -> &'static str,
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.noun, (self.function)())
    }
}

/// Continues the words "waits for".
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::For(what) => f.write_str(what),
            Wait::Call { call, is_queued } => {
                f.write_str(if *is_queued {
                    "a limiter token for "
                } else {
                    ""
                })?;
                call.fmt(f)
            }
        }
    }
}

/// The waits of a call of one function.
#[derive(Debug)]
pub(crate) struct CallWaits {
    function: fn() -> &'static str,
    running: Wait,
    queued: Wait,
}

impl CallWaits {
    /// The waits of a call of a function of type `F`.
    pub(crate) const fn new<F>(noun: &'static str) -> Self {
        let call = CallKind {
            noun,
            function: type_name::<F>,
        };
        CallWaits {
            function: call.function,
            running: Wait::Call {
                call,
                is_queued: false,
            },
            queued: Wait::Call {
                call,
                is_queued: true,
            },
        }
    }

    /// Returns the name of the function.
    pub(crate) fn function(&self) -> &'static str {
        (self.function)()
    }

    /// Polls the call, and notes what it waits for. A note of other code is kept only if the call
    /// has ended.
    pub(crate) fn during<T>(&'static self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let before = Noted::take();
        let polled = poll();
        if polled.is_pending() {
            let is_queued = NOTED
                .get()
                .is_some_and(|wait| ptr::eq(wait, &LIMITER_TOKEN));
            std::mem::forget(before);
            NOTED.set(Some(if is_queued {
                &self.queued
            } else {
                &self.running
            }));
        }
        polled
    }
}

/// The wait for a token of a limiter.
pub(crate) static LIMITER_TOKEN: Wait = Wait::For("a limiter token");

thread_local! {
    /// The last wait that the code on this thread has noted and no task has taken.
    static NOTED: Cell<Option<&'static Wait>> = const { Cell::new(None) };
}

/// Notes a wait, and returns `Pending`. A call that was noted in the same turn of the task stays.
#[inline]
pub(crate) fn pending<T>(wait: &'static Wait) -> Poll<T> {
    if !matches!(NOTED.get(), Some(Wait::Call { .. })) {
        NOTED.set(Some(wait));
    }
    Poll::Pending
}

/// Notes a wait if `polled` is pending.
#[inline]
pub(crate) fn noted<T>(polled: Poll<T>, wait: &'static Wait) -> Poll<T> {
    if polled.is_pending() {
        return pending(wait);
    }
    polled
}

/// A note that was taken from this thread, and is put back when this is dropped: also if a poll
/// between the two panics.
pub(crate) struct Noted(Option<&'static Wait>);

impl Noted {
    pub(crate) fn take() -> Self {
        Noted(NOTED.take())
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        NOTED.set(self.0);
    }
}

/// The last known wait of a task or of a nursery's body.
pub(crate) struct WaitCell(AtomicPtr<Wait>);

impl WaitCell {
    pub(crate) const fn new() -> Self {
        WaitCell(AtomicPtr::new(ptr::null_mut()))
    }

    /// Polls the code that this belongs to, and keeps its wait if it returns `Pending`.
    #[inline]
    pub(crate) fn during<T>(&self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        self.clear();
        NOTED.set(None);
        let polled = poll();
        if polled.is_pending()
            && let Some(wait) = NOTED.take()
        {
            self.0
                .store(ptr::from_ref(wait).cast_mut(), Ordering::Relaxed);
        }
        polled
    }

    pub(crate) fn clear(&self) {
        self.0.store(ptr::null_mut(), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<&'static Wait> {
        // SAFETY: the pointer is null, or `during` made it from a `&'static Wait`. A `Wait` is
        // never changed, and is `Sync`, so any thread may read it at any time.
        unsafe { self.0.load(Ordering::Relaxed).as_ref() }
    }
}

impl fmt::Debug for WaitCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static EVENT: Wait = Wait::For("an event");
    static JOB: &CallWaits = &CallWaits::new::<u8>("job");

    fn note_of(poll: impl FnOnce() -> Poll<()>) -> Option<String> {
        let cell = WaitCell::new();
        _ = cell.during(poll);
        cell.get().map(ToString::to_string)
    }

    #[test]
    fn a_cell_keeps_the_last_wait_of_a_poll_that_is_pending() {
        let event = || pending(&EVENT);
        assert_eq!(note_of(event).as_deref(), Some("an event"));
        let ends = || {
            pending::<()>(&EVENT)
                .is_pending()
                .then_some(())
                .map_or(Poll::Pending, Poll::Ready)
        };
        assert_eq!(note_of(ends), None);
        assert_eq!(note_of(|| Poll::Pending), None);
    }

    #[test]
    fn a_call_is_kept_rather_than_another_wait_of_the_same_poll() {
        let call = || JOB.during::<()>(|| Poll::Pending);
        let call_first = || call().is_pending().then(|| pending(&EVENT)).unwrap();
        assert_eq!(note_of(call_first).as_deref(), Some("job `u8`"));
        let call_last = || pending::<()>(&EVENT).is_pending().then(call).unwrap();
        assert_eq!(note_of(call_last).as_deref(), Some("job `u8`"));
    }

    #[test]
    fn a_call_that_waits_for_its_limiter_is_told_from_one_that_runs() {
        let queued = || JOB.during(|| pending::<()>(&LIMITER_TOKEN));
        assert_eq!(
            note_of(queued).as_deref(),
            Some("a limiter token for job `u8`")
        );
        let beside_a_token = || {
            _ = pending::<()>(&LIMITER_TOKEN);
            JOB.during::<()>(|| Poll::Pending)
        };
        assert_eq!(note_of(beside_a_token).as_deref(), Some("job `u8`"));
    }

    #[test]
    fn a_task_within_a_task_leaves_the_outer_one_its_wait() {
        let outer = || {
            _ = pending::<()>(&EVENT);
            let _noted = Noted::take();
            assert_eq!(note_of(|| Poll::Pending), None);
            Poll::Pending
        };
        assert_eq!(note_of(outer).as_deref(), Some("an event"));
    }
}
