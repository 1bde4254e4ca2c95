//! `SignalReceiver`: a stream of the signals that arrive.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use async_io::Async;
use futures_lite::Stream;
use signal_hook::SigId;
use signal_hook::consts::FORBIDDEN;
use signal_hook::low_level;

use super::error::SignalError;
use super::round_robin::RoundRobin;
use crate::sys::disposition::{Claim, Claimable, take_over};
use crate::sys::fork_detector::{refuse_in_forked_copy, watch_for_forks};
use crate::sys::role::refuse_unless_hooked;
use crate::sys::socket;
use crate::sys::standard_fds;
use crate::wait::{Wait, noted};

/// Receives these signals from now on; their default actions are disabled while the receiver is
/// open.
///
/// A signal that arrives several times before it is taken is delivered once. Several pending
/// signals take turns, so that none can starve the others. Naming a signal twice has no effect. If
/// several receivers name a signal, all get it. A receiver may be opened in any task, on any
/// thread, and outside of a run.
///
/// # What happens to the previous disposition
///
/// signal-hook, which this is built on, installs its handler once for each signal and never removes
/// it. So the previous behaviour is restored by emulation:
///
/// * *Default action*: disabled while a receiver is open, and restored when the last receiver is
///   dropped: then the signal ends or stops the process, or is ignored, as before. A signal that
///   arrives while a receiver is opened or dropped is either received or has its default action.
///   (Process 1 of a container, which no signal can end, exits with 128 plus the signal's number.)
/// * *Ignored*, also if the process has inherited that, as under `nohup`: received while a receiver
///   is open, and ignored again afterwards. Only programs that this one executes can tell the
///   difference: they start with the default action, where they would have inherited that the
///   signal is ignored.
/// * *A handler of the program*: called as before, at every signal, **also while a receiver is
///   open**. (Trio replaces it for that time.)
///
/// # SIGINT and `run`
///
/// A run that unwinds on Ctrl-C ([`CtrlC::Unwind`](crate::run::CtrlC), the default) does so also
/// while a receiver is open: both get the signal, and a second one ends the process. To receive
/// SIGINT instead of unwinding, use [`CtrlC::Leave`](crate::run::CtrlC). A run never unwinds if
/// SIGINT was ignored when it was first used, for example inherited from `nohup`; a receiver gets
/// it even then.
///
/// # Dropping
///
/// Dropping the receiver closes it. If that restores a signal's default action, and the signal is
/// still pending, it is raised again on this thread before `drop` returns: a SIGTERM that was not
/// taken ends the process. Other pending signals are not raised again, because their handlers and
/// receivers got them when they arrived.
///
/// # Panics
///
/// In a process that was forked from one which had used seedbed: nothing would wake the receiver
/// there. Signals have their default action in such a process.
///
/// # Errors
///
/// See [`SignalErrorKind`](crate::signal::SignalErrorKind). After an error, no signal of the list
/// is received.
///
/// ```
/// use seedbed::signal::{SIGHUP, SIGUSR1, open_signal_receiver};
///
/// seedbed::run(async {
///     let mut signals = open_signal_receiver(&[SIGHUP, SIGUSR1]).unwrap();
///     signal_hook::low_level::raise(SIGUSR1).unwrap();
///     assert_eq!(signals.next().await, SIGUSR1);
/// });
/// ```
#[doc(alias = "ctrl_c")]
pub fn open_signal_receiver(signals: &[i32]) -> Result<SignalReceiver, SignalError> {
    refuse_unless_hooked("open_signal_receiver");
    if signals.is_empty() {
        return Err(SignalError::empty());
    }
    if let Some(&signal) = signals.iter().find(|signal| FORBIDDEN.contains(signal)) {
        return Err(SignalError::forbidden(signal));
    }
    watch_for_forks();
    refuse_in_forked_copy("waiting for a signal");
    standard_fds::open_closed();
    let (reader, writer) = wake_pipe().map_err(SignalError::descriptors)?;
    let mut subscriptions = Vec::<Subscription>::new();
    for &signal in signals {
        if subscriptions
            .iter()
            .all(|subscription| subscription.signal != signal)
        {
            subscriptions.push(Subscription::register(signal, &writer)?);
        }
    }
    // Nothing can fail from here on, so no signal is received by a receiver that is not opened.
    subscriptions.iter_mut().for_each(Subscription::claim);
    Ok(SignalReceiver {
        turns: RoundRobin::new(subscriptions.len()),
        subscriptions,
        reader,
    })
}

