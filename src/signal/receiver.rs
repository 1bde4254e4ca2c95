//! `SignalReceiver`: a stream of the signals that arrive.

use std::fmt;
use std::future::Future;
use std::io::{ErrorKind, Read};
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
use super::order::Order;
use crate::sys::disposition::Claim;
use crate::sys::role::refuse_unless_hooked;

/// Receives the named signals from now on, instead of having them do what they do by default.
///
/// A signal that arrives several times before it is looked at is delivered once. Several pending
/// signals take turns, so that none can keep the others from being seen. Naming a signal twice is
/// the same as once. Several receivers of the same signal all get it. It may be opened in any task,
/// on any thread, also outside of a run.
///
/// # What happens to the previous disposition
///
/// Said precisely, because signal-hook, which this is built on, installs its handler once per
/// signal and never takes it out again; previous behaviour is restored by acting it out:
///
/// * *Default*, when the signal was first received by anything of ours: not in force while a
///   receiver is open, and in force again when the last one has been dropped: the signal ends or
///   stops the process, or is ignored, as it would have been. (Not so for real-time signals, whose
///   default signal-hook does not know: they are ignored from then on.)
/// * *Ignored*: ignored again afterwards. Only programs that this one executes can tell the
///   difference: they start with the default, where they would have inherited that the signal is
///   ignored.
/// * *A handler of somebody else's*: is called as before, at every signal, **also while a receiver
///   is open**. (Trio replaces it for that time.)
///
/// # SIGINT and `run`
///
/// A run that unwinds on Ctrl-C ([`CtrlC::Unwind`](crate::run::CtrlC), the default) does so in
/// spite of a receiver: both see the signal, and the second one ends the process. A program that
/// wants SIGINT for itself uses [`CtrlC::Leave`](crate::run::CtrlC).
///
/// # Dropping
///
/// Dropping the receiver ends it. What is still pending then is re-raised on this thread, before
/// `drop` returns, if by this the default comes in force again: a SIGTERM that nobody has looked at
/// ends the process. Other pending signals are not raised again, since everybody else who wants
/// them (a handler, another receiver) had them when they arrived.
///
/// # Errors
///
/// See [`SignalErrorKind`](super::SignalErrorKind). All or nothing: after an error no signal is
/// received.
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
pub fn open_signal_receiver(signals: &[i32]) -> Result<SignalReceiver, SignalError> {
    refuse_unless_hooked("open_signal_receiver");
    if signals.is_empty() {
        return Err(SignalError::empty());
    }
    if let Some(&signal) = signals.iter().find(|signal| FORBIDDEN.contains(signal)) {
        return Err(SignalError::forbidden(signal));
    }
    let (reader, writer) = UnixStream::pair().map_err(SignalError::descriptors)?;
    let reader = Async::new(reader).map_err(SignalError::descriptors)?;
    let mut ears = Vec::<Ear>::new();
    for &signal in signals {
        if ears.iter().all(|ear| ear.signal != signal) {
            ears.push(Ear::open(signal, &writer)?);
        }
    }
    Ok(SignalReceiver {
        order: Order::new(ears.len()),
        ears,
        reader,
    })
}

/// Receives signals, each number once for however often it came; made by [`open_signal_receiver`].
///
/// It is a [`Stream`] that never ends. Use [`next`](Self::next), or what stream libraries offer.
///
/// # Dropping
///
/// Ends it; see [`open_signal_receiver`] for what happens to pending signals.
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
    ears: Vec<Ear>,
    order: Order,
    /// Readable when a signal has come since it was last emptied.
    reader: Async<UnixStream>,
}

/// One signal's flag, and what sets it.
struct Ear {
    signal: i32,
    pending: Arc<AtomicBool>,
    /// `None` only while it is being closed.
    claim: Option<Claim>,
    registered: Vec<SigId>,
}

impl Ear {
    fn open(signal: i32, writer: &UnixStream) -> Result<Self, SignalError> {
        let refused = |error| SignalError::refused(signal, error);
        let writer = writer.try_clone().map_err(SignalError::descriptors)?;
        let mut ear = Ear {
            signal,
            pending: Arc::default(),
            claim: Some(Claim::new(signal).map_err(refused)?),
            registered: Vec::new(),
        };
        // The order counts: whoever reads the byte has to find the flag set.
        let flag = signal_hook::flag::register(signal, ear.pending.clone()).map_err(refused)?;
        ear.registered.push(flag);
        let wake = low_level::pipe::register(signal, writer).map_err(refused)?;
        ear.registered.push(wake);
        Ok(ear)
    }

    fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// Stops listening; true if the signal was pending and nobody else has seen it. The default
    /// comes first, so that no signal arrives in between unnoticed.
    fn close(&mut self) -> bool {
        let default_in_force = self.claim.take().is_some_and(Claim::release);
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
        default_in_force && self.pending.swap(false, Ordering::SeqCst)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        // Whoever cares for what is pending has closed it before.
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

    /// Returns the number of a signal that has come already; never waits.
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
        let ears = &self.ears;
        let taken = |&who: &usize| ears[who].pending.swap(false, Ordering::SeqCst);
        let served = self.order.serve(taken)?;
        Some(self.ears[served].signal)
    }

    /// Says, for one moment, how the receiver stands.
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
            pending: self.ears.iter().filter(|ear| ear.is_pending()).count(),
        }
    }

    fn poll_signal(&mut self, cx: &mut Context<'_>) -> Poll<i32> {
        loop {
            // Emptied before the flags are looked at: a byte that comes later is still there when
            // we wait for one.
            self.empty();
            if let Some(signal) = self.try_next() {
                return Poll::Ready(signal);
            }
            if let Err(error) = ready!(self.reader.poll_readable(cx)) {
                // The reactor is at its end, and so is everybody else.
                panic!("a signal receiver cannot wait: {error}");
            }
        }
    }

    fn empty(&self) {
        let mut bytes = [0; 64];
        loop {
            match self.reader.get_ref().read(&mut bytes) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Empty; or (which cannot be, as the actions hold it) the other end is gone.
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
            .order
            .turns()
            .filter(|&who| self.ears[who].close())
            .collect();
        // All of them, when all are closed: the first may end the process, and the others may be
        // handled otherwise.
        for who in unseen {
            let signal = self.ears[who].signal;
            if let Err(error) = low_level::raise(signal) {
                tracing::warn!(signal, %error, "a pending signal could not be raised again");
            }
        }
    }
}

impl fmt::Debug for SignalReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signals: Vec<_> = self.ears.iter().map(|ear| ear.signal).collect();
        f.debug_struct("SignalReceiver")
            .field("signals", &signals)
            .field("pending", &self.statistics().pending)
            .finish_non_exhaustive()
    }
}

/// How a [`SignalReceiver`] stands, at one moment; from [`SignalReceiver::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignalReceiverStatistics {
    /// How many signals have come and were not looked at; at most as many as were named.
    pub pending: usize,
}

/// Waits for a signal; made by [`SignalReceiver::next`].
///
/// # Dropping
///
/// Nothing is lost: what comes meanwhile is pending.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Next<'a> {
    receiver: &'a mut SignalReceiver,
}

impl Future for Next<'_> {
    type Output = i32;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<i32> {
        self.receiver.poll_signal(cx)
    }
}
