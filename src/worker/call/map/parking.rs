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
        loop {
            if has_results {
                return Poll::Ready(());
            }
            // The reactor's word is not taken for it that nothing has come: see `Connection`.
            if self.reset() {
                return Poll::Ready(());
            }
            if self.event.poll_readable(cx).is_pending() {
                return Poll::Pending;
            }
            has_results = true;
        }
    }

    /// Reads the eventfd. Returns whether a worker has written to it.
    fn reset(&self) -> bool {
        let mut count = [0; 8];
        rustix::io::read(&self.event, &mut count).is_ok()
    }
}
