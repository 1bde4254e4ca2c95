//! A worker process that a launcher has started, perhaps on another machine: what its parent knows
//! of it.
//!
//! It is no child of this process, so it has no descriptor here. Its relay, a background task,
//! kills it and learns of its end. The worker's owner and the relay share a [`RemoteProcess`].

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

use crate::process::notify::{Listener, Notify};
use crate::sys::process::Ended;
use crate::sys::unwind::wake_all_and_go_on;
use crate::transport::relay::packet::Hello;
use crate::worker::error::Elsewhere;

/// A process on the other side of a launcher.
#[derive(Debug)]
pub(in crate::worker) struct RemoteProcess {
    pid: u32,
    host: Arc<str>,
    /// The job and step of the engine that has started its guardian.
    step: Option<Arc<str>>,
    is_killed: AtomicBool,
    /// The relay, which waits for the kill.
    relay: AtomicWaker,
    end: OnceLock<RemoteEnd>,
    has_ended: Notify,
}

/// How a remote process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum RemoteEnd {
    /// Its guardian has reported this.
    Reported(Ended),
    /// Its guardian was told to stop by this signal, and has killed it.
    Stopped { signal: i32 },
    /// The connection to its guardian was lost, and the lease is over.
    Lost,
}

impl RemoteProcess {
    pub(in crate::worker) fn new(pid: u32, hello: &Hello) -> Self {
        Self {
            pid,
            host: (&*hello.host).into(),
            step: hello.step.as_deref().map(Into::into),
            is_killed: AtomicBool::new(false),
            relay: AtomicWaker::new(),
            end: OnceLock::new(),
            has_ended: Notify::new(),
        }
    }

    /// Returns the number of the process on its machine.
    pub(in crate::worker) fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets the relay kill the process, if it is not known to have ended.
    pub(in crate::worker) fn kill(&self) {
        self.is_killed.store(true, Ordering::Release);
        wake_all_and_go_on(self.relay.take());
    }

    pub(in crate::worker) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Waits until the process is to be killed. For the relay.
    pub(in crate::worker) fn poll_killed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.relay.register(cx.waker()); // before the look, so that no kill is missed
        if self.is_killed() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Notes how the process ended, once. For the relay.
    pub(in crate::worker) fn set_end(&self, end: RemoteEnd) {
        if self.end.set(end).is_ok() {
            self.has_ended.notify_all();
        }
    }

    /// Returns how the process ended, as far as a process of this machine could end so.
    pub(in crate::worker) fn ended(&self) -> Option<Ended> {
        self.end.get().map(|end| match end {
            RemoteEnd::Reported(ended) => *ended,
            RemoteEnd::Stopped { .. } => Ended::Signalled {
                signal: libc::SIGKILL,
                core: false,
            },
            RemoteEnd::Lost => Ended::Unknown,
        })
    }

    /// Waits for the end. `listener` is kept from one poll to the next.
    pub(in crate::worker) fn poll_end(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Option<Listener>,
    ) -> Poll<Ended> {
        loop {
            let mut waiting = listener.take().unwrap_or_else(|| self.listen());
            if let Some(ended) = self.ended() {
                return Poll::Ready(ended);
            }
            if Pin::new(&mut waiting).poll(cx).is_pending() {
                *listener = Some(waiting);
                return Poll::Pending;
            }
        }
    }

    /// Returns a wait for the end, from now on.
    pub(in crate::worker) fn listen(&self) -> Listener {
        self.has_ended.listen()
    }

    /// Returns what to say of a process that ended elsewhere.
    pub(in crate::worker) fn elsewhere(&self) -> Elsewhere {
        Elsewhere {
            host: self.host.clone(),
            step: self.step.clone(),
            stopped_by: match self.end.get() {
                Some(RemoteEnd::Stopped { signal }) => Some(*signal),
                _ => None,
            },
            is_lost: matches!(self.end.get(), Some(RemoteEnd::Lost)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::transport::job::image::fingerprint;
    use smol::future::{poll_fn, poll_once};

    #[test]
    fn the_end_wakes_the_owner_and_the_kill_the_relay() {
        let hello = Hello {
            image: fingerprint().unwrap().clone(),
            contents: None,
            path: String::new(),
            host: "n1".into(),
            step: Some("5.0".into()),
        };
        let process = RemoteProcess::new(7, &hello);
        smol::block_on(async {
            let mut listener = None;
            let mut end = poll_fn(|cx| process.poll_end(cx, &mut listener));
            assert_eq!(poll_once(&mut end).await, None);
            assert_eq!(poll_once(poll_fn(|cx| process.poll_killed(cx))).await, None);
            process.kill();
            poll_fn(|cx| process.poll_killed(cx)).await;
            process.set_end(RemoteEnd::Reported(Ended::Exited(3)));
            process.set_end(RemoteEnd::Lost);
            assert_eq!(end.await, Ended::Exited(3), "the first report counts");
        });
    }
}
