//! Which job of a worker runs, and which jobs the parent has asked to end.
//!
//! # The protocol
//!
//! Parent and worker number the jobs that the parent sends to this worker, from 1 on. Each counts
//! for itself: the parent when it sends a job, the worker when it begins one. A worker begins the
//! jobs in the order in which they were sent, and all of them, so both counts agree. A request is
//! the number of a job. The parent sends one while it waits for the answer of that job, and sends
//! the next job only after that answer.
//!
//! | step | by | how |
//! |---|---|---|
//! | ask job `n` to end | parent | after the whole job was sent: stores `n` in the mailbox ([`Slot::cancel`]), if the worker was sent one; then sends a `Cancel` frame with `n` through the socket |
//! | begin job `n` | worker | stores `n` in `job`; notes a request that was read from the socket together with the job |
//! | check | any thread of the worker | loads `job`, and compares it with `requested` and with the word in the mailbox; in a worker without mailbox, peeks at the front of the socket and notes what is there |
//! | take | the run of an async job | checks, waits until the socket is readable, reads a frame, notes it, and checks again |
//! | note a request | any thread of the worker | raises `requested` to its number |
//! | end the job | worker | stores 0 in `job` |
//! | wait for the next job | worker | reads the socket, and ignores `Cancel` frames |
//!
//! * **A request ends no other job**, because numbers are compared for equality, and no number is
//!   used twice in one worker.
//! * **A request is not lost.** The word in the mailbox keeps its value until the next job is
//!   asked, which is after the answer to this one. A worker without a mailbox has read all frames
//!   before the job in order to read the job, and nothing but the request comes while the job runs;
//!   so the request is at the front of the socket, or part of it was read with the job. A mailbox
//!   is sent before the job with which the worker gets it, and so before a request to that job.
//! * **A request that was read from the socket is not forgotten.** A thread that an earlier job
//!   left behind may peek at a request, and note it when a later job has been asked. So `requested`
//!   is only ever raised.
//! * **A job that sleeps is woken**, because the request also comes through the socket.
//!
//! A parent that ends while it asks has done one step, both or none; the kernel then kills the
//! worker. A worker that ends leaves the request unread, and the parent discards it with the
//! connection.
//!
//! The models in `loom_tests` run this code and the mailbox's. The socket, which the kernel
//! implements, is a queue there.

use std::sync::atomic::Ordering;

use crate::sys::primitives::AtomicU64;
use crate::transport::frame::{Header, Kind};
use crate::transport::mailbox::Slot;

/// The jobs and requests of a worker.
#[derive(Debug)]
#[cfg_attr(all(test, loom), derive(Default))]
pub(super) struct Requests {
    /// The number of the job that runs now; 0 between jobs, and in processes that are no workers.
    job: AtomicU64,
    /// The highest number of a job for which a request has been found in the socket.
    requested: AtomicU64,
}

/// The socket to which requests come. It does not block.
pub(super) trait RequestSocket {
    /// Returns the header at the front of the socket, and leaves it there. `None` if there is none.
    fn peek(&self) -> Option<Header>;

    /// Takes a frame out of the socket.
    fn receive(&self) -> Received;
}

/// The result of an attempt to take a frame out of the socket.
pub(super) enum Received {
    Nothing,
    /// A frame; `None` if its bytes are no header.
    Frame(Option<Header>),
    /// The parent has closed the connection, or the socket has failed.
    Closed,
}

/// The result of reading the socket while a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing has come, or something that does not concern this job.
    Nothing,
    /// The job has to end: it has been asked, or the parent has closed the connection.
    End,
}

impl Requests {
    #[cfg(not(all(test, loom)))]
    pub(super) const fn new() -> Self {
        Self {
            job: AtomicU64::new(0),
            requested: AtomicU64::new(0),
        }
    }

    /// Begins the job with this number.
    pub(super) fn begin(&self, job: u64) {
        self.job.store(job, Ordering::Relaxed);
    }

    /// Ends the job that runs.
    pub(super) fn end(&self) {
        self.job.store(0, Ordering::Relaxed);
    }

    /// Returns whether a job runs.
    pub(super) fn has_job(&self) -> bool {
        self.job.load(Ordering::Relaxed) != 0
    }

    /// Takes note of a frame that came while a job ran, if it is a request.
    pub(super) fn note(&self, header: &Header) {
        if header.kind == Kind::Cancel {
            // The frame may have been peeked at during an earlier job.
            self.requested.fetch_max(header.number, Ordering::Relaxed);
        }
    }

    /// Returns whether the job that runs has been asked to end. `mailbox` is the slot for jobs.
    pub(super) fn is_asked<const CAPACITY: usize>(
        &self,
        mailbox: Option<&Slot<CAPACITY>>,
        socket: &impl RequestSocket,
    ) -> bool {
        let job = self.job.load(Ordering::Relaxed);
        if job == 0 {
            return false;
        }
        if self.is_noted(job) {
            return true;
        }
        if let Some(slot) = mailbox {
            return slot.is_cancelled(job as usize);
        }
        if let Some(header) = socket.peek() {
            self.note(&header);
        }
        self.is_noted(job)
    }

    fn is_noted(&self, job: u64) -> bool {
        self.requested.load(Ordering::Relaxed) == job
    }

    /// Takes a frame out of the socket while a job runs. Nothing but requests comes then.
    pub(super) fn take<const CAPACITY: usize>(
        &self,
        mailbox: Option<&Slot<CAPACITY>>,
        socket: &impl RequestSocket,
    ) -> Taken {
        match socket.receive() {
            Received::Nothing => return Taken::Nothing,
            Received::Closed => return Taken::End,
            Received::Frame(None) => {}
            Received::Frame(Some(header)) => self.note(&header),
        }
        if self.is_asked(mailbox, socket) {
            Taken::End
        } else {
            Taken::Nothing
        }
    }
}
