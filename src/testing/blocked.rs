//! Waiting until every other task of the run waits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::cancel::current;

/// Waits until every other task of this run is blocked: nothing is ready, and the reactor has nothing to report.
///
/// What the kernel has ready but the reactor has not yet reported is not seen; a test that waits for a descriptor waits for
/// an event that its reader sets.
///
/// A task that sleeps counts as blocked, and so does one that waits for a worker, a thread or a socket. This comes before
/// an autojump of a [`MockClock`](super::MockClock). If several tasks wait here, all go on together.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// # Panics
///
/// When polled outside of a run.
///
/// ```
/// use seedbed::{open_nursery, run, sleep_forever, sync::Event, testing::wait_all_tasks_blocked};
///
/// run(open_nursery(|n| async move {
///     let reached = Event::new();
///     let set = reached.clone();
///     n.spawn(async move {
///         set.set();
///         sleep_forever().await;
///     });
///     wait_all_tasks_blocked().await;
///     assert!(reached.is_set());
///     n.cancel();
/// }));
/// ```
pub fn wait_all_tasks_blocked() -> AllTasksBlocked {
    AllTasksBlocked { round: None }
}

/// Waits until the run is idle; made by [`wait_all_tasks_blocked`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct AllTasksBlocked {
    /// How often the run had been idle when this wait began.
    round: Option<u64>,
}

impl Future for AllTasksBlocked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let timers =
            current::timers().expect("wait_all_tasks_blocked works inside of seedbed::run only");
        let began = *self.round.get_or_insert(timers.idle_rounds());
        match timers.idle_rounds() == began {
            true => {
                timers.wake_when_idle(cx.waker().clone());
                Poll::Pending
            }
            false => Poll::Ready(()),
        }
    }
}
