//! Requests of the parent that a job end: how a job finds out about them.
//!
//! The parent writes the number of the job into the mailbox, and sends a `Cancel` frame through the
//! socket. A job that asks reads the word in the mailbox. A worker without a mailbox peeks at the
//! socket, and leaves the frame there for the next read, which ignores it. [`requests`] has the
//! protocol and the state; this file has the state of the process.
//!
//! `unsafe` is needed to peek at the socket, of which threads of jobs know the number only.
#![allow(unsafe_code)]

#[cfg(all(test, loom))]
mod loom_tests;
mod requests;

use std::error::Error;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde::{Deserialize, Serialize};

use requests::{Received, RequestSocket, Requests};

use crate::sys::mapping::Mapping;
use crate::sys::role::refuse_unless_hooked;
use crate::transport::frame::{HEADER, Header};
use crate::transport::mailbox::{Mailbox, Slot};

pub(crate) use requests::Taken;

#[cfg(not(all(test, loom)))]
static REQUESTS: Requests = Requests::new();

// loom's atomics exist in models only.
#[cfg(all(test, loom))]
loom::lazy_static! {
    static ref REQUESTS: Requests = Requests::default();
}

static MAILBOX: OnceLock<&'static Mapping<Mailbox>> = OnceLock::new();

static SOCKET: AtomicI32 = AtomicI32::new(-1);

/// The caller of this job has asked it to end.
///
/// It can be sent, so it may be the error type of a job.
///
/// ```
/// use seedbed::run_sync;
/// use seedbed::worker::{CancelledError, check_cancelled};
///
/// fn count(to: u32) -> Result<u32, CancelledError> {
///     for _ in 0..to {
///         check_cancelled()?;
///     }
///     Ok(to)
/// }
///
/// fn main() {
///     seedbed::init();
///     assert_eq!(smol::block_on(async { run_sync(count, 10).await.unwrap() }), Ok(10));
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CancelledError;

impl fmt::Display for CancelledError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller of this job has asked it to end")
    }
}

impl Error for CancelledError {}

impl From<CancelledError> for String {
    fn from(error: CancelledError) -> Self {
        error.to_string()
    }
}

/// Returns an error if the caller of the job that runs in this worker has asked it to end. A job
/// calls it regularly, with `?`.
///
/// A caller asks if it is cancelled and has set [`kill_after`](crate::worker::RunSync::kill_after).
/// The job decides how to react; its return value is still the result of the call. A job that does
/// not end is killed when the caller's patience is over.
///
/// Any thread of the worker may call this function. It is about the job that the worker runs at
/// that moment, so a thread that an earlier job left behind sees requests to later jobs. In a
/// process that runs no job, it returns `Ok`.
///
/// The cost is a few loads of memory that the worker shares with its parent. A worker that got no
/// such memory makes a system call instead.
///
/// # Errors
///
/// [`CancelledError`], from shortly after the cancellation to the end of the job.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use seedbed::worker::{RemoteError, check_cancelled};
/// use seedbed::{move_on_after, run_sync};
///
/// fn search(_: ()) -> Result<u64, RemoteError> {
///     for _ in 0_u64.. {
///         check_cancelled()?; // a temporary directory of this job would be removed here
///     }
///     Ok(0)
/// }
///
/// fn main() {
///     seedbed::run(async {
///         run_sync(i32::abs, -1).await.unwrap(); // a worker is up now
///         let call = run_sync(search, ()).kill_after(Duration::from_secs(60));
///         let found = move_on_after(Duration::from_millis(20), call).await;
///         let error = found.expect("the job ends by itself").unwrap().unwrap_err();
///         assert_eq!(error.message(), "the caller of this job has asked it to end");
///     });
/// }
/// ```
pub fn check_cancelled() -> Result<(), CancelledError> {
    refuse_unless_hooked("seedbed::worker::check_cancelled");
    if is_asked() {
        Err(CancelledError)
    } else {
        Ok(())
    }
}

