//! The run's loop: polls the root, fires deadlines, and knows when everybody waits.
//!
//! It is itself a future, which smol's `block_on` polls and parks for. Each thing that the loop looks after has a waker
//! of its own, so that a turn touches only what has something to say.
//!
//! A run ends in this order: the main future, the system tasks, the calls that were accepted, the run's variables.
//! Whoever panics cancels all others, and the first panic comes out at the end.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::handle::{Call, Entrance};
use super::interrupt::Interrupt;
use crate::cancel::current::{Entered, enter_above_root};
use crate::cancel::{CancelReason, CancelScope, CancelSource, OfRun, ScopeRun, Shared};
use crate::instrument;
use crate::instrument::{RunId, TaskExit};
use crate::task::RootTask;
use crate::time::Timers;
use crate::tree_var::WithValues;
use crate::worker;

/// For how long the loop goes on before the reactor has a turn, which takes about half a microsecond. A turn of the loop may
/// take longer, and then there is one.
const WITHOUT_THE_REACTOR: Duration = Duration::from_micros(20);

/// What a panic carries.
pub(super) type Payload = Box<dyn Any + Send>;

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

/// What the loop does while nobody is ready.
enum Idle {
    /// Somebody was ready since it last looked.
    Not,
    /// Nobody is; the reactor gets one turn, because what it reports makes somebody ready.
    Asking,
    /// The reactor had nothing to report. Whoever waits for that may want everybody to be blocked for some real time.
    Blocked { since: Instant },
}

/// What is done when everybody has been blocked for long enough.
enum WhenIdle {
    /// Those are told who wait for it, before any virtual clock moves.
    Tell,
    /// The clock jumps to the next deadline.
    JumpTo(Instant),
}

/// The main future, in the root scope.
enum Root<F: Future> {
    Running(Pin<Box<ScopeRun<F>>>),
    /// `None` if it was cancelled, or panicked.
    Ended(Option<F::Output>),
    /// The run has ended, and its value was given away.
    Finished,
}

/// One run, as a future. `None` if the root scope was cancelled, which only Ctrl-C does to a run in which nobody
/// panics.
pub(super) struct Driver<F: Future> {
    root: Root<F>,
    task: RootTask,
    id: Option<RunId>,
    /// For how long instruments were told that the loop waits, until they are told that it has.
    waiting: Option<Option<Duration>>,
    shared: Arc<Shared>,
    entrance: Arc<Entrance>,
    /// The first panic, until everybody has ended.
    panic: Option<Payload>,
    timers: Arc<Timers>,
    main: Arc<Branch>,
    main_waker: Waker,
    signal: Option<(Interrupt, Arc<Branch>, Waker)>,
    idle: Idle,
    /// Wakes the loop at the next deadline, in real time.
    alarm: Option<(Instant, smol::Timer)>,
}

/// The main future is pinned in a box of its own, and its value is only moved.
impl<F: Future> Unpin for Driver<F> {}

