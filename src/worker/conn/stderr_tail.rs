//! The standard error of a worker, if it is captured: read to keep the pipe from filling, and kept
//! for error messages.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use async_io::Async;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::pipe::fcntl_getpipe_size;

use crate::worker::tuning::{STDERR_BYTES_PER_POLL, STDERR_TAIL_BYTES};

/// The last bytes that a worker has written to its standard error.
#[derive(Debug)]
pub(in crate::worker) struct StderrTail {
    /// `None` once all writers have closed the pipe.
    pipe: Option<Async<OwnedFd>>,
    tail: Vec<u8>,
}

impl StderrTail {
    pub(in crate::worker) fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pipe: Some(Async::new(pipe)?),
            tail: Vec::new(),
        })
    }

    /// Reads the bytes that have arrived, and registers for more.
    pub(in crate::worker) fn read_available(&mut self, cx: &mut Context<'_>) {
        loop {
            if !self.read(STDERR_BYTES_PER_POLL) {
                cx.waker().wake_by_ref();
                return;
            }
            let Some(pipe) = &self.pipe else { return };
            match pipe.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.pipe = None, // a pipe that cannot be polled counts as closed
                Poll::Pending => return,
            }
        }
    }

    /// Reads the rest of the output of a worker that has ended: at most what the pipe holds,
    /// because processes that its jobs have started may write on.
    pub(in crate::worker) fn read_rest(&mut self) {
        let capacity =
            |pipe: &Async<OwnedFd>| fcntl_getpipe_size(pipe).unwrap_or(STDERR_BYTES_PER_POLL);
        let most = self.pipe.as_ref().map_or(0, capacity);
        self.read(most);
    }

    /// Reads the bytes that have arrived, about `most` at most. Returns `false` if there may be
    /// more.
    fn read(&mut self, most: usize) -> bool {
        let mut bytes = 0;
        while let Some(pipe) = &self.pipe {
            self.tail.reserve(STDERR_TAIL_BYTES);
            match rustix::io::read(pipe, spare_capacity(&mut self.tail)) {
                Ok(0) => self.pipe = None,
                Ok(read) => bytes += read,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => self.pipe = None, // as in `read_available`
            }
            let excess = self.tail.len().saturating_sub(STDERR_TAIL_BYTES);
            self.tail.drain(..excess);
            if bytes >= most {
                return false;
            }
        }
        true
    }

    /// Returns the last bytes as text.
    pub(in crate::worker) fn text(&self) -> String {
        String::from_utf8_lossy(&self.tail).into_owned()
    }
}
