//! Waiting until every other task of the run waits.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::time;
use crate::time::{IdleKey, Timers};

/// Waits until every other task of this run is blocked: nothing is ready, and the reactor has
/// nothing to report.
///
/// What the kernel has ready but the reactor has not yet reported is not seen; a test that waits
/// for a descriptor waits for an event that its reader sets, or gives the others [some
/// time](AllTasksBlocked::cushion).
///
/// A task that sleeps counts as blocked, and so does one that waits for a worker, a thread or a
/// socket. This comes before an autojump of a [`MockClock`](super::MockClock): while anybody waits
/// here, no clock jumps. If several tasks wait here, all go on together. Who wakes the run from
/// outside, but no task of it, changes nothing.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// # Panics
///
/// When polled outside of a run, or again after it has ended.
///
/// ```
/// use seedbed::sync::Event;
/// use seedbed::testing::wait_all_tasks_blocked;
/// use seedbed::time::sleep_forever;
/// use seedbed::{open_nursery, run};
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
    AllTasksBlocked {
        state: State::New {
            cushion: Duration::ZERO,
        },
    }
}

/// Waits until the run is idle; made by [`wait_all_tasks_blocked`].
///
/// # Dropping
///
/// Leaves those who wait; nobody else notices.
#[must_use = "futures do nothing unless awaited"]
pub struct AllTasksBlocked {
    state: State,
}

enum State {
    New { cushion: Duration },
    Waiting { timers: Arc<Timers>, key: IdleKey },
    Done,
}

impl AllTasksBlocked {
    /// Wants every other task to have been blocked for so long, in *real* time, whatever clock the
    /// run has.
    ///
    /// This is for what goes on outside of the run: a thread or another process that wakes a task
    /// now and then. Whenever a task has had a turn, the time begins anew. Of several who wait,
    /// those with the shortest cushion go on first, and together; that is a turn, too, so the time
    /// of the others begins anew.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use seedbed::{run, testing::wait_all_tasks_blocked};
    ///
    /// run(async {
    ///     let (began, cushion) = (Instant::now(), Duration::from_millis(2));
    ///     wait_all_tasks_blocked().cushion(cushion).await;
    ///     assert!(began.elapsed() >= cushion);
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// If it has been polled: it waits with another cushion already.
    #[track_caller]
    pub fn cushion(mut self, cushion: Duration) -> Self {
        assert!(
            matches!(self.state, State::New { .. }),
            "the cushion of wait_all_tasks_blocked is set before it is polled"
        );
        self.state = State::New { cushion };
        self
    }
}

impl Future for AllTasksBlocked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::New { cushion } => {
                let timers = time::current_timers()
                    .expect("wait_all_tasks_blocked works inside of seedbed::run only");
                let key = timers.wait_idle(*cushion, cx.waker().clone());
                self.state = State::Waiting { timers, key };
                Poll::Pending
            }
            State::Waiting { timers, key } if timers.is_waiting_idle(*key, cx.waker()) => {
                Poll::Pending
            }
            State::Waiting { .. } => {
                self.state = State::Done;
                Poll::Ready(())
            }
            State::Done => panic!("a wait_all_tasks_blocked was polled after it had ended"),
        }
    }
}

impl Drop for AllTasksBlocked {
    fn drop(&mut self) {
        if let State::Waiting { timers, key } = mem::replace(&mut self.state, State::Done) {
            timers.leave_idle(key);
        }
    }
}

impl fmt::Debug for AllTasksBlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New { .. } => "not polled yet",
            State::Waiting { .. } => "waiting",
            State::Done => "done",
        };
        f.debug_struct("AllTasksBlocked")
            .field("state", &state)
            .finish()
    }
}