/// Returns whether the caller of the job that runs in this worker has asked it to end. Otherwise
/// like [`check_cancelled`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use seedbed::{move_on_after, run_sync, worker};
///
/// fn guess(_: ()) -> u64 {
///     let mut guesses = 0;
///     while !worker::cancelled() {
///         guesses += 1;
///     }
///     guesses // the best that there is
/// }
///
/// fn main() {
///     seedbed::run(async {
///         run_sync(i32::abs, -1).await.unwrap(); // a worker is up now
///         let call = run_sync(guess, ()).kill_after(Duration::from_secs(60));
///         let guesses = move_on_after(Duration::from_millis(20), call).await;
///         assert!(guesses.unwrap().unwrap() > 0);
///     });
/// }
/// ```
pub fn cancelled() -> bool {
    refuse_unless_hooked("seedbed::worker::cancelled");
    is_asked()
}

/// Returns whether the job that runs has been asked to end.
pub(crate) fn is_asked() -> bool {
    REQUESTS.is_asked(slot(), &WorkerSocket)
}

/// Takes a request out of the socket while a job runs. Nothing else comes then.
pub(crate) fn take() -> Taken {
    REQUESTS.take(slot(), &WorkerSocket)
}

fn slot() -> Option<&'static Slot> {
    MAILBOX.get().map(|mailbox| &mailbox.job)
}

/// The socket of this worker, if a job runs.
struct WorkerSocket;

impl RequestSocket for WorkerSocket {
    fn peek(&self) -> Option<Header> {
        let mut bytes = [0; HEADER];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(socket()?, &mut bytes, flags) {
            Ok((HEADER, _)) => Header::from_bytes(&bytes).ok(),
            Ok(_) | Err(_) => None,
        }
    }

    fn receive(&self) -> Received {
        let Some(socket) = socket() else {
            return Received::Nothing;
        };
        let mut bytes = [0; HEADER];
        match recv(socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((HEADER, _)) => Received::Frame(Header::from_bytes(&bytes).ok()),
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Ok(_) | Err(_) => Received::Closed,
        }
    }
}

/// Returns the socket to which requests to the running job come. `None` if no job runs.
pub(crate) fn socket() -> Option<BorrowedFd<'static>> {
    let number = SOCKET.load(Ordering::Relaxed);
    if number < 0 || !REQUESTS.has_job() {
        return None;
    }
    // SAFETY: the number is not -1. It is that of the worker's socket, which stays open as long as
    // the process lives. If a job has closed it, which is forbidden to jobs, something else may
    // have taken its place. The users wait until that is readable, and read some bytes of it if it
    // is a socket.
    Some(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Reads requests in this mailbox from now on.
pub(super) fn read_in(mailbox: &'static Mapping<Mailbox>) {
    // A worker gets one mailbox in its life.
    let _ = MAILBOX.set(mailbox);
}

/// Begins the job with this number, to which requests in this socket may come.
pub(super) fn begin_job(number: u64, socket: BorrowedFd<'_>) -> RunningJob {
    SOCKET.store(socket.as_raw_fd(), Ordering::Relaxed);
    REQUESTS.begin(number);
    RunningJob
}

/// Takes note of a frame that came while the job ran, if it is a request.
pub(super) fn note(header: &Header) {
    REQUESTS.note(header);
}

/// A job runs in this worker.
#[derive(Debug)]
#[must_use]
pub(super) struct RunningJob;

impl Drop for RunningJob {
    fn drop(&mut self) {
        REQUESTS.end();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::socket::{pair, send_all};
    use crate::transport::frame::{Kind, of_bytes};

    // One test, because the state is that of the process.
    #[test]
    fn a_job_sees_its_own_request_and_takes_those_of_others_away() {
        let (parent, worker) = pair().unwrap();
        let send = |job| send_all(&parent, &of_bytes(Kind::Cancel, job, b"")).unwrap();
        assert!(!is_asked() && socket().is_none(), "no job runs");

        let running = begin_job(5, worker.as_fd());
        assert_eq!(take(), Taken::Nothing);
        send(4); // comes late
        assert!(!is_asked());
        assert_eq!(take(), Taken::Nothing);
        send(5);
        assert!(is_asked(), "it is found by a look at the socket");
        assert_eq!(take(), Taken::End);
        assert!(is_asked(), "it is remembered");
        drop(running);
        assert!(!is_asked());

        let running = begin_job(6, worker.as_fd());
        assert!(!is_asked());
        drop(parent);
        assert_eq!(take(), Taken::End, "the parent has closed the connection");
        drop(running);
    }
}
