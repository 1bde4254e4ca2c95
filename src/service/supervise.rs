//! `supervise`: runs a child, and starts it again when it fails.

use std::any::Any;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use super::backoff::Backoff;
use super::error::SuperviseError;
use super::tuning::JITTER_SMALLEST;
use crate::time::{Sleep, current_time, sleep};

/// Runs the future that `make` returns, and a new one after each failure, until one succeeds.
///
/// Returns a builder, which is awaited. The pause before a restart grows with the number of
/// failures in a row, up to a limit, after which the supervisor gives up. Each failure emits a
/// `tracing` event at WARN. Times are those of the run's clock.
///
/// The child can be anything that ends with a `Result`: a task of this process, a block, a call of
/// [`run_sync`](crate::run_sync()), or another supervisor. Inside a nursery, the error of a
/// supervisor that gives up ends the block like any other error.
///
/// # Cancellation
///
/// Cancelling drops the child where it waits, or ends the pause between two children. A time limit
/// for all attempts together is [`fail_after`](crate::fail_after) around this; one for each attempt
/// is inside of `make`.
///
/// # Errors
///
/// [`SuperviseError`], with the error of the last child.
///
/// # Panics
///
/// With the panic of a child, unless [`restart_on_panic`](Supervise::restart_on_panic) is set.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use seedbed::service::supervise;
/// use seedbed::testing::MockClock;
///
/// let clock = MockClock::autojump();
/// seedbed::RunBuilder::new().clock(clock.clone()).run(async {
///     let mut attempts = 0;
///     let child = || {
///         attempts += 1;
///         let number = attempts;
///         async move { if number < 3 { Err(io::ErrorKind::TimedOut) } else { Ok(number) } }
///     };
///     let second = Duration::from_secs(1);
///     assert_eq!(supervise(child).backoff(second, 10 * second).jitter(false).await, Ok(3));
///     assert_eq!(clock.elapsed(), 3 * second); // one second, then two
/// });
/// ```
#[doc(alias = "retry")]
#[doc(alias = "restart")]
#[doc(alias = "backoff")]
pub fn supervise<F, Fut, T, E>(make: F) -> Supervise<F, E>
where
    F: FnMut() -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    E: fmt::Display,
{
    Supervise {
        make,
        settings: Settings {
            name: None,
            backoff: Backoff::new(),
            jitter: true,
            restart_on_panic: false,
            retry_if: Box::new(|_| true),
        },
    }
}

/// The builder of a supervisor, made by [`supervise`].
#[must_use = "the child is run when this is awaited"]
pub struct Supervise<F, E> {
    make: F,
    settings: Settings<E>,
}

struct Settings<E> {
    name: Option<String>,
    backoff: Backoff,
    jitter: bool,
    restart_on_panic: bool,
    retry_if: Box<dyn FnMut(&E) -> bool + Send>,
}

