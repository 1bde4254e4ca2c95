//! The wait of the run's loop while no task is ready: it sets a timer, wakes tasks that wait for
//! the run to be idle, and lets a virtual clock jump.

use std::pin::Pin;
use std::task::Context;
use std::time::{Duration, Instant};

use std::future::Future;

use super::tuning::{SILENCE_BEFORE_NOTICE, TIMER_SLACK, WAKE_TIMEOUT};
use super::workers;
use crate::sys::fork_detector::refuse_in_forked_copy;
use crate::time::Timers;

pub(super) struct IdleWait {
    state: IdleState,
    /// Wakes the loop, in real time, at the time next to it.
    timer: Option<(Instant, smol::Timer)>,
    /// The clock does not jump to this deadline: it stood still when it was asked to.
    out_of_reach: Option<Instant>,
    silence: Silence,
}

/// Whether a run whose clock would jump has waited without a deadline for long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Silence {
    Unnoticed,
    Noticed,
    /// The run has reported it. It does so once.
    Reported,
}

enum IdleState {
    /// A task was ready since the loop last looked.
    Busy,
    /// No task is ready. The reactor is asked once, because an event that it reports makes a task
    /// ready.
    AskingReactor,
    /// A worker's answer in a mailbox has woken a task, which is not ready yet: the reactor's
    /// thread is waking it, too, because of the same answer.
    Waking { since: Instant },
    /// No task is ready, and the reactor had no event. The action that follows may require this to
    /// last for some real time.
    Blocked { since: Instant },
}

/// The action that follows when every task has been blocked for long enough.
enum IdleAction {
    /// The tasks that wait for this are woken, before any virtual clock moves.
    WakeIdleWaiters,
    /// The clock jumps to the next deadline.
    JumpTo(Instant),
    /// The clock would jump, and there is no deadline that it reaches.
    NoticeSilence,
}

impl IdleWait {
    pub(super) fn new() -> Self {
        IdleWait {
            state: IdleState::Busy,
            timer: None,
            out_of_reach: None,
            silence: Silence::Unnoticed,
        }
    }

    pub(super) fn mark_busy(&mut self) {
        self.state = IdleState::Busy;
        self.out_of_reach = None;
    }

    /// Has the loop woken when a task should be polled. Returns false if that is at once.
    pub(super) fn wait(&mut self, timers: &Timers, cx: &mut Context<'_>) -> bool {
        match self.state {
            // Only a run in which idleness matters pays for the reactor's extra turn.
            IdleState::Busy if !timers.is_idleness_wanted() => {}
            IdleState::Busy => {
                self.state = IdleState::AskingReactor;
                cx.waker().wake_by_ref();
                return false;
            }
            // The reactor does not report answers that lie in a worker's mailbox.
            IdleState::AskingReactor if workers::glance() => {
                let since = Instant::now();
                self.state = IdleState::Waking { since };
                cx.waker().wake_by_ref();
                return false;
            }
            IdleState::Waking { since } => {
                if since.elapsed() < WAKE_TIMEOUT {
                    std::thread::yield_now();
                } else {
                    self.state = IdleState::AskingReactor; // it was a waker that wakes no task
                }
                cx.waker().wake_by_ref();
                return false;
            }
            IdleState::AskingReactor => {
                self.state = IdleState::Blocked {
                    since: Instant::now(),
                }
            }
            IdleState::Blocked { .. } => {}
        }
        let action = self.next_action(timers);
        if let Some((at, action)) = &action
            && *at <= Instant::now()
        {
            // A deadline that has passed since the last `fire` comes first: the task that waits for
            // it is not blocked.
            match action {
                _ if timers.is_due() => {}
                IdleAction::WakeIdleWaiters => timers.wake_idle(),
                IdleAction::JumpTo(deadline) => self.jump(timers, *deadline),
                IdleAction::NoticeSilence => self.silence = Silence::Noticed,
            }
            // The tasks that were woken may be gone by now, and then nothing else wakes the loop.
            cx.waker().wake_by_ref();
            return false;
        }
        let action_at = action.map(|(at, _)| at);
        match [action_at, next_deadline(timers)]
            .into_iter()
            .flatten()
            .min()
        {
            Some(at) => self.set_timer(at, cx),
            None => self.timer = None,
        }
        true
    }

    /// Returns what is done if every task stays blocked, and when, in real time.
    fn next_action(&self, timers: &Timers) -> Option<(Instant, IdleAction)> {
        let IdleState::Blocked { since } = self.state else {
            return None;
        };
        if let Some(cushion) = timers.shortest_cushion() {
            return Some((since.checked_add(cushion)?, IdleAction::WakeIdleWaiters));
        }
        let threshold = timers.clock().autojump_threshold()?;
        match timers.arm() {
            Some(deadline) if self.out_of_reach != Some(deadline) => {
                Some((since.checked_add(threshold)?, IdleAction::JumpTo(deadline)))
            }
            _ if self.silence != Silence::Unnoticed => None,
            _ => {
                let at = since.checked_add(SILENCE_BEFORE_NOTICE)?;
                Some((at, IdleAction::NoticeSilence))
            }
        }
    }

    fn jump(&mut self, timers: &Timers, deadline: Instant) {
        let before = timers.now();
        timers.clock().jump_to(deadline);
        if timers.now() <= before {
            self.out_of_reach = Some(deadline);
        }
    }

    /// Returns whether the clock would jump, and no deadline that it reaches is left.
    pub(super) fn has_no_deadline(&self, timers: &Timers) -> bool {
        let IdleState::Blocked { .. } = self.state else {
            return false;
        };
        let has_none = |next: Option<Instant>| next.is_none() || next == self.out_of_reach;
        timers.shortest_cushion().is_none()
            && timers.clock().autojump_threshold().is_some()
            && has_none(timers.earliest())
    }

    /// Returns true once, when the run has waited without a deadline for so long that it says so.
    pub(super) fn take_silence(&mut self) -> bool {
        let is_noticed = self.silence == Silence::Noticed;
        if is_noticed {
            self.silence = Silence::Reported;
        }
        is_noticed
    }

    fn set_timer(&mut self, at: Instant, cx: &mut Context<'_>) {
        refuse_in_forked_copy("a sleep or time limit");
        let is_close = |set: Instant| set <= at && at.duration_since(set) < TIMER_SLACK;
        if self.timer.as_ref().is_none_or(|(set, _)| !is_close(*set)) {
            self.timer = Some((at, smol::Timer::at(at)));
        }
        if let Some((_, timer)) = &mut self.timer
            && Pin::new(timer).poll(cx).is_ready()
        {
            self.timer = None;
            cx.waker().wake_by_ref();
        }
    }

    /// Returns how long it is until the timer fires; `None` if none is set.
    pub(super) fn time_to_timer(&self) -> Option<Duration> {
        let (at, _) = self.timer.as_ref()?;
        Some(at.saturating_duration_since(Instant::now()))
    }
}

/// Returns when, in real time, the clock shows the next deadline, if it gets there by itself.
fn next_deadline(timers: &Timers) -> Option<Instant> {
    let left = timers.clock().real_time_until(timers.arm()?)?;
    Instant::now().checked_add(left)
}
