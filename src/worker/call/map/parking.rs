//! The wait of a map for its workers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::Async;
use rustix::event::{EventfdFlags, eventfd};

use super::lane::Lane;

/// The eventfd to which workers write when the map waits.
#[derive(Debug)]
pub(super) struct Parking {
    event: Async<Arc<OwnedFd>>,
    is_parked: bool,
}

impl Parking {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event: Async::new_nonblocking(Arc::new(event))?,
            is_parked: false,
        })
    }

    /// Returns the descriptor that workers are given.
    pub(super) fn file(&self) -> Arc<OwnedFd> {
        self.event.get_ref().clone()
    }

    /// Lets workers no longer wake the map, which runs.
    pub(super) fn leave(&mut self, lanes: &mut [Lane]) {
        if std::mem::take(&mut self.is_parked) {
            for lane in lanes {
                if let Some(session) = lane.session() {
                    session.feeder.unpark();
                }
            }
            self.reset();
        }
    }

    /// Waits until a worker has made a result. Returns `Ready` if one has already.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>, lanes: &mut [Lane]) -> Poll<()> {
        self.is_parked = true;
        let mut has_results = false;
        for lane in lanes {
            if let Some(session) = lane.session() {
                session.feeder.park();
                has_results |= session.has_results();
            }
        }
        // The memory tells what has happened. The reactor only wakes, and may deny the event of
        // which it has told: see `Connection`.
        if has_results {
            return Poll::Ready(());
        }
        self.event.poll_readable(cx).map(drop)
    }

    /// Reads the eventfd, so that it does not wake the map again.
    fn reset(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]); // there need not have been an event
    }
}
