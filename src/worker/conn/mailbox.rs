//! The parent's use of a worker's mailbox: when a worker gets one.
//!
//! A worker gets its mailbox with its second job, since many workers run one job only. From then on
//! a job goes through the mailbox if the worker still spins after the job before. Then the parent
//! looks for the answer in three ways, one after the other:
//!
//! * in the same poll, for some microseconds: a job that takes less is not worth a wait;
//! * at the end of a turn of the run's loop, if there is one: see
//!   [`spin_poller`](super::spin_poller);
//! * through the reactor.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_io::Async;

use super::spin_poller::WatchedMailbox;
use crate::sys::mapping::Mapping;
use crate::transport::endpoint::Side;
use crate::transport::frame;
use crate::transport::frame::Kind;
use crate::transport::mailbox::{Mailbox, Slot};
use crate::transport::out_message::OutMessage;

/// Off in the tests that use the socket alone, as a program does that has no memory for a mailbox.
const MAILBOX_ENABLED: bool = cfg!(not(seedbed_socket_only));

/// The parent's side of a connection.
#[derive(Debug)]
pub(in crate::worker) enum ParentSide {}

impl Side for ParentSide {
    type Socket = Async<OwnedFd>;
    type Mailbox = Arc<WatchedMailbox>;

    fn incoming(watched: &Arc<WatchedMailbox>) -> &Slot {
        &watched.mailbox.answer
    }

    fn outgoing(watched: &Arc<WatchedMailbox>) -> &Slot {
        &watched.mailbox.job
    }
}

/// Decides with which job a worker gets its mailbox.
#[derive(Debug)]
pub(in crate::worker) enum MailboxOffer {
    /// The worker has had no job.
    BeforeFirstJob,
    /// The next job brings the mailbox.
    BeforeSecondJob,
    /// The worker has its mailbox, or will never have one.
    Settled,
}

impl MailboxOffer {
    /// Lets the next job bring the mailbox, also if it is the first.
    pub(in crate::worker) fn hasten(&mut self) {
        if let Self::BeforeFirstJob = self {
            *self = Self::BeforeSecondJob;
        }
    }

    /// Sees to it that the worker never has a mailbox.
    pub(in crate::worker) fn refuse(&mut self) {
        *self = Self::Settled;
    }

    /// Moves on by one job. Returns the mailbox, and the message that brings it to the worker, if
    /// that goes before this job.
    pub(in crate::worker) fn next_job(&mut self) -> Option<(Arc<WatchedMailbox>, OutMessage)> {
        match self {
            Self::BeforeFirstJob => {
                *self = Self::BeforeSecondJob;
                None
            }
            Self::BeforeSecondJob => {
                *self = Self::Settled;
                // Without memory for a mailbox, all frames go through the socket.
                let (mailbox, message) = make().ok()?;
                Some((WatchedMailbox::new(mailbox), message))
            }
            Self::Settled => None,
        }
    }
}

fn make() -> io::Result<(Mapping<Mailbox>, OutMessage)> {
    if !MAILBOX_ENABLED {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let (mailbox, memory): (_, OwnedFd) = Mapping::make("seedbed-mailbox")?;
    let frame = frame::of_bytes(Kind::Mailbox, 0, b"");
    Ok((mailbox, OutMessage::new(frame, vec![Arc::new(memory)])))
}
