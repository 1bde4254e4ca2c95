//! The run's loop: polls the main future and the system tasks, calls queued functions, fires
//! deadlines, and waits when there is nothing to do.
//!
//! The loop is a future, which smol's `block_on` polls. Each thing that the loop polls has a waker
//! of its own, so a turn of the loop touches only those that were woken.
//!
//! A run ends in this order: the main future, the system tasks, the calls that were accepted, the
//! run's variables. A panic cancels the main future and all system tasks; `run` resumes the first
//! one at the end.

use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::idle::IdleWait;
use super::inbox::{Call, RunInbox};
use super::interrupt::Interrupt;
use super::system_nursery::PanicPayload;
use super::tuning::REACTOR_INTERVAL;
use super::wake_flag::WakeFlag;
use super::workers;
use crate::ambient::{Run, WithValues};
use crate::cancel::position::{Entered, enter_above_root};
use crate::cancel::{CancelReason, CancelScope, CancelSource, SharedTree};
use crate::instrument;
use crate::instrument::{RunId, TaskExit};
use crate::sys::ctrl_c::InterruptedRun;
use crate::sys::fork_detector::{is_forked_copy, refuse_in_forked_copy};
use crate::task::{RootTask, task_tree};
use crate::time::Timers;
use crate::variables::Variables;

/// The references to the wake flag of a main future that has cloned its waker nowhere: the
/// driver's two, and the root scope's.
const WAKERS_OF_THE_RUN: usize = 3;

/// The references to the inbox of a run without handles: the driver's, and the run's own.
const INBOXES_OF_THE_RUN: usize = 2;

/// The main future of a run, in the run's root scope.
///
/// Its type is erased, so that one instance of the generic code of a run serves all main futures
/// with the same output. It is in a box anyway.
pub(super) struct MainFuture<'f, T> {
    future: Pin<Box<dyn Future<Output = Option<T>> + 'f>>,
    scope: CancelScope,
    task: RootTask,
}

impl<'f, T> MainFuture<'f, T> {
    pub(super) fn new<F: Future<Output = T> + 'f>(future: F) -> Self {
        let scope = CancelScope::new();
        Self {
            future: Box::pin(scope.run(future)),
            scope,
            task: RootTask::new::<F>(),
        }
    }
}

enum Root<'f, T> {
    Running(Pin<Box<dyn Future<Output = Option<T>> + 'f>>),
    /// `None` if the future was cancelled or panicked.
    Ended(Option<T>),
    /// The run has ended, and its value was returned.
    Finished,
}

/// One run, as a future. Its output is `None` if the root scope was cancelled, which only Ctrl-C
/// does to a run without a panic.
pub(super) struct RunDriver<'f, T> {
    root: Root<'f, T>,
    task: RootTask,
    id: Option<RunId>,
    /// The timeout of a wait that instruments know has begun, until they know that it has ended.
    waiting: Option<Option<Duration>>,
    tree: Arc<SharedTree>,
    variables: Arc<Variables>,
    inbox: Arc<RunInbox>,
    /// The first panic, until the run has ended.
    panic: Option<PanicPayload>,
    timers: Arc<Timers>,
    main: Arc<WakeFlag>,
    main_waker: Waker,
    interrupt: Option<Interrupt>,
    /// Ctrl-C has cancelled the main future.
    interrupted: bool,
    idle: IdleWait,
    /// The run did not begin in a forked copy.
    began_in_original: bool,
}

/// The main future is pinned in a box of its own, and its value is only moved.
impl<T> Unpin for RunDriver<'_, T> {}

impl<'f, T> RunDriver<'f, T> {
    pub(super) fn new(
        timers: Arc<Timers>,
        interrupt: Option<Interrupt>,
        future: MainFuture<'f, T>,
    ) -> Self {
        let (task, id) = (future.task, instrument::current_run());
        let main = WakeFlag::new();
        if instrument::is_observed(id) {
            instrument::task_spawned(&task.info());
        }
        let inbox = RunInbox::new(timers.clone(), future.scope);
        let variables = Arc::<Variables>::default();
        let run = Run::new()
            .with(timers.clone())
            .with(variables.clone())
            .with(inbox.clone());
        RunDriver {
            root: Root::Running(future.future),
            task,
            id,
            waiting: None,
            tree: SharedTree::new(Some(Arc::new(run))),
            variables,
            inbox,
            panic: None,
            timers,
            main_waker: Waker::from(main.clone()),
            main,
            interrupt,
            interrupted: false,
            idle: IdleWait::new(),
            began_in_original: !is_forked_copy(),
        }
    }