impl<F, E> Supervise<F, E> {
    /// Sets the name of the child in `tracing` events.
    ///
    /// ```
    /// use seedbed::service::supervise;
    ///
    /// let feed = supervise(|| async { Err::<(), _>("lost") }).name("the news feed").limit(1);
    /// assert!(seedbed::run(feed).is_err());
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into());
        self
    }

    /// Sets the pause after the first failure, which doubles with each further one, and the longest
    /// pause. The defaults are 100 milliseconds and 30 seconds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::service::supervise;
    ///
    /// let child = supervise(|| async { Err::<(), _>("lost") });
    /// let child = child.backoff(Duration::ZERO, Duration::ZERO).limit(3); // without a pause
    /// assert_eq!(seedbed::run(child).unwrap_err().failures(), 3);
    /// ```
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.backoff.first_pause = first;
        self.settings.backoff.longest_pause = longest;
        self
    }

    /// Sets whether each pause is shortened at random, to at least half of its length. So programs
    /// that lost the same server do not all return to it at once. The default is true.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::service::supervise;
    /// use seedbed::testing::MockClock;
    ///
    /// let (clock, second) = (MockClock::autojump(), Duration::from_secs(1));
    /// let child = supervise(|| async { Err::<(), _>("lost") }).limit(2);
    /// let child = child.backoff(second, second).jitter(false);
    /// seedbed::RunBuilder::new().clock(clock.clone()).run(child).unwrap_err();
    /// assert_eq!(clock.elapsed(), second);
    /// ```
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.settings.jitter = jitter;
        self
    }

    /// Sets the number of failures in a row after which the supervisor gives up. The default is 5;
    /// with 1, nothing is restarted.
    ///
    /// ```
    /// use seedbed::service::supervise;
    ///
    /// let child = supervise(|| async { Err::<(), _>("lost") }).limit(1);
    /// assert_eq!(seedbed::run(child).unwrap_err().failures(), 1);
    /// ```
    pub fn limit(mut self, failures: u32) -> Self {
        self.settings.backoff.limit = failures;
        self
    }

    /// Sets how long a child must have lived for its failure to count as the first again. The
    /// default is one minute.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::service::supervise;
    /// use seedbed::testing::MockClock;
    /// use seedbed::{move_on_after, sleep};
    ///
    /// let hour = Duration::from_secs(3600);
    /// seedbed::RunBuilder::new().clock(MockClock::autojump()).run(async {
    ///     let child = || async {
    ///         sleep(Duration::from_secs(600)).await;
    ///         Err::<(), _>("lost")
    ///     };
    ///     // It fails more often than the limit says, but never twice in a row.
    ///     assert!(move_on_after(hour, supervise(child).limit(2)).await.is_none());
    /// });
    /// ```
    pub fn healthy_after(mut self, lived: Duration) -> Self {
        self.settings.backoff.healthy_after = lived;
        self
    }

    /// Sets which errors are followed by a restart. After another error, the supervisor gives up at
    /// once. By default all are.
    ///
    /// ```
    /// use std::io::ErrorKind::{self, NotFound, TimedOut};
    /// use seedbed::service::supervise;
    ///
    /// let child = supervise(|| async { Err::<(), ErrorKind>(NotFound) });
    /// let child = child.retry_if(|error| *error == TimedOut);
    /// assert_eq!(seedbed::run(child).unwrap_err().failures(), 1);
    /// ```
    pub fn retry_if(mut self, is_temporary: impl FnMut(&E) -> bool + Send + 'static) -> Self {
        self.settings.retry_if = Box::new(is_temporary);
        self
    }

    /// Sets whether a panic of a child is a failure that is followed by a restart. When the
    /// supervisor gives up after a panic, the panic propagates. The default is false: memory that a
    /// child shares with other tasks may be half changed. Code that must survive its own panics and
    /// crashes runs in a worker process, where each is an error.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::service::supervise;
    ///
    /// let mut inputs = [vec![], vec![3, 4]].into_iter();
    /// let child = supervise(|| {
    ///     let input = inputs.next().unwrap();
    ///     async move { Ok::<u32, String>(*input.iter().max().expect("there is a number")) }
    /// });
    /// let child = child.backoff(Duration::ZERO, Duration::ZERO).restart_on_panic(true);
    /// assert_eq!(seedbed::run(child), Ok(4));
    /// ```
    pub fn restart_on_panic(mut self, restart: bool) -> Self {
        self.settings.restart_on_panic = restart;
        self
    }
}

impl<F, Fut, T, E> IntoFuture for Supervise<F, E>
where
    F: FnMut() -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    E: fmt::Display,
{
    type Output = Result<T, SuperviseError<E>>;
    type IntoFuture = SuperviseFuture<F, Fut::IntoFuture, E>;

    fn into_future(self) -> Self::IntoFuture {
        SuperviseFuture {
            make: self.make,
            settings: self.settings,
            started: None,
            state: State::Idle,
        }
    }
}