/// Makes the pipe whose bytes wake the receiver's task.
fn wake_pipe() -> io::Result<(Async<UnixStream>, UnixStream)> {
    let (reader, writer) = socket::pair()?;
    Ok((Async::new(UnixStream::from(reader))?, writer.into()))
}

/// Receives signals; made by [`open_signal_receiver`]. A pending signal is delivered once, however
/// often it has arrived.
///
/// It is a [`Stream`] that never ends. Use [`next`](Self::next), or the methods of a stream
/// library.
///
/// # Dropping
///
/// Closes it; see [`open_signal_receiver`] for pending signals.
///
/// ```
/// use seedbed::signal::{SIGUSR1, SIGUSR2, open_signal_receiver};
/// use smol::stream::StreamExt;
///
/// seedbed::run(async {
///     let signals = open_signal_receiver(&[SIGUSR1, SIGUSR2]).unwrap();
///     signal_hook::low_level::raise(SIGUSR2).unwrap();
///     signal_hook::low_level::raise(SIGUSR1).unwrap();
///     let both: Vec<i32> = signals.take(2).collect().await;
///     assert_eq!(both, [SIGUSR1, SIGUSR2]); // in turn, not in the order of arrival
/// });
/// ```
pub struct SignalReceiver {
    subscriptions: Vec<Subscription>,
    turns: RoundRobin,
    /// Readable if a signal has arrived since it was last drained.
    reader: Async<UnixStream>,
}

/// A signal's flag, and the actions that set it.
struct Subscription {
    signal: i32,
    pending: Arc<AtomicBool>,
    registered: Vec<SigId>,
    claimable: Claimable,
    /// `None` until the receiver is open, and from `close` on.
    claim: Option<Claim>,
}

impl Subscription {
    /// Registers the actions. The signal's default action stays on.
    fn register(signal: i32, writer: &UnixStream) -> Result<Self, SignalError> {
        let refused = |error| SignalError::refused(signal, error);
        let writer = writer.try_clone().map_err(SignalError::descriptors)?;
        let mut subscription = Subscription {
            signal,
            pending: Arc::default(),
            registered: Vec::new(),
            claimable: take_over(signal).map_err(refused)?,
            claim: None,
        };
        // The order matters: the flag must be set when the byte is read.
        let flag =
            signal_hook::flag::register(signal, subscription.pending.clone()).map_err(refused)?;
        subscription.registered.push(flag);
        let wake = low_level::pipe::register(signal, writer).map_err(refused)?;
        subscription.registered.push(wake);
        Ok(subscription)
    }

    /// Switches the default action off.
    fn claim(&mut self) {
        self.claim = Some(self.claimable.claim());
    }

    fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// Unregisters; true if the signal was pending and its default action is restored. The default
    /// action is restored first, so no signal is lost in between.
    fn close(&mut self) -> bool {
        let default_in_force = self.claim.take().is_some_and(Claim::release);
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
        default_in_force && self.pending.swap(false, Ordering::SeqCst)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // A receiver that raises pending signals again has called `close` before. A subscription
        // without a claim has nothing to raise: the default action was on.
        self.close();
    }
}

