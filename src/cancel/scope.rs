//! `CancelScope`: runs a future that can be told to stop.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use super::current::{Plan, attach_by, carry_out_plans, poll_at};
use super::node;
use super::node::{Node, Shared, Wake, Watched};
use super::reason::{CancelReason, CancelSource};
use super::tree::{End, Kind, NodeId};
use crate::sys::primitives::{AtomicBool, Mutex, lock};
use crate::time::{Sleep, Timers, current_time, sleep_until};

/// A handle on a piece of work that can be cancelled, given a deadline, or shielded, from anywhere.
///
/// Make one, [`run`](CancelScope::run) a future in it, and keep a clone for whoever is to stop it. Clones are handles
/// on the same scope; they are cheap, and may be used on any thread. A scope runs one future.
///
/// Dropping the handles does nothing; dropping the future that `run` returned drops what it runs.
///
/// ```
/// use seedbed::time::sleep_forever;
/// use seedbed::{CancelScope, run};
///
/// run(async {
///     let scope = CancelScope::new();
///     let handle = scope.clone();
///     let value = scope.run(async move {
///         handle.cancel(); // takes effect at the next await that has to wait
///         sleep_forever().await;
///     });
///     assert_eq!(value.await, None);
/// });
/// ```
#[derive(Clone)]
pub struct CancelScope {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Its reason also says whether the scope was cancelled, once and for all.
    cell: node::Cell,
    phase: Mutex<Phase>,
    /// Whether a deadline was ever set, so that scopes without one never look.
    timed: AtomicBool,
}

enum Phase {
    /// Not polled yet; the settings wait for the node.
    New {
        shield: bool,
        timeout: Option<Duration>,
    },
    /// Being polled for the first time, without a node so far, in a run whose time is given; else it is the system's.
    Planned {
        shield: bool,
        time: Option<Arc<Timers>>,
    },
    /// Being polled. The node is removed by [`ScopeRun`], which first leaves this phase, under the same lock.
    Placed {
        shared: Arc<Shared>,
        id: NodeId,
    },
    Ended,
}

impl Default for Phase {
    fn default() -> Self {
        Phase::New {
            shield: false,
            timeout: None,
        }
    }
}

impl Watched for Inner {
    fn cell(&self) -> &node::Cell {
        &self.cell
    }
}

impl CancelScope {
    /// Makes a scope without a deadline or a shield.
    ///
    /// ```
    /// assert!(!seedbed::CancelScope::new().is_cancelled());
    /// ```
    pub fn new() -> Self {
        CancelScope {
            inner: Arc::default(),
        }
    }

    /// Runs `future` in this scope. The scope takes its place in the tree when the returned future is first polled.
    ///
    /// Returns `None` if the future was dropped because *this* scope was cancelled. If a scope further out was cancelled
    /// as well, that one absorbs: the returned future stays pending and is dropped from there. A future that completes
    /// keeps its value, even if the scope was cancelled meanwhile; and however early it was cancelled, the future runs
    /// up to its first await that has to wait.
    ///
    /// # Cancellation
    ///
    /// Cancelling drops `future` at the await where it stands, unless a [`shield`](crate::shield) is active in it:
    /// then as soon as that has ended. Dropping the returned future drops `future` at once, shields included.
    ///
    /// # Panics
    ///
    /// When polled, if the scope runs or ran another future.
    ///
    /// ```
    /// use seedbed::{run, CancelScope};
    ///
    /// run(async {
    ///     let scope = CancelScope::new();
    ///     scope.cancel();
    ///     // A body that need not wait is not cancelled.
    ///     assert_eq!(scope.run(async { 5 }).await, Some(5));
    /// });
    /// ```
    pub fn run<F: IntoFuture>(&self, future: F) -> ScopeRun<F::IntoFuture> {
        ScopeRun {
            driver: Driver::new(self.clone()),
            body: Body::Running {
                future: future.into_future(),
            },
        }
    }