impl<F, E> fmt::Debug for Supervise<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervise")
            .field("name", &self.settings.name)
            .field("limit", &self.settings.backoff.limit)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of a supervisor, made by awaiting [`Supervise`].
    ///
    /// # Dropping
    ///
    /// Drops the child.
    #[must_use = "futures do nothing unless awaited"]
    pub struct SuperviseFuture<F, Fut, E> {
        make: F,
        settings: Settings<E>,
        // When the child was started.
        started: Option<Instant>,
        #[pin]
        state: State<Fut>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<Fut> {
        // The next child is to be started.
        Idle,
        Running { #[pin] child: Fut },
        Pausing { #[pin] sleep: Sleep },
        Ended,
    }
}

/// How a child failed.
enum Failure<E> {
    Error(E),
    Panic(Box<dyn Any + Send>),
}

impl<E: fmt::Display> Settings<E> {
    /// Returns the pause after a failure, or the supervisor's error.
    fn pause_after(
        &mut self,
        failure: Failure<E>,
        lived: Duration,
    ) -> Result<Duration, SuperviseError<E>> {
        let failures = self.backoff.record(lived);
        let is_temporary = match &failure {
            Failure::Error(error) => (self.retry_if)(error),
            Failure::Panic(_) => true,
        };
        let pause = self.backoff.pause().filter(|_| is_temporary);
        let pause = pause.map(|pause| if self.jitter { shortened(pause) } else { pause });
        let name = self.name.as_deref().unwrap_or("a supervised future");
        match (pause, failure) {
            (Some(pause), failure) => {
                let error = match failure {
                    Failure::Error(error) => error.to_string(),
                    Failure::Panic(_) => "it panicked".to_string(),
                };
                tracing::warn!(
                    name,
                    failures,
                    error,
                    ?pause,
                    "failed, and is started again"
                );
                Ok(pause)
            }
            (None, Failure::Error(error)) => {
                tracing::warn!(name, failures, %error, "failed, and is not started again");
                Err(SuperviseError::new(failures, error))
            }
            (None, Failure::Panic(payload)) => resume_unwind(payload),
        }
    }
}

fn shortened(pause: Duration) -> Duration {
    let part = JITTER_SMALLEST + (1.0 - JITTER_SMALLEST) * fastrand::f64();
    Duration::try_from_secs_f64(pause.as_secs_f64() * part).unwrap_or(pause)
}

/// Calls `f`, and returns its panic if it is to be caught.
fn call<T>(catch: bool, f: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    if catch {
        catch_unwind(AssertUnwindSafe(f))
    } else {
        Ok(f())
    }
}

impl<F, M, T, E> Future for SuperviseFuture<F, M::IntoFuture, E>
where
    F: FnMut() -> M,
    M: IntoFuture<Output = Result<T, E>>,
    E: fmt::Display,
{
    type Output = Result<T, SuperviseError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let catch = this.settings.restart_on_panic;
        loop {
            let failure = match this.state.as_mut().project() {
                StateProjection::Idle => {
                    *this.started = Some(current_time());
                    match call(catch, || (this.make)().into_future()) {
                        Ok(child) => {
                            this.state.set(State::Running { child });
                            continue;
                        }
                        Err(payload) => Failure::Panic(payload),
                    }
                }
                StateProjection::Running { child } => match call(catch, || child.poll(cx)) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(Ok(value))) => {
                        this.state.set(State::Ended);
                        return Poll::Ready(Ok(value));
                    }
                    Ok(Poll::Ready(Err(error))) => Failure::Error(error),
                    Err(payload) => Failure::Panic(payload),
                },
                StateProjection::Pausing { sleep } => {
                    ready!(sleep.poll(cx));
                    this.state.set(State::Idle);
                    continue;
                }
                StateProjection::Ended => panic!("a supervisor was polled after its end"),
            };
            this.state.set(State::Ended); // drops the child, before the pause begins
            let lived = this.started.map_or(Duration::ZERO, |started| {
                current_time().saturating_duration_since(started)
            });
            match this.settings.pause_after(failure, lived) {
                Ok(pause) => this.state.set(State::Pausing {
                    sleep: sleep(pause),
                }),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<F, Fut, E> fmt::Debug for SuperviseFuture<F, Fut, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SuperviseFuture")
            .field("name", &self.settings.name)
            .finish_non_exhaustive()
    }
}
