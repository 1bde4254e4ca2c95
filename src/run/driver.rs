//! The run's loop: polls the root, fires deadlines, and knows when everybody waits.
//!
//! It is itself a future, which smol's `block_on` polls and parks for. Each thing that the loop looks after has a waker
//! of its own, so that a turn touches only what has something to say.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::interrupt::Interrupt;
use crate::cancel::current::enter_above_root;
use crate::cancel::{CancelReason, CancelScope, CancelSource, ScopeRun, Shared};
use crate::instrument::{self, RunId, TaskExit};
use crate::nursery::RootTask;
use crate::time::Timers;
use crate::tree_var::WithValues;

/// Remembers that it was woken, and wakes the loop.
struct Branch {
    woken: AtomicBool,
    run: AtomicWaker,
}

impl Branch {
    fn new() -> Arc<Self> {
        Arc::new(Branch {
            woken: AtomicBool::new(true),
            run: AtomicWaker::new(),
        })
    }

    fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }
}

impl Wake for Branch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.run.wake();
    }
}

/// A poll of the root, of whose end instruments are told also if it panics.
struct Step<'a>(&'a RootTask);

impl<'a> Step<'a> {
    fn begin(task: &'a RootTask) -> Self {
        instrument::before_task_step(&task.info());
        Step(task)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        instrument::after_task_step(&self.0.info());
    }
}

/// What the loop does while nobody is ready.
enum Idle {
    /// Somebody was ready since it last looked.
    Not,
    /// Nobody is; the reactor gets one turn, because what it reports makes somebody ready.
    Asking,
    /// The reactor had nothing to report. A virtual clock may need everybody to be blocked for some real time.
    Blocked { since: Instant },
}

/// One run, as a future. `None` if the root scope was cancelled, which only Ctrl-C does.
pub(super) struct Driver<F: Future> {
    root: Pin<Box<ScopeRun<F>>>,
    task: RootTask,
    id: Option<RunId>,
    /// For how long instruments were told that the loop waits, until they are told that it has.
    waiting: Option<Option<Duration>>,
    scope: CancelScope,
    shared: Arc<Shared>,
    timers: Arc<Timers>,
    main: Arc<Branch>,
    main_waker: Waker,
    signal: Option<(Interrupt, Arc<Branch>, Waker)>,
    idle: Idle,
    /// Wakes the loop at the next deadline, in real time.
    alarm: Option<(Instant, smol::Timer)>,
}

impl<F: Future> Driver<F> {
    pub(super) fn new(timers: Arc<Timers>, interrupt: Option<Interrupt>, future: F) -> Self {
        let (scope, main) = (CancelScope::new(), Branch::new());
        let (task, id) = (RootTask::new::<F>(), instrument::current_run());
        if instrument::is_observing(id) {
            instrument::task_spawned(&task.info());
        }
        Driver {
            root: Box::pin(scope.run(future)),
            task,
            id,
            waiting: None,
            scope,
            shared: Shared::new(Some(timers.clone())),
            timers,
            main_waker: Waker::from(main.clone()),
            main,
            signal: interrupt.map(|interrupt| {
                let branch = Branch::new();
                let waker = Waker::from(branch.clone());
                (interrupt, branch, waker)
            }),
            idle: Idle::Not,
            alarm: None,
        }
    }

    /// Drops the root's future, if that has not ended. Gives the interrupt back, to be asked what happened.
    pub(super) fn end(self, how: TaskExit) -> Option<Interrupt> {
        self.task.take_turn(|| drop(self.root));
        if instrument::is_observing(self.id) {
            instrument::task_exited(&self.task.info(), how);
        }
        self.signal.map(|(interrupt, ..)| interrupt)
    }

    fn register(&self, cx: &Context<'_>) {
        self.timers.driver.register(cx.waker());
        self.timers.clock().wake_on_change(cx.waker());
        self.main.run.register(cx.waker());
        if let Some((_, branch, _)) = &self.signal {
            branch.run.register(cx.waker());
        }
    }

    /// Cancels the root if Ctrl-C was pressed.
    fn watch_signal(&mut self) {
        if let Some((interrupt, branch, waker)) = &mut self.signal
            && branch.take_woken()
            && interrupt.poll(&mut Context::from_waker(waker))
        {
            let reason = CancelReason::new(CancelSource::CtrlC);
            self.scope.cancel_for(reason);
        }
    }