    /// Cancels what runs in this scope, and everything below that no shield hides, before it returns: flags are set,
    /// wakers are woken, and each task is dropped when it would next be polled. Cancelling twice, or after the end, does
    /// nothing more. May be called from any thread.
    ///
    /// ```
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{CancelScope, run};
    ///
    /// let scope = CancelScope::new();
    /// let handle = scope.clone();
    /// let thread = std::thread::spawn(move || handle.cancel());
    /// assert_eq!(run(scope.run(sleep_forever())), None);
    /// thread.join().unwrap();
    /// ```
    #[track_caller]
    pub fn cancel(&self) {
        self.cancel_for(CancelReason::explicit(None, Location::caller()));
    }

    /// Cancels as [`cancel`](CancelScope::cancel) does, and says why, for [`cancel_reason`](CancelScope::cancel_reason),
    /// for the handle's `Debug` and for the `tracing` event at DEBUG that reports the cancellation.
    ///
    /// ```
    /// let scope = seedbed::CancelScope::new();
    /// scope.cancel_because(format!("{} bytes are too many", 5000));
    /// assert_eq!(scope.cancel_reason().unwrap().message(), Some("5000 bytes are too many"));
    /// ```
    #[track_caller]
    pub fn cancel_because(&self, message: impl Into<Cow<'static, str>>) {
        let message = Some(message.into());
        self.cancel_for(CancelReason::explicit(message, Location::caller()));
    }

    pub(crate) fn cancel_for(&self, reason: CancelReason) {
        let first = self.inner.cell.reason.set(Box::new(reason)).is_ok();
        self.change(|shared, id| shared.cancel(id));
        if first && let Some(reason) = self.inner.cell.reason.get() {
            tracing::debug!(%reason, "a cancel scope was cancelled");
        }
    }