    /// Tells instruments that the root task has ended. Returns the interrupt, if there is one.
    pub(super) fn end(mut self, how: TaskExit) -> Option<Interrupt> {
        if self.is_observed() {
            instrument::task_exited(&self.task.info(), how);
        }
        self.interrupt.take()
    }

    fn register(&self, cx: &Context<'_>) {
        self.timers.run_waker.register(cx.waker());
        self.timers.clock().wake_on_change(cx.waker());
        self.main.register(cx.waker());
    }

    /// Cancels the root if Ctrl-C was pressed.
    fn watch_signal(&mut self, cx: &mut Context<'_>) {
        if !self.interrupted
            && let Some(interrupt) = &mut self.interrupt
            && interrupt.poll(cx)
        {
            self.interrupted = true;
            let reason = CancelReason::new(CancelSource::CtrlC);
            self.inbox.main_scope.cancel_for(reason);
        }
    }

    /// Sets this thread's position to above all tasks, with no tree variable set.
    fn enter(&self) -> (Entered, WithValues) {
        (enter_above_root(&self.tree), WithValues::new(None))
    }

    /// Runs the calls that are queued now. Calls that these add run in the next turn, after the
    /// tasks.
    fn run_calls(&mut self) {
        for _ in 0..self.inbox.calls.len() {
            if let Some(call) = self.inbox.calls.pop() {
                self.run_call(call);
            }
        }
    }