impl<F: Future> Driver<F> {
    pub(super) fn new(timers: Arc<Timers>, interrupt: Option<Interrupt>, future: F) -> Self {
        let (scope, main) = (CancelScope::new(), Branch::new());
        let (task, id) = (RootTask::new::<F>(), instrument::current_run());
        if instrument::is_observing(id) {
            instrument::task_spawned(&task.info());
        }
        let entrance = Entrance::new(timers.clone(), scope.clone());
        Driver {
            root: Root::Running(Box::pin(scope.run(future))),
            task,
            id,
            waiting: None,
            shared: Shared::new(Some(OfRun::new(timers.clone(), entrance.clone()))),
            entrance,
            panic: None,
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

    /// Tells instruments that the root task has ended. Gives the interrupt back, to be asked what happened.
    pub(super) fn end(mut self, how: TaskExit) -> Option<Interrupt> {
        if self.is_observed() {
            instrument::task_exited(&self.task.info(), how);
        }
        self.signal.take().map(|(interrupt, ..)| interrupt)
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
            self.entrance.main.cancel_for(reason);
        }
    }

    /// Where the run's own code stands: above all tasks, with no tree variable set.
    fn enter(&self) -> (Entered, WithValues) {
        (enter_above_root(&self.shared), WithValues::new(None))
    }

    /// Runs the calls that wait. Those that are put in meanwhile have their turn after everybody else.
    fn run_calls(&mut self) {
        for _ in 0..self.entrance.queue.len() {
            if let Some(call) = self.entrance.queue.pop() {
                self.run_call(call);
            }
        }
    }

    fn run_call(&mut self, call: Call) {
        self.idle = Idle::Not;
        let _place = self.enter();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| call.run())) {
            self.panicked(payload);
        }
    }

    /// Polls the main future if it was woken. With its end begins that of the system tasks.
    fn poll_root(&mut self) {
        if !self.main.take_woken() {
            return;
        }
        let _place = self.enter();
        let Root::Running(root) = &mut self.root else {
            return;
        };
        self.idle = Idle::Not;
        let observed = instrument::is_observing(self.id);
        if observed {
            instrument::task_scheduled(&self.task.info());
        }
        let cx = &mut Context::from_waker(&self.main_waker);
        let polled = self.task.take_turn(|| {
            if observed {
                instrument::before_task_step(&self.task.info());
            }
            let polled = catch_unwind(AssertUnwindSafe(|| root.as_mut().poll(cx)));
            if observed {
                instrument::after_task_step(&self.task.info());
            }
            polled
        });
        match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(value)) => self.end_root(value),
            Err(payload) => {
                self.panicked(payload);
                self.end_root(None);
            }
        }
        let reason = CancelReason::new(CancelSource::Shutdown);
        self.entrance.system.cancel(reason);
    }

    fn end_root(&mut self, value: Option<F::Output>) {
        let ended = std::mem::replace(&mut self.root, Root::Ended(value));
        let dropped = self
            .task
            .take_turn(|| catch_unwind(AssertUnwindSafe(|| drop(ended))));
        if let Err(payload) = dropped {
            self.panicked(payload);
        }
    }

    /// Polls the system tasks if they were woken.
    fn poll_system(&mut self) {
        if !self.entrance.system.is_woken() {
            return;
        }
        self.idle = Idle::Not;
        let waker = || Waker::from(self.entrance.clone());
        if let Err(payload) = self.entrance.system.poll(&self.shared, waker) {
            self.panicked(payload);
        }
    }

    /// Keeps the first panic until everybody has ended, and cancels everybody.
    fn panicked(&mut self, payload: Payload) {
        match &self.panic {
            None => self.panic = Some(payload),
            Some(_) => {
                tracing::error!(
                    "a second panic in a run, while the first one is unwinding, is dropped"
                );
                // Its drop may panic in turn; nobody is left to tell.
                std::mem::forget(payload);
            }
        }
        let reason = CancelReason::new(CancelSource::Panic);
        self.entrance.main.cancel_for(reason.clone());
        self.entrance.system.cancel(reason);
    }

    /// Whether somebody is to be polled, or called, in the next turn.
    fn is_ready(&self) -> bool {
        self.main.is_woken() || self.entrance.system.is_woken() || self.entrance.queue.len() > 0
    }

    fn has_ended(&self) -> bool {
        matches!(self.root, Root::Ended(_)) && self.entrance.system.is_closed()
    }

    /// All tasks have ended: runs what was accepted from outside, drops the run's variables, and closes.
    fn finish(&mut self) -> Option<F::Output> {
        self.entrance.queue.close();
        // As nothing is accepted any more, these are all.
        self.run_calls();
        let place = self.enter();
        let variables = self.shared.run().map(|run| run.variables().end());
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(variables))) {
            self.panicked(payload);
        }
        drop(place);
        if self.panic.is_some() {
            // Nobody gets the value. Its drop may panic in turn.
            self.end_root(None);
        }
        let ended = std::mem::replace(&mut self.root, Root::Finished);
        if let Some(payload) = self.panic.take() {
            resume_unwind(payload);
        }
        match ended {
            Root::Ended(value) => value,
            Root::Running(_) | Root::Finished => {
                unreachable!("a run is finished once, after its main future has ended")
            }
        }
    }

    fn is_observed(&self) -> bool {
        instrument::is_observing(self.id)
    }

    /// Tells instruments that the loop is about to wait: until there is something to do, if it rests, or for the length of
    /// a look at the reactor.
    fn before_wait(&mut self, rests: bool) {
        if self.is_observed() {
            let timeout = match rests {
                true => self.until_alarm(),
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

    fn until_alarm(&self) -> Option<Duration> {
        let (at, _) = self.alarm.as_ref()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// Looks for answers of workers for a while, as a sleep may last longer than they take. True if there was one.
    fn look_at_workers(&self) -> bool {
        let most = self.until_alarm().unwrap_or(Duration::MAX);
        worker::look(most, || self.is_ready())
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
            // What lies in a mailbox is not reported by the reactor.
            Idle::Asking if worker::glance() => {
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
        let idle = self.when_idle();
        if let Some((at, what)) = &idle
            && *at <= Instant::now()
        {
            // A deadline that has passed since the loop looked comes first: whoever waits for it is not blocked.
            match what {
                _ if self.timers.is_due() => {}
                WhenIdle::Tell => self.timers.wake_idle(),
                WhenIdle::JumpTo(deadline) => self.timers.clock().jump_to(*deadline),
            }
            // Those who were told may be gone by now, and then nobody else wakes the loop.
            cx.waker().wake_by_ref();
            return false;
        }
        let idle = idle.map(|(at, _)| at);
        match [idle, self.next_deadline()].into_iter().flatten().min() {
            Some(at) => self.set_alarm(at, cx),
            None => self.alarm = None,
        }
        true
    }

    /// What is to be done if everybody stays blocked, and when, in real time.
    fn when_idle(&self) -> Option<(Instant, WhenIdle)> {
        let Idle::Blocked { since } = self.idle else {
            return None;
        };
        if let Some(cushion) = self.timers.shortest_cushion() {
            return Some((since.checked_add(cushion)?, WhenIdle::Tell));
        }
        let threshold = self.timers.clock().autojump_threshold()?;
        let deadline = self.timers.next()?;
        Some((since.checked_add(threshold)?, WhenIdle::JumpTo(deadline)))
    }

    /// When, in real time, the clock shows the next deadline, if it gets there by itself.
    fn next_deadline(&self) -> Option<Instant> {
        let until = self.timers.clock().real_time_until(self.timers.next()?)?;
        Instant::now().checked_add(until)
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
        let mut since = None;
        let rests = loop {
            let _turn = worker::turn();
            this.watch_signal();
            this.timers.fire();
            this.run_calls();
            this.poll_root();
            this.poll_system();
            if this.has_ended() {
                return Poll::Ready(this.finish());
            }
            if this.is_ready() {
                // Where somebody always is, nobody ever looks.
                worker::glance();
            } else {
                if !this.wait(cx) {
                    break false;
                }
                if !this.look_at_workers() {
                    break true;
                }
            }
            // Somebody is ready. `block_on` lets the reactor have a turn first, if it has not had one for a while, or if
            // instruments are to be told of each.
            let for_long = since.get_or_insert_with(Instant::now).elapsed() > WITHOUT_THE_REACTOR;
            if for_long || this.is_observed() {
                cx.waker().wake_by_ref();
                break false;
            }
        };
        this.before_wait(rests);
        Poll::Pending
    }
}

impl<F: Future> Drop for Driver<F> {
    /// Nobody looks for the answers of workers any more. If a panic that is nobody's (of a clock, or of a foreign waker) has
    /// ended the loop: drops what is left, so that no thread waits for an answer for ever.
    fn drop(&mut self) {
        worker::forget();
        if !matches!(self.root, Root::Finished) {
            self.root = Root::Finished;
            self.entrance.system.close();
            self.entrance.queue.close();
            while self.entrance.queue.pop().is_some() {}
            drop(self.shared.run().map(|run| run.variables().end()));
        }
    }
}