impl SignalReceiver {
    /// Waits for a signal, and returns its number.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened. No signal is lost.
    ///
    /// ```
    /// use seedbed::signal::{SIGUSR1, open_signal_receiver};
    ///
    /// seedbed::run(async {
    ///     let mut signals = open_signal_receiver(&[SIGUSR1]).unwrap();
    ///     for _ in 0..3 {
    ///         signal_hook::low_level::raise(SIGUSR1).unwrap();
    ///     }
    ///     assert_eq!(signals.next().await, SIGUSR1);
    ///     assert_eq!(signals.try_next(), None); // three times is once
    /// });
    /// ```
    #[allow(clippy::should_implement_trait)] // it is the stream's `next`, without the `Option` that is never `None`
    pub fn next(&mut self) -> Next<'_> {
        Next { receiver: self }
    }

    /// Returns the number of a pending signal; never waits.
    ///
    /// ```
    /// use seedbed::signal::{SIGUSR1, open_signal_receiver};
    ///
    /// let mut signals = open_signal_receiver(&[SIGUSR1]).unwrap();
    /// assert_eq!(signals.try_next(), None);
    /// signal_hook::low_level::raise(SIGUSR1).unwrap();
    /// assert_eq!(signals.try_next(), Some(SIGUSR1));
    /// ```
    pub fn try_next(&mut self) -> Option<i32> {
        let subscriptions = &self.subscriptions;
        let taken = |&index: &usize| subscriptions[index].pending.swap(false, Ordering::SeqCst);
        let served = self.turns.next(taken)?;
        Some(self.subscriptions[served].signal)
    }

    /// Returns the number of pending signals at this moment.
    ///
    /// ```
    /// use seedbed::signal::{SIGUSR1, open_signal_receiver};
    ///
    /// let mut signals = open_signal_receiver(&[SIGUSR1]).unwrap();
    /// signal_hook::low_level::raise(SIGUSR1).unwrap();
    /// assert_eq!(signals.statistics().pending, 1);
    /// assert_eq!(signals.try_next(), Some(SIGUSR1));
    /// assert_eq!(signals.statistics().pending, 0);
    /// ```
    pub fn statistics(&self) -> SignalReceiverStatistics {
        SignalReceiverStatistics {
            pending: self
                .subscriptions
                .iter()
                .filter(|subscription| subscription.is_pending())
                .count(),
        }
    }

    fn poll_signal(&mut self, cx: &mut Context<'_>) -> Poll<i32> {
        loop {
            // Drained before the flags are read, so a byte that arrives later ends the wait below.
            self.drain_pipe();
            if let Some(signal) = self.try_next() {
                return Poll::Ready(signal);
            }
            refuse_in_forked_copy("waiting for a signal");
            if let Err(error) = ready!(self.reader.poll_readable(cx)) {
                // The reactor has failed, so no task can wait any more.
                panic!("a signal receiver cannot wait: {error}");
            }
        }
    }

    fn drain_pipe(&self) {
        let mut bytes = [0; 64];
        loop {
            match self.reader.get_ref().read(&mut bytes) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Empty. (The other end cannot be closed: the actions own it.)
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl Stream for SignalReceiver {
    type Item = i32;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<i32>> {
        self.poll_signal(cx).map(Some)
    }
}

impl Drop for SignalReceiver {
    fn drop(&mut self) {
        let unseen: Vec<_> = self
            .turns
            .indices()
            .filter(|&index| self.subscriptions[index].close())
            .collect();
        // Raised after all are closed, because the first may end the process while others have
        // handlers.
        for index in unseen {
            let signal = self.subscriptions[index].signal;
            if let Err(error) = low_level::raise(signal) {
                tracing::warn!(signal, %error, "a pending signal could not be raised again");
            }
        }
    }
}

impl fmt::Debug for SignalReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signals: Vec<_> = self
            .subscriptions
            .iter()
            .map(|subscription| subscription.signal)
            .collect();
        f.debug_struct("SignalReceiver")
            .field("signals", &signals)
            .field("pending", &self.statistics().pending)
            .finish_non_exhaustive()
    }
}

/// The state of a [`SignalReceiver`] at one moment; from [`SignalReceiver::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignalReceiverStatistics {
    /// The number of signals that have arrived and were not taken; at most the number of named
    /// ones.
    pub pending: usize,
}

/// Waits for a signal; made by [`SignalReceiver::next`].
///
/// # Dropping
///
/// No signal is lost: one that arrives later is pending.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Next<'a> {
    receiver: &'a mut SignalReceiver,
}

impl Future for Next<'_> {
    type Output = i32;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<i32> {
        noted(self.receiver.poll_signal(cx), &Wait::For("a signal"))
    }
}
