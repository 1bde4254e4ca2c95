//! `wait_all_tasks_blocked`: waits until all other tasks of the run wait.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::time;
use crate::time::{IdleKey, Timers};
use crate::wait::{self, Wait};

/// Waits until every other task of this run is blocked: no task is ready, and the reactor has no
/// event.
///
/// Events that the kernel has but the reactor has not reported yet do not count. A test that
/// depends on a descriptor should wait for an event that the descriptor's reader sets, or use a
/// [cushion](AllTasksBlocked::cushion).
///
/// A task that sleeps counts as blocked, and so does one that waits for a worker, a thread or a
/// socket. This future completes before an autojump of a [`MockClock`](crate::testing::MockClock):
/// while a task waits here, no clock jumps. If several tasks wait here, all continue together.
/// Wake-ups of the run that ready no task do not matter.
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
#[doc(alias = "run_until_stalled")]
pub fn wait_all_tasks_blocked() -> AllTasksBlocked {
    AllTasksBlocked {
        state: State::New {
            cushion: Duration::ZERO,
        },
    }
}

/// Waits until all other tasks are blocked; made by [`wait_all_tasks_blocked`].
///
/// # Dropping
///
/// Stops waiting; other waiters are not affected.
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
    /// Sets the time for which every other task must have been blocked, in *real* time, whatever
    /// clock the run has.
    ///
    /// Use it for activity outside of the run: a thread or another process that wakes a task from
    /// time to time. The time starts again whenever a task has run. If several tasks wait, those
    /// with the shortest cushion continue first and together; then the time of the others starts
    /// again.
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
    /// If the future has been polled: it waits with another cushion already.
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

static ALL_TASKS_BLOCKED: Wait = Wait::For("all tasks to be blocked");

impl Future for AllTasksBlocked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::New { cushion } => {
                let timers = time::current_timers()
                    .expect("wait_all_tasks_blocked works inside of seedbed::run only");
                let key = timers.wait_idle(*cushion, cx.waker().clone());
                self.state = State::Waiting { timers, key };
                wait::pending(&ALL_TASKS_BLOCKED)
            }
            State::Waiting { timers, key } if timers.poll_idle(*key, cx.waker()) => {
                wait::pending(&ALL_TASKS_BLOCKED)
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
            timers.remove_idle(key);
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
