//! Sleeping until a deadline, in the run's time or in real time.

use std::future::{Future, Pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::current::timers;
use super::queue::Place;
use super::timers::Timers;

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
/// use seedbed::time::current_time;
/// use seedbed::{run, sleep};
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

/// Waits until it is cancelled.
///
/// # Cancellation
///
/// Atomic, and the only way out.
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
pub fn sleep_forever() -> Pending<()> {
    std::future::pending()
}

/// Waits for a deadline; made by [`sleep`] and [`sleep_until`]. Dropping it forgets the deadline.
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

impl State {
    fn begin(until: Until, cx: &mut Context<'_>) -> State {
        let timers = timers();
        let deadline = match until {
            Until::Span(Duration::ZERO) => return State::give_way(cx),
            Until::Span(span) => {
                let now = timers
                    .as_ref()
                    .map_or_else(Instant::now, |timers| timers.now());
                match now.checked_add(span) {
                    Some(deadline) => deadline,
                    None => return State::Forever,
                }
            }
            Until::Time(deadline) => deadline,
        };
        match timers {
            Some(timers) => match timers.insert(deadline, cx.waker()) {
                Some(place) => State::InRun { timers, place },
                None => State::give_way(cx),
            },
            None => {
                let mut timer = Box::new(smol::Timer::at(deadline));
                match Pin::new(&mut timer).poll(cx) {
                    Poll::Pending => State::Real(timer),
                    Poll::Ready(_) => State::give_way(cx),
                }
            }
        }
    }

    /// The deadline has passed: everybody else has their turn before the sleep ends.
    fn give_way(cx: &mut Context<'_>) -> State {
        cx.waker().wake_by_ref();
        State::Yielded
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
