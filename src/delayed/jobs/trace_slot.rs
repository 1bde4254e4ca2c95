//! The trace of a block: not begun, being written, or ended with the block.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::trace::Trace;
use crate::delayed::value::sources::KeepSources;
use crate::sys::primitives::lock;

/// Holds the trace of a block.
#[derive(Default)]
pub(super) struct TraceSlot {
    /// Whether a trace has begun. Jobs of a block without one take no lock.
    has_begun: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    NotBegun,
    Writing(Box<Trace>, KeepSources),
    /// The block has ended.
    Ended,
}

impl TraceSlot {
    /// Begins a trace in what `create` makes.
    ///
    /// # Errors
    ///
    /// If the block has a trace or has ended; `create` is not called then. The error of `create`,
    /// after which the block has no trace.
    pub(super) fn begin<W: Write>(
        &self,
        create: impl FnOnce() -> io::Result<W>,
        trace: impl FnOnce(W) -> Trace,
    ) -> io::Result<()> {
        let mut state = lock(&self.state);
        match *state {
            State::NotBegun => {}
            State::Writing(..) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "the block writes another trace already, and it has one at most",
                ));
            }
            State::Ended => return Err(io::Error::other("the block has ended")),
        }
        *state = State::Writing(Box::new(trace(create()?)), KeepSources::begin());
        self.has_begun.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns whether a trace has begun. It may have ended.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Calls `record` with the trace, if one is being written.
    pub(super) fn record(&self, record: impl FnOnce(&mut Trace)) {
        if self.has_begun()
            && let State::Writing(trace, _) = &mut *lock(&self.state)
        {
            record(trace);
        }
    }

    /// Ends the trace with its block. No other one can begin.
    pub(super) fn end(&self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Ended);
        if let State::Writing(trace, _) = state
            && let Err(error) = trace.finish()
        {
            tracing::warn!(%error, "the trace of a block of jobs could not be written");
        }
    }
}
