//! `Sleep`: waits for a deadline, in the run's time, or outside of a run in real time.

use std::future::{Future, Pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::current::timers;
use super::queue::DeadlineKey;
use super::timers::{DeadlinePoll, Timers};
use crate::sys::fork_detector::{refuse_in_forked_copy, watch_for_forks};
use crate::wait::{self, Wait};

/// Sleeps for `duration`, which begins when the returned future is first polled.
///
/// A duration of zero lets the other tasks run once. A duration too long to be represented lasts
/// forever. A sleep that goes on in another run, or outside of a run, after its run has ended
/// sleeps for the rest of its duration in the time of its new place.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened. Dropping the future removes its deadline.
///
/// ```
/// use std::time::Duration;
/// use seedbed::time::current_time;
/// use seedbed::{run, sleep};
///
/// run(async {
///     let start = current_time();
///     sleep(Duration::from_millis(2)).await;
///     assert!(current_time() - start >= Duration::from_millis(2));
/// });
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    Sleep {
        state: State::New(Until::Elapsed(duration)),
    }
}

/// Sleeps until `deadline`. A deadline that has passed lets the other tasks run once. A sleep that
/// goes on after its run has ended sleeps for the rest of the time, as [`sleep`] does.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened. Dropping the future removes its deadline.
///
/// ```
/// use std::time::Duration;
/// use seedbed::time::{current_time, sleep_until};
/// use seedbed::run;
///
/// run(async {
///     let deadline = current_time() + Duration::from_millis(1);
///     sleep_until(deadline).await;
///     assert!(current_time() >= deadline);
/// });
/// ```
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        state: State::New(Until::Time(deadline)),
    }
}

/// Waits until it is cancelled. This is std's [`future::pending`](std::future::pending) under
/// Trio's name.
///
/// # Cancellation
///
/// Atomic. Cancellation is the only way to end it.
///
/// ```
/// use std::time::Duration;
/// use seedbed::time::sleep_forever;
/// use seedbed::{move_on_after, run};
///
/// run(async {
///     assert!(move_on_after(Duration::from_millis(1), sleep_forever()).await.is_none());
/// });
/// ```
#[doc(alias = "pending")]
pub fn sleep_forever() -> Pending<()> {
    std::future::pending()
}

/// Waits for a deadline; made by [`sleep`] and [`sleep_until`]. Dropping it removes the deadline.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    state: State,
}

#[derive(Debug)]
enum State {
    New(Until),
    /// The deadline had passed at the first poll. The other tasks run once before this ends.
    Yielded,
    InRun {
        timers: Arc<Timers>,
        key: DeadlineKey,
        deadline: Instant,
    },
    /// Boxed, because it is large, and most sleeps are in a run.
    Real(Box<smol::Timer>),
    Forever,
    Done,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    /// From the first poll.
    Elapsed(Duration),
    Time(Instant),
}

impl State {
    fn begin(until: Until, cx: &mut Context<'_>) -> State {
        let timers = timers();
        let deadline = match until {
            Until::Elapsed(Duration::ZERO) => return State::yield_once(cx),
            Until::Elapsed(duration) => {
                let now = timers
                    .as_ref()
                    .map_or_else(Instant::now, |timers| timers.now());
                match now.checked_add(duration) {
                    Some(deadline) => deadline,
                    None => return State::Forever,
                }
            }
            Until::Time(deadline) => deadline,
        };
        match timers {
            Some(timers) => match timers.insert(deadline, cx.waker()) {
                Some(key) => State::InRun {
                    timers,
                    key,
                    deadline,
                },
                None => State::yield_once(cx),
            },
            None => {
                watch_for_forks();
                refuse_in_forked_copy("a sleep");
                let mut timer = Box::new(smol::Timer::at(deadline));
                match Pin::new(&mut timer).poll(cx) {
                    Poll::Pending => State::Real(timer),
                    Poll::Ready(_) => State::yield_once(cx),
                }
            }
        }
    }

    /// Lets the other tasks run once before a sleep ends whose deadline has passed.
    fn yield_once(cx: &mut Context<'_>) -> State {
        cx.waker().wake_by_ref();
        State::Yielded
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::New(until) => State::begin(until, cx),
            State::InRun {
                timers,
                key,
                deadline,
            } => match timers.poll(key, cx.waker()) {
                DeadlinePoll::Waiting(key) => State::InRun {
                    timers,
                    key,
                    deadline,
                },
                DeadlinePoll::Passed => return Poll::Ready(()),
                // It goes on in the time of the caller, which may have another clock.
                DeadlinePoll::RunEnded => {
                    let rest = deadline.saturating_duration_since(timers.now());
                    State::begin(Until::Elapsed(rest), cx)
                }
            },
            State::Real(mut timer) => match Pin::new(&mut timer).poll(cx) {
                Poll::Pending => {
                    refuse_in_forked_copy("a sleep");
                    State::Real(timer)
                }
                Poll::Ready(_) => return Poll::Ready(()),
            },
            State::Forever => State::Forever,
            State::Yielded => return Poll::Ready(()),
            State::Done => panic!("a Sleep was polled after it had ended"),
        };
        match self.state {
            State::Forever => wait::pending(&Wait::For("its cancellation")),
            _ => wait::pending(&Wait::For("a point in time")),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let State::InRun { timers, key, .. } = std::mem::replace(&mut self.state, State::Done) {
            timers.remove(key);
        }
    }
}
