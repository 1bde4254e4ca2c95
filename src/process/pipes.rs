//! The pipes of a process: those that its handle has, and those that its supervisor feeds and
//! reads.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_io::Async;
use futures_lite::io::{AsyncRead, AsyncWrite};

use super::tuning::{DISCARD_CHUNK_BYTES, PIPE_CHUNK_BYTES, PIPE_CHUNKS_PER_POLL};

/// The writing end of a process's standard input, as a [`Process`](super::Process) has it.
///
/// # Dropping
///
/// Closes the pipe, which is the end of the process's input.
///
/// ```
/// use seedbed::process::{ChildStdin, Command, Stdio, run_process};
/// use seedbed::{open_nursery, run};
/// use smol::io::AsyncWriteExt;
///
/// run(open_nursery(|n| async move {
///     let sort = run_process(Command::new("sort")).stdin(Stdio::piped()).stdout(Stdio::null());
///     let mut process = n.start(|started| sort.supervise(started)).await.unwrap();
///     let mut stdin: ChildStdin = process.stdin.take().unwrap();
///     stdin.write_all(b"b\na\n").await.unwrap();
///     drop(stdin);
///     assert!(process.wait().await.unwrap().success());
/// }));
/// ```
pub struct ChildStdin(Async<std::process::ChildStdin>);

/// The reading end of a process's standard output, as a [`Process`](super::Process) has it.
///
/// # Dropping
///
/// Closes the pipe. A process that writes to it after that gets SIGPIPE.
///
/// ```
/// use seedbed::process::{ChildStdout, Command, Stdio, run_process};
/// use seedbed::{open_nursery, run};
/// use smol::io::AsyncReadExt;
///
/// run(open_nursery(|n| async move {
///     let mut echo = Command::new("echo");
///     echo.arg("meow");
///     let echo = run_process(echo).stdout(Stdio::piped());
///     let mut process = n.start(|started| echo.supervise(started)).await.unwrap();
///     let mut stdout: ChildStdout = process.stdout.take().unwrap();
///     let mut heard = String::new();
///     stdout.read_to_string(&mut heard).await.unwrap();
///     assert_eq!(heard, "meow\n");
/// }));
/// ```
pub struct ChildStdout(Async<std::process::ChildStdout>);

/// The reading end of a process's standard error, as a [`Process`](super::Process) has it.
///
/// # Dropping
///
/// Closes the pipe. A process that writes to it after that gets SIGPIPE.
///
/// ```
/// use seedbed::process::{ChildStderr, Command, Stdio, run_process};
/// use seedbed::{open_nursery, run};
/// use smol::io::AsyncReadExt;
///
/// run(open_nursery(|n| async move {
///     let mut shell = Command::new("sh");
///     shell.args(["-c", "echo careful >&2"]);
///     let shell = run_process(shell).stderr(Stdio::piped());
///     let mut process = n.start(|started| shell.supervise(started)).await.unwrap();
///     let mut stderr: ChildStderr = process.stderr.take().unwrap();
///     let mut warning = String::new();
///     stderr.read_to_string(&mut warning).await.unwrap();
///     assert_eq!(warning, "careful\n");
/// }));
/// ```
pub struct ChildStderr(Async<std::process::ChildStderr>);

macro_rules! pipe_end {
    ($name:ident) => {
        impl $name {
            pub(super) fn new(pipe: std::process::$name) -> io::Result<Self> {
                Async::new(pipe).map(Self)
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name))
                    .field(&self.as_fd())
                    .finish()
            }
        }
    };
}

macro_rules! pipe_reader {
    ($name:ident) => {
        impl AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_read(cx, buffer)
            }

            fn poll_read_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffers: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_read_vectored(cx, buffers)
            }
        }
    };
}

pipe_end!(ChildStdin);
pipe_end!(ChildStdout);
pipe_end!(ChildStderr);
pipe_reader!(ChildStdout);
pipe_reader!(ChildStderr);

impl AsyncWrite for ChildStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// The pipes of one process that its supervisor feeds and reads.
pub(super) struct Pipes {
    pub(super) feed: Option<Feed>,
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
}

/// Why a process cannot be fed or read any longer.
pub(super) enum PipeError {
    Io(io::Error),
    /// There is more output than may be kept.
    TooMuchOutput,
}

impl Pipes {
    /// Moves the bytes that can be moved now. Ready when all input has been written and every
    /// output read to its end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PipeError>> {
        let fed = match &mut self.feed {
            Some(feed) => {
                let fed = feed.poll(cx).map_err(PipeError::Io)?;
                if fed.is_ready() {
                    // Closes the pipe, which is the end of the process's input.
                    self.feed = None;
                }
                fed
            }
            None => Poll::Ready(()),
        };
        let (out, err) = (self.stdout.poll(cx)?, self.stderr.poll(cx)?);
        if fed.is_ready() && out.is_ready() && err.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Ends the input and discards the outputs, those read before included.
    pub(super) fn discard(&mut self) {
        self.feed = None;
        for capture in [&mut self.stdout, &mut self.stderr] {
            capture.bytes = Vec::new();
            capture.is_full = true;
        }
    }

    /// Ends the input and reads the outputs, so that no full pipe keeps the process from ending.
    /// Keeps what may be kept.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        self.feed = None;
        for capture in [&mut self.stdout, &mut self.stderr] {
            match capture.poll(cx) {
                // The process is being ended already.
                Poll::Ready(Err(PipeError::Io(_))) if capture.is_full => capture.pipe = None,
                Poll::Ready(Err(_)) => {
                    capture.is_full = true;
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
    }
}

/// The bytes that are written to a process's standard input.
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
        for _ in 0..PIPE_CHUNKS_PER_POLL {
            let rest = &self.bytes[self.written..];
            if rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.pipe).poll_write(cx, rest)) {
                Ok(count) => self.written += count,
                // A process need not read all of its input.
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

/// The bytes read from one output of a process. Without a pipe no more will come.
#[derive(Default)]
pub(super) struct Capture {
    pipe: Option<Source>,
    bytes: Vec<u8>,
    limit: usize,
    /// Later bytes are read and not kept.
    is_full: bool,
}

impl Capture {
    /// Keeps at most `limit` bytes.
    pub(super) fn of(pipe: impl AsyncRead + Send + Unpin + 'static, limit: usize) -> Self {
        Capture {
            pipe: Some(Box::new(pipe)),
            bytes: Vec::new(),
            limit,
            is_full: false,
        }
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PipeError>> {
        for _ in 0..PIPE_CHUNKS_PER_POLL {
            if self.pipe.is_none() {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.read(cx)) {
                Ok(0) => self.pipe = None,
                Ok(_) if self.bytes.len() > self.limit => {
                    self.bytes.truncate(self.limit);
                    self.is_full = true;
                    return Poll::Ready(Err(PipeError::TooMuchOutput));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(PipeError::Io(error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once. Reads one byte more than may be kept, which tells a longer output from one of
    /// exactly this length.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Ok(0));
        };
        if self.is_full {
            return Pin::new(pipe).poll_read(cx, &mut [0; DISCARD_CHUNK_BYTES]);
        }
        let before = self.bytes.len();
        let room = (self.limit - before)
            .saturating_add(1)
            .min(PIPE_CHUNK_BYTES);
        // A process that prints more than there is memory must not abort this program.
        self.bytes
            .try_reserve(room)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.bytes.resize(before + room, 0);
        let polled = Pin::new(pipe).poll_read(cx, &mut self.bytes[before..]);
        let count = match &polled {
            Poll::Ready(Ok(count)) => *count,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        self.bytes.truncate(before + count);
        polled
    }
}