    fn poll_root(&mut self) -> Poll<Option<F::Output>> {
        self.idle = Idle::Not;
        let observed = self.is_observed();
        if observed {
            instrument::task_scheduled(&self.task.info());
        }
        self.task.take_turn(|| {
            let step = observed.then(|| Step::begin(&self.task));
            let _place = enter_above_root(&self.shared);
            let _values = WithValues::new(None);
            let polled = self
                .root
                .as_mut()
                .poll(&mut Context::from_waker(&self.main_waker));
            drop(step);
            polled
        })
    }

    fn is_observed(&self) -> bool {
        instrument::is_observing(self.id)
    }

    /// Tells instruments that the loop is about to wait: until there is something to do, if it rests, or for the length of
    /// a look at the reactor.
    fn before_wait(&mut self, rests: bool) {
        if self.is_observed() {
            let until_alarm = |(at, _): &(Instant, _)| at.saturating_duration_since(Instant::now());
            let timeout = match rests {
                true => self.alarm.as_ref().map(until_alarm),
                false => Some(Duration::ZERO),
            };
            self.waiting = Some(timeout);
            instrument::before_io_wait(timeout);
        }
    }

    fn after_wait(&mut self) {
        if let Some(timeout) = self.waiting.take()
            && self.is_observed()
        {
            instrument::after_io_wait(timeout);
        }
    }

    /// Nobody is ready: sees to it that the loop is polled again when somebody should be. False if that is at once.
    fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        match self.idle {
            // Only who wants to know pays for the reactor's extra turn.
            Idle::Not if !self.timers.is_idleness_wanted() => {}
            Idle::Not => {
                self.idle = Idle::Asking;
                cx.waker().wake_by_ref();
                return false;
            }
            Idle::Asking => {
                self.idle = Idle::Blocked {
                    since: Instant::now(),
                }
            }
            Idle::Blocked { .. } => {}
        }
        if self.timers.wake_idle() {
            // Those who were told may be gone by now, and then nobody else wakes the loop.
            cx.waker().wake_by_ref();
            return false;
        }
        let Some(deadline) = self.timers.next() else {
            self.alarm = None;
            return true;
        };
        if let Some(at) = self.wake_up_time(deadline) {
            self.set_alarm(at, cx);
        }
        true
    }

    /// When, in real time, something is to be done about the next deadline. Lets a clock jump there if it is time.
    fn wake_up_time(&self, deadline: Instant) -> Option<Instant> {
        let clock = self.timers.clock();
        let (Some(threshold), Idle::Blocked { since }) = (clock.autojump_threshold(), &self.idle)
        else {
            return Instant::now().checked_add(clock.real_time_until(deadline)?);
        };
        let jump = since.checked_add(threshold)?;
        if jump <= Instant::now() {
            clock.jump_to(deadline);
        }
        Some(jump)
    }

    fn set_alarm(&mut self, at: Instant, cx: &mut Context<'_>) {
        // Within a millisecond the alarm that is set will do: a deadline's distance is measured anew each time.
        let near = |set: Instant| set <= at && at.duration_since(set) < Duration::from_millis(1);
        if self.alarm.as_ref().is_none_or(|(set, _)| !near(*set)) {
            self.alarm = Some((at, smol::Timer::at(at)));
        }
        if let Some((_, timer)) = &mut self.alarm
            && Pin::new(timer).poll(cx).is_ready()
        {
            self.alarm = None;
            cx.waker().wake_by_ref();
        }
    }
}

impl<F: Future> Future for Driver<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = &mut *self;
        this.after_wait();
        this.register(cx);
        this.watch_signal();
        this.timers.fire();
        if this.main.take_woken()
            && let Poll::Ready(value) = this.poll_root()
        {
            return Poll::Ready(value);
        }
        let rests = match this.main.is_woken() {
            // Somebody is ready already; `block_on` lets the reactor have a turn first.
            true => {
                cx.waker().wake_by_ref();
                false
            }
            false => this.wait(cx),
        };
        this.before_wait(rests);
        Poll::Pending
    }
}
