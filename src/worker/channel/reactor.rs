//! Waits of a task for the socket of a channel.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::Async;

use crate::sys::fork_detector::refuse_in_forked_copy;
use crate::transport::ring::RingError;
use crate::worker::tuning::CHANNEL_OPERATIONS_BETWEEN_YIELDS;

/// The registration of a channel's socket with the reactor, from the first wait on.
#[derive(Debug, Default)]
pub(super) struct Reactor {
    registered: Option<Async<Arc<OwnedFd>>>,
    /// Operations in a row that did not wait.
    quick: u32,
}

impl Reactor {
    /// Waits until the socket is readable.
    pub(super) fn poll_readable(
        &mut self,
        socket: &Arc<OwnedFd>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RingError>> {
        refuse_in_forked_copy("a wait for a channel");
        let registered = match &mut self.registered {
            Some(registered) => registered,
            // All reads and writes of the socket state that they do not block.
            None => match Async::new_nonblocking(socket.clone()) {
                Ok(registered) => self.registered.insert(registered),
                Err(error) => return Poll::Ready(Err(RingError::Failed(error))),
            },
        };
        let readable: Poll<io::Result<()>> = registered.poll_readable(cx);
        if readable.is_pending() {
            self.quick = 0;
        }
        readable.map_err(RingError::Failed)
    }

    /// Lets other tasks run, if this side has not waited for a while: returns `Pending` once.
    pub(super) fn poll_yield(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.quick += 1;
        if self.quick < CHANNEL_OPERATIONS_BETWEEN_YIELDS {
            return Poll::Ready(());
        }
        self.quick = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
