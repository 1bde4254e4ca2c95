//! Sleeping until a deadline, in the run's time or in real time.

use std::future::{Future, Pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::queue::Place;
use super::timers::Timers;
use crate::cancel::current;

/// Sleeps for a time span that begins when the returned future is first polled.
///
/// A span of zero gives everybody else a turn. A span too long to be represented is for ever.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened. Dropping the future forgets the deadline.
///
/// ```
/// use std::time::Duration;
/// use seedbed::{current_time, run, sleep};
///
/// run(async {
///     let start = current_time();
///     sleep(Duration::from_millis(2)).await;
///     assert!(current_time() - start >= Duration::from_millis(2));
/// });
/// ```
pub fn sleep(span: Duration) -> Sleep {
    Sleep {
        state: State::New(Until::Span(span)),
    }
}

/// Sleeps until a point in time; one that has passed gives everybody else a turn.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened. Dropping the future forgets the deadline.
///
/// ```
/// use seedbed::{current_time, run, sleep_until};
///
/// run(async {
///     sleep_until(current_time()).await;
/// });
/// ```
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        state: State::New(Until::Time(deadline)),
    }
}

/// Waits until it is cancelled.
///
/// # Cancellation
///
/// Atomic, and the only way out.
///
/// ```
/// use std::time::Duration;
/// use seedbed::{move_on_after, run, sleep_forever};
///
/// run(async {
///     assert!(move_on_after(Duration::from_millis(1), sleep_forever()).await.is_none());
/// });
/// ```
pub fn sleep_forever() -> Pending<()> {
    std::future::pending()
}

/// Waits for a deadline; made by [`sleep`] and [`sleep_until`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    state: State,
}

#[derive(Debug)]
enum State {
    New(Until),
    /// The deadline had passed at the first poll; everybody else has their turn before this one ends.
    Yielded,
    InRun {
        timers: Arc<Timers>,
        place: Place,
    },
    /// Boxed, because it is large, and most that sleep do so in a run.
    Real(Box<smol::Timer>),
    Forever,
    Done,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    Span(Duration),
    Time(Instant),
}

impl Until {
    fn deadline(self, now: Instant) -> Option<Instant> {
        match self {
            Until::Span(span) => now.checked_add(span),
            Until::Time(deadline) => Some(deadline),
        }
    }
}

impl State {
    fn begin(until: Until, cx: &mut Context<'_>) -> State {
        let timers = current::timers();
        let now = timers
            .as_ref()
            .map_or_else(Instant::now, |timers| timers.now());
        match (until.deadline(now), timers) {
            (None, _) => State::Forever,
            (Some(deadline), _) if deadline <= now => {
                cx.waker().wake_by_ref();
                State::Yielded
            }
            (Some(deadline), Some(timers)) => State::InRun {
                place: timers.insert(deadline, cx.waker().clone()),
                timers,
            },
            (Some(deadline), None) => {
                let mut timer = smol::Timer::at(deadline);
                // Registers the waker; the deadline is in the future, and if it has just passed, the waker is woken.
                if Pin::new(&mut timer).poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                    return State::Yielded;
                }
                State::Real(Box::new(timer))
            }
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::New(until) => State::begin(until, cx),
            State::InRun { timers, place } => match timers.poll(place, cx.waker()) {
                Some(place) => State::InRun { timers, place },
                None => return Poll::Ready(()),
            },
            State::Real(mut timer) => match Pin::new(&mut timer).poll(cx) {
                Poll::Pending => State::Real(timer),
                Poll::Ready(_) => return Poll::Ready(()),
            },
            State::Forever => State::Forever,
            State::Yielded => return Poll::Ready(()),
            State::Done => panic!("a Sleep was polled after it had ended"),
        };
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let State::InRun { timers, place } = std::mem::replace(&mut self.state, State::Done) {
            timers.leave(place);
        }
    }
}