    fn run_call(&mut self, call: Call) {
        self.idle.mark_busy();
        let _entered = self.enter();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| call.run())) {
            self.panicked(payload);
        }
    }

    /// Polls the main future if it was woken. When it ends, the system tasks are cancelled.
    fn poll_root(&mut self) {
        if !self.main.take() {
            return;
        }
        let _entered = self.enter();
        let Root::Running(root) = &mut self.root else {
            return;
        };
        self.idle.mark_busy();
        let observed = instrument::is_observed(self.id);
        if observed {
            instrument::task_scheduled(&self.task.info());
        }
        let cx = &mut Context::from_waker(&self.main_waker);
        let polled = self.task.with_current(|| {
            if observed {
                instrument::before_task_step(&self.task.info());
            }
            let polled = catch_unwind(AssertUnwindSafe(|| {
                self.task.noting_wait(|| root.as_mut().poll(cx))
            }));
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
        self.inbox.system.cancel(reason);
    }

    fn end_root(&mut self, value: Option<T>) {
        let ended = std::mem::replace(&mut self.root, Root::Ended(value));
        let dropped = self
            .task
            .with_current(|| catch_unwind(AssertUnwindSafe(|| drop(ended))));
        if let Err(payload) = dropped {
            self.panicked(payload);
        }
    }

    /// Polls the system tasks if they were woken.
    fn poll_system(&mut self) {
        if !self.inbox.system.is_woken() {
            return;
        }
        self.idle.mark_busy();
        let waker = || Waker::from(self.inbox.clone());
        if let Err(payload) = self.inbox.system.poll(&self.tree, waker) {
            self.panicked(payload);
        }
    }

    /// Keeps the first panic until the run has ended, and cancels everything in the run.
    fn panicked(&mut self, payload: PanicPayload) {
        // A run on a thread that this run waits for has ended by Ctrl-C, which ends this run too.
        let interrupted = self.interrupt.is_some() && payload.is::<InterruptedRun>();
        let source = if interrupted {
            CancelSource::CtrlC
        } else {
            CancelSource::Panic
        };
        match &self.panic {
            _ if interrupted => {}
            None => self.panic = Some(payload),
            Some(_) => {
                tracing::error!(
                    "a second panic in a run, while the first one is unwinding, is dropped"
                );
                // Its drop could panic in turn, and no caller is left to receive that.
                std::mem::forget(payload);
            }
        }
        let reason = CancelReason::new(source);
        self.inbox.main_scope.cancel_for(reason.clone());
        self.inbox.system.cancel(reason);
    }

    /// Returns whether a task is to be polled, or a function to be called, in the next turn.
    fn is_ready(&self) -> bool {
        self.main.is_woken() || self.inbox.system.is_woken() || self.inbox.calls.len() > 0
    }

    fn has_ended(&self) -> bool {
        matches!(self.root, Root::Ended(_)) && self.inbox.system.is_closed()
    }

    /// Ends the run after its last task: runs the calls that were accepted, and drops the run's
    /// variables.
    fn finish(&mut self) -> Option<T> {
        self.inbox.calls.close();
        // The queue is closed, so these are all.
        self.run_calls();
        let entered = self.enter();
        let variables = self.variables.end();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(variables))) {
            self.panicked(payload);
        }
        drop(entered);
        if self.panic.is_some() {
            // The value is not returned. Its drop may panic in turn.
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
        instrument::is_observed(self.id)
    }

    /// Tells instruments that the loop is about to wait: until it is woken, if `parks`, and
    /// otherwise for one poll of the reactor.
    fn before_wait(&mut self, parks: bool) {
        if self.is_observed() {
            let timeout = if parks {
                self.idle.time_to_timer()
            } else {
                Some(Duration::ZERO)
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

    /// Returns whether nothing holds a waker of the main future or a handle on the run, so nothing
    /// will wake it if it is not woken already.
    fn cannot_be_woken(&self) -> bool {
        let is_alone = Arc::strong_count(&self.main) <= WAKERS_OF_THE_RUN
            && Arc::strong_count(&self.inbox) <= INBOXES_OF_THE_RUN
            && self.inbox.system.tasks() == 0;
        // A waker or a handle that was used and dropped by another thread has left its wake-up.
        fence(Ordering::Acquire);
        is_alone && !self.is_ready()
    }

    /// Reports a run that has nothing to wait for, as far as the run can know. Panics if that is
    /// certain: nothing holds a waker of the main future or a handle on the run.
    fn check_silence(&mut self) {
        if !self.idle.has_no_deadline(&self.timers) {
            return;
        }
        let is_alone = self.cannot_be_woken();
        let message = if is_alone {
            "nothing can wake this run: its main future waits and has left its waker nowhere"
        } else if self.idle.take_silence() {
            "every task of this run is blocked, and its clock has no deadline to jump to: only another thread, a process \
             or a socket can wake it"
        } else {
            return;
        };
        let tree = self.task.with_current(task_tree);
        let tree = tree.map_or_else(String::new, |tree| tree.to_string());
        if is_alone {
            let Err(payload) = catch_unwind(|| panic!("{message}. Its tasks:\n{tree}"));
            return self.panicked(payload);
        }
        tracing::warn!("{message}");
        // Not by `eprintln`, whose text libtest keeps until the test ends. There is no other way to
        // report it if this fails.
        _ = writeln!(std::io::stderr(), "seedbed: {message}. Its tasks:\n{tree}");
    }

    /// Spins for a while on the answers of workers, which may arrive sooner than a parked thread
    /// would wake up. Returns whether a task is ready.
    fn spin_on_workers(&self) -> bool {
        let most = self.idle.time_to_timer().unwrap_or(Duration::MAX);
        workers::look(most, || self.is_ready())
    }
}

impl<T> Future for RunDriver<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        this.after_wait();
        this.register(cx);
        let mut since = None;
        let parks = loop {
            let _turn = workers::turn();
            this.watch_signal(cx);
            this.timers.fire();
            this.run_calls();
            this.poll_root();
            this.poll_system();
            if this.has_ended() {
                return Poll::Ready(this.finish());
            }
            if this.is_ready() {
                // A loop that is always busy never waits, so it looks for answers of workers here.
                workers::glance();
            } else {
                if !this.idle.wait(&this.timers, cx) {
                    break false;
                }
                this.check_silence();
                if this.is_ready() {
                    continue;
                }
                if !this.spin_on_workers() {
                    break true;
                }
            }
            // A task is ready. Returning lets `block_on` poll the reactor first, if it has not done
            // so for a while, or if instruments are told of each poll.
            let for_long = since.get_or_insert_with(Instant::now).elapsed() > REACTOR_INTERVAL;
            if for_long || this.is_observed() {
                cx.waker().wake_by_ref();
                break false;
            }
        };
        if this.began_in_original {
            refuse_in_forked_copy("a run that began before the fork");
        }
        this.before_wait(parks);
        Poll::Pending
    }
}

impl<T> Drop for RunDriver<'_, T> {
    /// Stops spinning for workers. If a panic of a clock or a foreign waker has ended the loop,
    /// drops what is left, so no thread waits for an answer forever.
    fn drop(&mut self) {
        workers::forget();
        self.timers.end();
        if !matches!(self.root, Root::Finished) {
            self.root = Root::Finished;
            self.inbox.system.close();
            self.inbox.calls.close();
            while self.inbox.calls.pop().is_some() {}
            drop(self.variables.end());
        }
    }
}