    /// Why this scope is cancelled: by itself, or, while it runs, by a scope further out that no shield keeps off. `None`
    /// if it is not. The first cause stays.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::cancel::CancelSource;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{CancelScope, run};
    ///
    /// let scope = CancelScope::new();
    /// assert!(scope.cancel_reason().is_none());
    /// scope.set_timeout(Duration::from_millis(1));
    /// assert_eq!(run(scope.run(sleep_forever())), None);
    /// assert_eq!(scope.cancel_reason().unwrap().source(), CancelSource::Deadline);
    /// ```
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        let own = self.inner.cell.reason.get();
        let own = own.map(|reason| (**reason).clone());
        own.or_else(|| {
            if matches!(*lock(&self.inner.phase), Phase::Planned { .. }) {
                // Usually it is its own body that asks.
                carry_out_plans();
            }
            match &*lock(&self.inner.phase) {
                Phase::Placed { shared, id } if self.inner.cell.is_effective() => {
                    shared.reason(*id)
                }
                _ => None,
            }
        })
    }

    /// Whether nothing more can come of it: it has ended, or this is its last handle, and nothing runs in it.
    pub(super) fn is_over(&self) -> bool {
        Arc::strong_count(&self.inner) == 1 || matches!(*lock(&self.inner.phase), Phase::Ended)
    }

    /// Makes the scopes around wait for this one's end.
    pub(crate) fn hold(&self) {
        self.change(|shared, id| shared.set_holds(id, true));
    }

    /// Wakes whoever polls the scope.
    pub(crate) fn wake(&self) {
        self.inner.cell.waker.wake();
    }

    /// Changes the scope's node, if there is one, and wakes whom that concerns.
    fn change(&self, act: impl FnOnce(&Shared, NodeId) -> Wake) {
        let wake = match &*lock(&self.inner.phase) {
            Phase::Placed { shared, id } => Some(act(shared, *id)),
            Phase::New { .. } | Phase::Planned { .. } | Phase::Ended => None,
        };
        if let Some(wake) = wake {
            wake.now();
        }
    }

    /// The time of the run that the scope runs in, whoever asks; before it runs, the caller's.
    fn now(&self) -> Instant {
        let time = match &*lock(&self.inner.phase) {
            Phase::New { .. } | Phase::Ended => return current_time(),
            Phase::Planned { time, .. } => time.clone(),
            Phase::Placed { shared, .. } => shared.timers().cloned(),
        };
        time.map_or_else(Instant::now, |time| time.now())
    }

    /// Whether this scope was cancelled, or its deadline has passed while it was not ended. Never goes back to false.
    ///
    /// ```
    /// let scope = seedbed::CancelScope::new();
    /// scope.cancel();
    /// assert!(scope.is_cancelled());
    /// ```
    pub fn is_cancelled(&self) -> bool {
        let ended = || matches!(*lock(&self.inner.phase), Phase::Ended);
        if self
            .deadline()
            .is_some_and(|deadline| deadline <= self.now())
            && !ended()
        {
            self.cancel_for(CancelReason::new(CancelSource::Deadline));
        }
        self.was_cancelled()
    }

    /// Whether it was cancelled, without looking at the clock.
    fn was_cancelled(&self) -> bool {
        self.inner.cell.reason.get().is_some()
    }

    /// Sets the time at which the scope is cancelled; `None` for never. A deadline that has passed cancels at the next
    /// await that has to wait. What is cancelled stays so.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::time::{current_time, sleep_forever};
    /// use seedbed::{CancelScope, run};
    ///
    /// run(async {
    ///     let scope = CancelScope::new();
    ///     scope.set_deadline(Some(current_time() + Duration::from_millis(1)));
    ///     assert_eq!(scope.run(sleep_forever()).await, None);
    /// });
    /// ```
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        if let Phase::New { timeout, .. } = &mut *lock(&self.inner.phase) {
            *timeout = None;
        }
        self.inner.cell.set_deadline(deadline);
        self.inner.timed.store(true, Ordering::Release);
        self.inner.cell.waker.wake();
    }

    /// Sets the deadline to `timeout` from now; if the scope does not run yet, from when it is first polled.
    ///
    /// A time too long to be represented means no deadline.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{CancelScope, run};
    ///
    /// run(async {
    ///     let scope = CancelScope::new();
    ///     scope.set_timeout(Duration::from_millis(1));
    ///     assert_eq!(scope.run(sleep_forever()).await, None);
    /// });
    /// ```
    pub fn set_timeout(&self, timeout: Duration) {
        if let Phase::New { timeout: slot, .. } = &mut *lock(&self.inner.phase) {
            *slot = Some(timeout);
            self.inner.cell.set_deadline(None);
            return;
        }
        self.set_deadline(self.now().checked_add(timeout));
    }

    /// The time at which the scope is cancelled. `None` if there is none, or if it counts from a first poll that has not
    /// happened.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::CancelScope;
    /// use seedbed::time::current_time;
    ///
    /// let scope = CancelScope::new();
    /// assert_eq!(scope.deadline(), None);
    /// let deadline = current_time() + Duration::from_secs(5);
    /// scope.set_deadline(Some(deadline));
    /// assert_eq!(scope.deadline(), Some(deadline));
    /// ```
    pub fn deadline(&self) -> Option<Instant> {
        self.inner.cell.deadline()
    }

    /// Puts up or takes down a shield at this scope's edge: while it is up, what runs in the scope does not see that
    /// scopes further out are cancelled, and they wait for it. The scope's own cancellation works as usual.
    ///
    /// Takes effect at once, also while the scope runs. A forgotten shield shields for ever.
    ///
    /// ```
    /// use seedbed::{checkpoint, run, CancelScope};
    ///
    /// run(async {
    ///     let (outer, inner) = (CancelScope::new(), CancelScope::new());
    ///     inner.set_shield(true);
    ///     outer.cancel();
    ///     let value = outer.run(async move { inner.run(async { checkpoint().await; 7 }).await });
    ///     assert_eq!(value.await, Some(Some(7)));
    /// });
    /// ```
    pub fn set_shield(&self, shield: bool) {
        if let Phase::New { shield: slot, .. } | Phase::Planned { shield: slot, .. } =
            &mut *lock(&self.inner.phase)
        {
            *slot = shield;
            return;
        }
        self.change(|shared, id| shared.set_hides(id, shield));
    }

    /// The scope begins, in that tree. Returns the timeout that counts from now. Fails if it has begun before.
    fn begin(&self, shared: &Arc<Shared>) -> Result<Option<Duration>, RunTwice> {
        let mut phase = lock(&self.inner.phase);
        let Phase::New { shield, timeout } = *phase else {
            return Err(RunTwice);
        };
        let time = shared.timers().filter(|timers| !timers.are_real());
        *phase = Phase::Planned {
            shield,
            time: time.cloned(),
        };
        Ok(timeout)
    }

    /// Whether it has, or had, a deadline.
    fn is_timed(&self) -> bool {
        self.inner.timed.load(Ordering::Acquire)
    }

    /// Lets the timeout count from now, and cancels the scope if its deadline has passed.
    fn begin_deadline(&self, timeout: Option<Duration>) {
        let now = self.now();
        if let Some(timeout) = timeout {
            self.inner.cell.set_deadline(now.checked_add(timeout));
            self.inner.timed.store(true, Ordering::Release);
        }
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.cancel_for(CancelReason::new(CancelSource::Deadline));
        }
    }

    /// Makes the scope's node, below `parent`. Wakes nobody: who drives the scope looks at it after this poll.
    pub(super) fn take_place(&self, shared: &Arc<Shared>, parent: Option<NodeId>) -> NodeId {
        let mut phase = lock(&self.inner.phase);
        let shield = matches!(*phase, Phase::Planned { shield: true, .. });
        let kind = if shield { Kind::Hides } else { Kind::Plain };
        let id = shared.add(parent, kind, Some(self.inner.clone()));
        if self.was_cancelled() {
            // Nothing hangs below the node, and nobody has said yet who drives it.
            let _nobody = shared.cancel(id);
        }
        *phase = Phase::Placed {
            shared: shared.clone(),
            id,
        };
        id
    }
}

