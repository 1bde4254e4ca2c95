//! What goes into a process and comes out of it, all at once, so that neither side waits for the other for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_process::ChildStdin;
use futures_lite::io::{AsyncRead, AsyncWrite};

/// How much is asked of a pipe at a time: as much as it holds.
const CHUNK: usize = 64 * 1024;

/// How many chunks are moved before everybody else has a turn. A busy process must not keep its reader for ever.
const CHUNKS_PER_TURN: usize = 16;

/// The pipes of one process that we look after ourselves.
pub(super) struct Pipes {
    pub(super) feed: Option<Feed>,
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
}

impl Pipes {
    /// Moves what can be moved. Ready when all has been fed and everything read to its end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let fed = match &mut self.feed {
            Some(feed) => {
                let fed = feed.poll(cx)?;
                if fed.is_ready() {
                    // Closes it, which is the end of the process's input.
                    self.feed = None;
                }
                fed
            }
            None => Poll::Ready(()),
        };
        let (out, err) = (self.stdout.poll(cx)?, self.stderr.poll(cx)?);
        match fed.is_ready() && out.is_ready() && err.is_ready() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    /// Ends the input, and throws away what comes out, so that a process that is to end can.
    pub(super) fn discard(&mut self, cx: &mut Context<'_>) {
        self.feed = None;
        for capture in [&mut self.stdout, &mut self.stderr] {
            capture.bytes.clear();
            // Nobody wants it, so nobody wants to know that it cannot be had either.
            if let Poll::Ready(Err(_)) = capture.poll(cx) {
                capture.pipe = None;
            }
        }
    }
}

/// What a process gets to read.
pub(super) struct Feed {
    pipe: ChildStdin,
    bytes: Vec<u8>,
    written: usize,
}

impl Feed {
    pub(super) fn new(pipe: ChildStdin, bytes: Vec<u8>) -> Self {
        Feed {
            pipe,
            bytes,
            written: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..CHUNKS_PER_TURN {
            let rest = &self.bytes[self.written..];
            if rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.pipe).poll_write(cx, rest)) {
                Ok(count) => self.written += count,
                // It does not want to read on, which is its business.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

type Source = Box<dyn AsyncRead + Send + Unpin>;

/// What a process writes. Without a pipe there is nothing more to come.
#[derive(Default)]
pub(super) struct Capture {
    pipe: Option<Source>,
    bytes: Vec<u8>,
}

impl Capture {
    pub(super) fn of(pipe: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Capture {
            pipe: Some(Box::new(pipe)),
            bytes: Vec::new(),
        }
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Ok(()));
        };
        for _ in 0..CHUNKS_PER_TURN {
            let before = self.bytes.len();
            self.bytes.resize(before + CHUNK, 0);
            let polled = Pin::new(&mut *pipe).poll_read(cx, &mut self.bytes[before..]);
            let count = match &polled {
                Poll::Ready(Ok(count)) => *count,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.bytes.truncate(before + count);
            match ready!(polled) {
                Ok(0) => {
                    self.pipe = None;
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
