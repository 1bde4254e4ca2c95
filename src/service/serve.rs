//! `serve`: runs a service until a signal ends it.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::Stream;
use pin_project_lite::pin_project;

use super::shutdown::Shutdown;
use super::tuning::DRAIN_FOR;
use crate::cancel::ScopeRun;
use crate::signal::{SIGINT, SIGTERM, SignalError, SignalReceiver, open_signal_receiver};

/// Runs a service until it ends, and shuts it down in order when a signal asks for that.
///
/// Returns a builder, which is awaited.
///
/// 1. SIGTERM or SIGINT *begins* the shutdown: [`Shutdown::until`] and [`Shutdown::begun`] end, so
///    that the service accepts nothing new. It may finish what it has begun.
/// 2. What is not finished after 30 seconds ([`drain_for`](Serve::drain_for)), or when a second
///    signal arrives, is *cut*: cancelled, with all its clean-up and shielded sections.
///
/// The value is that of the service, or `None` if it was cut. Times are those of the run's clock.
///
/// A run that unwinds on Ctrl-C does so also here, at the first one. For SIGINT to begin the
/// shutdown instead, set [`CtrlC::Leave`](crate::run::CtrlC), for example by
/// `#[seedbed::main(ctrl_c = CtrlC::Leave)]`.
///
/// # Cancellation
///
/// Cancelling drops the service, as by any other scope, without a time to drain.
///
/// # Errors
///
/// If a signal cannot be received; see [`open_signal_receiver`]. The service was not begun.
///
/// ```
/// use std::io;
/// use seedbed::run::CtrlC;
/// use seedbed::service::serve;
/// use seedbed::{Nursery, open_nursery};
/// use smol::net::{TcpListener, TcpStream};
///
/// async fn attend_to(client: TcpStream) {}
///
/// #[seedbed::main(ctrl_c = CtrlC::Leave)]
/// async fn main() -> io::Result<()> {
///     let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
///     let served = serve(|shutdown| {
///         // The block ends when its last client has gone.
///         open_nursery(async move |clients: Nursery<'_>| {
///             # signal_hook::low_level::raise(seedbed::signal::SIGTERM).unwrap();
///             while let Some(Ok((client, _))) = shutdown.until(listener.accept()).await {
///                 clients.spawn(attend_to(client));
///             }
///         })
///     });
///     assert_eq!(served.await.unwrap(), Some(())); // after a SIGTERM
///     Ok(())
/// }
/// ```
#[doc(alias = "graceful")]
#[doc(alias = "shutdown")]
#[doc(alias = "TaskTracker")]
pub fn serve<F, S>(service: F) -> Serve<F>
where
    F: FnOnce(Shutdown) -> S,
    S: IntoFuture,
{
    Serve {
        service,
        signals: vec![SIGTERM, SIGINT],
        drain_for: DRAIN_FOR,
    }
}

/// The builder of a service, made by [`serve`](serve()).
#[must_use = "the service is run when this is awaited"]
pub struct Serve<F> {
    service: F,
    signals: Vec<i32>,
    drain_for: Duration,
}

impl<F> Serve<F> {
    /// Sets the time between the beginning of the shutdown and the cut. The default is 30 seconds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::service::serve;
    /// use seedbed::time::sleep_forever;
    ///
    /// let served = serve(|shutdown| async move {
    ///     shutdown.begin();
    ///     sleep_forever().await
    /// });
    /// assert_eq!(seedbed::run(served.drain_for(Duration::from_millis(1))).unwrap(), None);
    /// ```
    pub fn drain_for(mut self, limit: Duration) -> Self {
        self.drain_for = limit;
        self
    }

    /// Sets the signals that begin the shutdown. The default is SIGTERM and SIGINT; with none, only
    /// [`Shutdown::begin`] does.
    ///
    /// ```
    /// use seedbed::service::serve;
    /// use seedbed::signal::SIGUSR1;
    ///
    /// let served = serve(|shutdown| async move {
    ///     signal_hook::low_level::raise(SIGUSR1).unwrap();
    ///     shutdown.begun().await;
    /// });
    /// assert_eq!(seedbed::run(served.signals(&[SIGUSR1])).unwrap(), Some(()));
    /// ```
    pub fn signals(mut self, signals: &[i32]) -> Self {
        self.signals = signals.to_vec();
        self
    }
}

impl<F, S> IntoFuture for Serve<F>
where
    F: FnOnce(Shutdown) -> S,
    S: IntoFuture,
{
    type Output = Result<Option<S::Output>, SignalError>;
    type IntoFuture = ServeFuture<F, S::IntoFuture>;

    fn into_future(self) -> Self::IntoFuture {
        ServeFuture {
            shutdown: Shutdown::new(self.drain_for),
            begin: Some((self.service, self.signals)),
            signals: None,
            work: None,
        }
    }
}

impl<F> fmt::Debug for Serve<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("signals", &self.signals)
            .field("drain_for", &self.drain_for)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of a service, made by awaiting [`Serve`].
    ///
    /// # Dropping
    ///
    /// Drops the service.
    #[must_use = "futures do nothing unless awaited"]
    pub struct ServeFuture<F, S> {
        shutdown: Shutdown,
        // The service and its signals, until the first poll.
        begin: Option<(F, Vec<i32>)>,
        #[pin]
        work: Option<ScopeRun<S>>,
        // Dropped after the service: a pending signal may end the program then.
        signals: Option<SignalReceiver>,
    }
}

impl<F, S> Future for ServeFuture<F, S::IntoFuture>
where
    F: FnOnce(Shutdown) -> S,
    S: IntoFuture,
{
    type Output = Result<Option<S::Output>, SignalError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some((service, signals)) = this.begin.take() {
            if !signals.is_empty() {
                *this.signals = Some(open_signal_receiver(&signals)?);
            }
            let service = service(this.shutdown.clone());
            this.work.set(Some(this.shutdown.work.run(service)));
        }
        while let Some(signals) = this.signals
            && let Poll::Ready(Some(signal)) = Pin::new(signals).poll_next(cx)
        {
            if this.shutdown.has_begun() {
                tracing::warn!(signal, "a second signal cuts a service that shuts down");
                this.shutdown.cut();
            } else {
                tracing::info!(signal, "a signal begins the shutdown of a service");
                this.shutdown.begin();
            }
        }
        let work = this.work.as_mut().as_pin_mut();
        let work = work.expect("a service is not polled after its end");
        let value = ready!(work.poll(cx));
        this.work.set(None);
        *this.signals = None;
        Poll::Ready(Ok(value))
    }
}

impl<F, S> fmt::Debug for ServeFuture<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeFuture")
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}