impl Default for CancelScope {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancelScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &*lock(&self.inner.phase) {
            Phase::New { .. } => "not entered",
            Phase::Planned { .. } | Phase::Placed { .. } => "running",
            Phase::Ended => "ended",
        };
        let mut scope = f.debug_struct("CancelScope");
        scope.field("phase", &phase);
        match self.cancel_reason() {
            Some(reason) => scope.field("cancelled", &format_args!("{reason}")),
            None => scope.field("cancelled", &false),
        };
        if let Some(deadline) = self.deadline() {
            match deadline.checked_duration_since(self.now()) {
                Some(left) => scope.field("deadline", &format_args!("in {left:?}")),
                None => scope.field("deadline", &format_args!("passed")),
            };
        }
        scope.finish_non_exhaustive()
    }
}

pin_project! {
    /// Runs a future in a [`CancelScope`]; made by [`CancelScope::run`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct ScopeRun<F> {
        // Dropped first, so that the nodes below are gone before this one.
        #[pin]
        body: Body<F>,
        driver: Driver,
    }
}

pin_project! {
    #[project = BodyProjection]
    enum Body<F> {
        Running { #[pin] future: F },
        /// Dropped, because of a cancellation that is absorbed further out; waits for being dropped from there.
        Dead,
        Ended,
    }
}

/// Everything of a [`ScopeRun`] but its body; and the scope of a nursery.
pub(crate) struct Driver {
    pub(crate) scope: CancelScope,
    /// The scope's future is this driver's.
    begun: bool,
    node: Option<Node>,
    alarm: Option<Alarm>,
}

/// Sleeps until the deadline that the scope had when it was set.
struct Alarm {
    deadline: Instant,
    sleep: Sleep,
}

/// A scope that has begun was to begin again.
#[derive(Debug)]
struct RunTwice;

impl Driver {
    pub(crate) fn new(scope: CancelScope) -> Self {
        Driver {
            scope,
            begun: false,
            node: None,
            alarm: None,
        }
    }

    /// Takes the scope's place in the tree, where the first poll happens.
    pub(crate) fn begin(&mut self) {
        let Driver { scope, begun, .. } = self;
        self.node = Some(attach_by(|shared, parent| {
            let new = scope.begin(shared);
            debug_assert!(matches!(new, Ok(None)), "a nursery's scope is its own");
            *begun = true;
            scope.take_place(shared, parent)
        }));
    }

    /// Polls something in the scope. Takes the scope's place in the tree if that turns out to be needed.
    fn poll_inside<T>(&mut self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let Driver { scope, begun, .. } = self;
        let timed = Cell::new(false);
        let timeout = Cell::new(None);
        let plan = |shared: &Arc<Shared>| {
            timeout.set(scope.begin(shared)?);
            timed.set(timeout.get().is_some() || scope.is_timed());
            *begun = true;
            Ok(Plan::Scope(scope.clone()))
        };
        let polled = poll_at(&mut self.node, plan, || {
            if timed.get() {
                scope.begin_deadline(timeout.get());
            }
            poll()
        });
        polled.unwrap_or_else(|RunTwice| {
            panic!("a CancelScope was run a second time; make a new scope for each future")
        })
    }

    /// Cancels the scope if its deadline has passed. Else gives the deadline, if there is one.
    fn expire(&self) -> Option<Instant> {
        if !self.scope.is_timed() || self.scope.was_cancelled() {
            return None;
        }
        let deadline = self.scope.deadline()?;
        let now = self.node.as_ref()?.shared.now();
        if deadline > now {
            return Some(deadline);
        }
        self.expired();
        None
    }

    fn expired(&self) {
        self.scope
            .cancel_for(CancelReason::new(CancelSource::Deadline));
    }

    /// Cancels the scope if its deadline has passed, and else makes sure to be woken then.
    fn watch_deadline(&mut self, cx: &mut Context<'_>) {
        let Some(deadline) = self.expire() else {
            self.alarm = None;
            return;
        };
        if self
            .alarm
            .as_ref()
            .is_none_or(|alarm| alarm.deadline != deadline)
        {
            self.alarm = Some(Alarm {
                deadline,
                sleep: sleep_until(deadline),
            });
        }
        if let Some(alarm) = &mut self.alarm
            && Pin::new(&mut alarm.sleep).poll(cx).is_ready()
        {
            self.expired();
        }
    }

    /// Decides that the body is dropped, if it is to be, and says where the cancellation ends.
    fn try_drop(&self) -> Option<End> {
        self.node
            .as_ref()
            .filter(|_| self.is_effective())?
            .try_drop()
    }

    /// Whether the scope is cancelled, by whomever.
    pub(crate) fn is_effective(&self) -> bool {
        self.scope.inner.cell.is_effective()
    }

    /// Says who polls.
    pub(crate) fn register(&self, waker: &Waker) {
        self.scope.inner.cell.waker.register(waker);
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Leaves the tree, if the scope has begun.
    pub(crate) fn end(&mut self) {
        if !std::mem::take(&mut self.begun) {
            return;
        }
        // Before the node is removed, so that nobody finds one in the phase that is not there any more.
        let mut phase = lock(&self.scope.inner.phase);
        if let Phase::Planned { time: None, .. } = *phase {
            *phase = Phase::Ended;
            drop(phase);
        } else {
            let before = std::mem::replace(&mut *phase, Phase::Ended);
            drop(phase);
            // Where no lock is held.
            drop(before);
        }
        if let Some(node) = self.node.take() {
            drop(node);
            self.alarm = None;
            // Handles may be kept; who has polled must not be kept by them.
            drop(self.scope.inner.cell.waker.take());
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end();
    }
}

impl<F: Future> ScopeRun<F> {
    /// Drops the body, and says what that means for the caller.
    fn cancelled(self: Pin<&mut Self>, end: End) -> Poll<Option<F::Output>> {
        let mut this = self.project();
        this.body.set(Body::Dead);
        this.driver.end();
        match end {
            End::Here => {
                this.body.set(Body::Ended);
                Poll::Ready(None)
            }
            End::Above => Poll::Pending,
        }
    }
}

impl<F: Future> Future for ScopeRun<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let mut this = self.as_mut().project();
        let future = match this.body.as_mut().project() {
            BodyProjection::Running { future } => future,
            BodyProjection::Dead => return Poll::Pending,
            BodyProjection::Ended => {
                panic!("a cancel scope's future was polled after it had ended")
            }
        };
        if this.driver.node.is_some() {
            this.driver.expire();
            if let Some(end) = this.driver.try_drop() {
                return self.cancelled(end);
            }
        }
        if let Poll::Ready(value) = this.driver.poll_inside(|| future.poll(cx)) {
            this.body.set(Body::Ended);
            this.driver.end();
            return Poll::Ready(Some(value));
        }
        // Who cancels from now on, or moves the deadline, wakes; and what was done meanwhile is seen.
        this.driver.register(cx.waker());
        this.driver.watch_deadline(cx);
        match this.driver.try_drop() {
            Some(end) => self.cancelled(end),
            None => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for ScopeRun<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeRun")
            .field("scope", &self.driver.scope)
            .finish_non_exhaustive()
    }
}
