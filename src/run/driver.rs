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

/// One run, as a future. `None` if the root scope was cancelled, which only Ctrl-C does.
pub(super) struct Driver<F: Future> {
    root: Pin<Box<ScopeRun<F>>>,
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
        Driver {
            root: Box::pin(scope.run(future)),
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

    /// Gives the interrupt back, to be asked what happened.
    pub(super) fn into_interrupt(self) -> Option<Interrupt> {
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
        let _place = enter_above_root(&self.shared);
        let _values = WithValues::new(None);
        self.root
            .as_mut()
            .poll(&mut Context::from_waker(&self.main_waker))
    }

    /// Nobody is ready: sees to it that the loop is polled again when somebody should be.
    fn wait(&mut self, cx: &mut Context<'_>) {
        match self.idle {
            // Only who wants to know pays for the reactor's extra turn.
            Idle::Not if !self.timers.is_idleness_wanted() => {}
            Idle::Not => {
                self.idle = Idle::Asking;
                cx.waker().wake_by_ref();
                return;
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
            return;
        }
        let idle = idle.map(|(at, _)| at);
        match [idle, self.next_deadline()].into_iter().flatten().min() {
            Some(at) => self.set_alarm(at, cx),
            None => self.alarm = None,
        }
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
        this.register(cx);
        this.watch_signal();
        this.timers.fire();
        if this.main.take_woken()
            && let Poll::Ready(value) = this.poll_root()
        {
            return Poll::Ready(value);
        }
        match this.main.is_woken() {
            // Somebody is ready already; `block_on` lets the reactor have a turn first.
            true => cx.waker().wake_by_ref(),
            false => this.wait(cx),
        }
        Poll::Pending
    }
}
