//! Children on other threads: `spawn_on`, and the future behind it.
//!
//! Such a child is two futures. [`OnExecutor`] stands here, among the nursery's other children, and waits; it takes a
//! place in the scope tree, for whose end everything above waits. [`RemoteChild`] is what the executor gets: it polls
//! the user's future, standing at that place. So scopes that are opened over there nest below it, and whatever the tree
//! decides holds on every thread.
//!
//! The user's future lies in [`Remote`], which both share, and is taken out to be polled or dropped. That is why nobody
//! has to wait for an executor that is busy or does not run: a cancelled future that rests is dropped *here*, in the
//! nursery's own poll. Only a future that is being polled at that moment is dropped over there, after that poll.
//!
//! Locks: a `Remote`'s own first, then the tree's; neither is held while the user's code runs, nor a waker's.

use std::any::Any;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

use super::handle::{Nursery, TrySpawned};
use super::info::TaskRef;
use super::place;
use super::task_handle::Task;
use crate::ambient;
use crate::ambient::{TreeValues, WithValues};
use crate::cancel::position;
use crate::cancel::position::enter;
use crate::cancel::{Kind, Node, NodeState};
use crate::sys::primitives::lock;

/// Where [`Nursery::spawn_on`] can put a child.
///
/// smol's executors are, by themselves and in an `Arc`. Any other is as a closure, smol's global one with
/// `&|child| smol::spawn(child).detach()`.
///
/// ```
/// use seedbed::{open_nursery, run};
///
/// run(open_nursery(|n| async move {
///     let global = |child| smol::spawn(child).detach();
///     assert_eq!(n.spawn_on(&global, async { 6 * 7 }).await, 42);
/// }));
/// ```
pub trait ChildExecutor {
    /// Has `child` polled, on any thread, until it is done. It may be dropped before that, which the nursery is told.
    fn execute(&self, child: RemoteChild);
}

impl ChildExecutor for smol::Executor<'_> {
    fn execute(&self, child: RemoteChild) {
        self.spawn(child).detach();
    }
}

impl<E: ChildExecutor + ?Sized> ChildExecutor for Arc<E> {
    fn execute(&self, child: RemoteChild) {
        (**self).execute(child);
    }
}

impl<F: Fn(RemoteChild)> ChildExecutor for F {
    fn execute(&self, child: RemoteChild) {
        self(child);
    }
}

/// Runs `future` on an executor, and waits for it here: [`Nursery::spawn_on`] without a nursery, or for one's other
/// ways to put a child in (`n.start(|started| on_executor(&executor, ..))`).
///
/// The executor gets its part at once, but polls `future` only after the returned one was polled: where that happens is
/// the place of `future` in the tree of scopes and variables.
///
/// # Cancellation
///
/// `future` is dropped where it waits, as anywhere else: here, or by the executor's thread if that is polling it just
/// then. The caller's end waits for that, and for shields in it. If it is cancelled before the executor has polled it for
/// the first time, it is dropped without having run. Dropping the returned future from outside seedbed drops `future` at
/// once, shields included, or in the background at the end of the poll that it is in.
///
/// # Panics
///
/// With the panic of `future`; and if the executor drops its part before that is done, unless the caller is cancelled.
///
/// ```
/// use seedbed::nursery::on_executor;
/// use seedbed::run;
///
/// let executor = smol::Executor::new();
/// run(async {
///     let value = on_executor(&executor, async { 5 });
///     // Usually, other threads do this.
///     assert_eq!(executor.run(value).await, 5);
/// });
/// ```
pub fn on_executor<E, F>(executor: &E, future: F) -> OnExecutor<F::IntoFuture>
where
    E: ChildExecutor + ?Sized,
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: Send + 'static,
{
    let remote = Arc::new(Remote {
        stage: Mutex::new(Stage::Resting {
            future: Box::pin(future.into_future()),
            place: None,
        }),
        cell: Arc::default(),
        runner: AtomicWaker::new(),
    });
    // Made first: if the executor panics, this ends the other half.
    let here = OnExecutor {
        remote: remote.clone(),
        placed: false,
    };
    executor.execute(RemoteChild { remote });
    here
}

impl<R> Nursery<'_, R> {
    /// Puts a child into the nursery that is polled by an executor, and so may use all cores.
    ///
    /// In everything else it is as a child of [`spawn`](Nursery::spawn): the block waits for it, its scopes and tree
    /// variables are those of where the nursery was opened, cancelling reaches it on whatever thread it is, shields in it
    /// make the block wait, and its panic is the block's.
    ///
    /// Three things are different. It must be `'static`. Cancelled before the executor has polled it for the first time,
    /// it is dropped without having run. And if the block is dropped from outside while an executor's thread is polling
    /// the child, that poll goes on in the background, and the child is dropped at its end.
    ///
    /// An executor that nobody runs lets the block wait, as any child does that makes no progress; cancelling works
    /// nevertheless. Sleeps and deadlines in the child are those of the run; to a virtual clock, which does not see what
    /// other threads do, a child that is being polled there counts as blocked.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Nursery::spawn). The block panics if the executor is dropped before the child has ended.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use seedbed::{open_nursery, run, sync::Event};
    ///
    /// let executor = Arc::new(smol::Executor::new());
    /// let (worker, done) = (executor.clone(), Event::new());
    /// let ended = done.clone();
    /// let thread = std::thread::spawn(move || smol::block_on(worker.run(ended.wait())));
    /// run(open_nursery(|n| async move {
    ///     let here = std::thread::current().id();
    ///     let there = n.spawn_on(&executor, async { std::thread::current().id() });
    ///     assert_ne!(there.await, here);
    /// }));
    /// done.set();
    /// thread.join().unwrap();
    /// ```
    #[track_caller]
    pub fn spawn_on<E, F>(&self, executor: &E, future: F) -> Task<F::Output>
    where
        E: ChildExecutor + ?Sized,
        F: IntoFuture,
        F::IntoFuture: Send + 'static,
        F::Output: Send + 'static,
    {
        match self.spawn_as::<_, F::IntoFuture>(on_executor(executor, future)) {
            Ok(task) => task,
            Err(closed) => panic!("{closed}"),
        }
    }
}

impl<'env, T: Send + 'env, E: Send + 'env> Nursery<'env, Result<T, E>> {
    /// Puts a child into the nursery that is polled by an executor, as [`spawn_on`](Nursery::spawn_on), and whose error
    /// ends the block, as [`try_spawn`](Nursery::try_spawn).
    ///
    /// # Panics
    ///
    /// As [`spawn_on`](Nursery::spawn_on).
    ///
    /// ```
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{run, try_open_nursery};
    ///
    /// let result: Result<(), &str> = run(try_open_nursery(|n| async move {
    ///     n.try_spawn_on(&|child| smol::spawn(child).detach(), async { Err::<(), _>("no luck") });
    ///     sleep_forever().await;
    ///     Ok(())
    /// }));
    /// assert_eq!(result, Err("no luck"));
    /// ```
    #[track_caller]
    pub fn try_spawn_on<U, X, F>(&self, executor: &X, future: F) -> TrySpawned<U>
    where
        X: ChildExecutor + ?Sized,
        F: IntoFuture<Output = Result<U, E>>,
        F::IntoFuture: Send + 'static,
        U: Send + 'static,
        E: 'static,
    {
        self.try_spawn_as::<U, _, F::IntoFuture>(on_executor(executor, future))
    }
}

/// What the two halves share.
struct Remote<F: Future> {
    stage: Mutex<Stage<F>>,
    /// Of the place in the tree. Its waker is that of the half here.
    cell: Arc<NodeState>,
    /// Wakes the half over there.
    runner: AtomicWaker,
}

enum Stage<F: Future> {
    /// Nobody polls it. Without a place, nobody may.
    Resting {
        // In this order: the nodes below are gone before the place is.
        future: Pin<Box<F>>,
        place: Option<Place>,
    },
    /// Taken out, to be polled or dropped. If the half here is gone meanwhile, whatever comes of it is dropped.
    Taken { orphaned: bool },
    /// Gone; the half here has to be told. Until then, everything above goes on waiting.
    Ended {
        end: End<F::Output>,
        place: Option<Place>,
    },
    /// There is nothing more to tell: it was dropped because it was cancelled, or the half here has gone or knows.
    Over,
}

/// How a future ended that was not cancelled.
enum End<T> {
    Value(T),
    Panicked(Payload),
    /// The executor has dropped it.
    Lost,
}

type Payload = Box<dyn Any + Send>;

/// Where the future stands in the tree of scopes, and of variables.
struct Place {
    node: Node,
    values: Option<TreeValues>,
    /// The child that this is, unless it is polled outside of any task.
    task: Option<TaskRef>,
}

impl Place {
    fn new(cell: Arc<NodeState>) -> Self {
        Place {
            node: position::attach(Kind::Defer, Some(cell)),
            values: ambient::tree_values(),
            task: place::current(),
        }
    }

    /// Does something at this place, on whatever thread. Hands a panic over.
    fn at<T>(&self, act: impl FnOnce() -> T) -> Result<T, Payload> {
        let _place = enter(&self.node.shared, self.node.id);
        let _values = WithValues::new(self.values.clone());
        catch_unwind(AssertUnwindSafe(|| match &self.task {
            Some(task) => place::in_task(task, act),
            None => act(),
        }))
    }
}

impl<F: Future> Remote<F> {
    /// Gives the future its place. From now on the executor may poll it.
    fn place(&self) {
        let place = Place::new(self.cell.clone());
        let mut stage = lock(&self.stage);
        let unused = match &mut *stage {
            Stage::Resting { place: slot, .. } => slot.replace(place),
            // The executor has lost it already.
            Stage::Taken { .. } | Stage::Ended { .. } | Stage::Over => Some(place),
        };
        drop(stage);
        drop(unused);
        self.runner.wake();
    }

    /// Takes the future out if it rests and `choose` agrees.
    fn take(
        &self,
        choose: impl FnOnce(Option<&Place>) -> bool,
    ) -> Option<(Pin<Box<F>>, Option<Place>)> {
        let mut stage = lock(&self.stage);
        match &*stage {
            Stage::Resting { place, .. } if choose(place.as_ref()) => {}
            _ => return None,
        }
        match std::mem::replace(&mut *stage, Stage::Taken { orphaned: false }) {
            Stage::Resting { future, place } => Some((future, place)),
            _ => unreachable!("looked at above, under the same lock"),
        }
    }

    /// Puts down what came of a future that was taken out.
    fn put(&self, next: Stage<F>) {
        let mut stage = lock(&self.stage);
        let orphaned = matches!(*stage, Stage::Taken { orphaned: true });
        let unused = match orphaned {
            true => {
                *stage = Stage::Over;
                Some(next)
            }
            false => {
                *stage = next;
                None
            }
        };
        drop(stage);
        if let Some(Stage::Ended {
            end: End::Panicked(payload),
            ..
        }) = unused
        {
            orphan_panicked(payload);
        } else if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(unused))) {
            orphan_panicked(payload);
        }
    }

    /// Drops a future that was taken out, and puts down how it ended.
    fn end(&self, future: Pin<Box<F>>, place: Option<Place>, end: Option<End<F::Output>>) {
        let dropped = match &place {
            Some(place) => place.at(|| drop(future)),
            None => catch_unwind(AssertUnwindSafe(|| drop(future))),
        };
        let end = match (dropped, end) {
            (Ok(()), end) => end,
            (Err(second), Some(End::Panicked(first))) => {
                orphan_panicked(second);
                Some(End::Panicked(first))
            }
            (Err(payload), _) => Some(End::Panicked(payload)),
        };
        match end {
            Some(end) => self.put(Stage::Ended { end, place }),
            None => {
                self.put(Stage::Over);
                // Whoever waits for this place is woken by that.
                drop(place);
            }
        }
        self.cell.waker.wake();
    }

    /// Drops the future if it is to be: it is cancelled, no shield is active in it, and nobody is polling it.
    fn drop_if_cancelled(&self) -> bool {
        if !self.cell.is_effective() {
            return false;
        }
        // The tree's decision, and taking the future out, are one step: nobody polls it in between.
        let decide =
            |place: Option<&Place>| place.is_some_and(|place| place.node.try_drop().is_some());
        let Some((future, place)) = self.take(decide) else {
            return false;
        };
        self.end(future, place, None);
        true
    }

    /// Tells the half here what it has to know.
    fn poll_end(&self) -> Poll<F::Output> {
        let mut stage = lock(&self.stage);
        if !matches!(*stage, Stage::Ended { .. }) {
            return Poll::Pending;
        }
        let Stage::Ended { end, place } = std::mem::replace(&mut *stage, Stage::Over) else {
            unreachable!("looked at above, under the same lock");
        };
        drop(stage);
        drop(place);
        match end {
            End::Value(value) => Poll::Ready(value),
            End::Panicked(payload) => resume_unwind(payload),
            // It would have been dropped anyway.
            End::Lost if position::commit_if_cancelled() => Poll::Pending,
            End::Lost => panic!(
                "the executor that this child was put on was dropped, or dropped the child, before the child had ended; \
                 keep the executor until the nursery has ended, or cancel the nursery first"
            ),
        }
    }
}

/// Reports a panic that nobody can be told of.
fn orphan_panicked(payload: Payload) {
    tracing::error!(
        target: "seedbed::nursery",
        "a panic in a nursery's child on another thread is dropped: nobody waits for the child any more"
    );
    // Its drop may panic in turn.
    std::mem::forget(payload);
}

/// The half that an executor polls, whatever future it is about.
trait Runner: Send + Sync {
    fn run(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// The executor has let go of it.
    fn lose(&self);
}

impl<F> Runner for Remote<F>
where
    F: Future + Send,
    F::Output: Send,
{
    fn run(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.runner.register(cx.waker());
        self.drop_if_cancelled();
        if let Some((mut future, Some(place))) = self.take(|place| place.is_some()) {
            match place.at(|| future.as_mut().poll(cx)) {
                Ok(Poll::Pending) => {
                    self.put(Stage::Resting {
                        future,
                        place: Some(place),
                    });
                    self.drop_if_cancelled();
                }
                Ok(Poll::Ready(value)) => self.end(future, Some(place), Some(End::Value(value))),
                Err(payload) => self.end(future, Some(place), Some(End::Panicked(payload))),
            }
        }
        match *lock(&self.stage) {
            Stage::Resting { .. } | Stage::Taken { .. } => Poll::Pending,
            Stage::Ended { .. } | Stage::Over => Poll::Ready(()),
        }
    }

    fn lose(&self) {
        // It may keep the executor's side of this alive.
        drop(self.runner.take());
        self.drop_if_cancelled();
        if let Some((future, place)) = self.take(|_| true) {
            self.end(future, place, Some(End::Lost));
        }
    }
}

/// A child of [`Nursery::spawn_on`] as its executor sees it: a future to be polled, on any thread, until it is done.
///
/// It is done when the child has ended or is not wanted any more; what the child returns goes to the nursery. Dropping it
/// before that drops the child, and makes the nursery's block panic, unless that is cancelled.
///
/// ```
/// use seedbed::{nursery::RemoteChild, open_nursery, run};
///
/// run(open_nursery(|n| async move {
///     let thread = |child: RemoteChild| drop(std::thread::spawn(|| smol::block_on(child)));
///     let here = std::thread::current().id();
///     let there = n.spawn_on(&thread, async { std::thread::current().id() });
///     assert_ne!(there.await, here);
/// }));
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct RemoteChild {
    remote: Arc<dyn Runner>,
}

impl Future for RemoteChild {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.remote.run(cx)
    }
}

impl Drop for RemoteChild {
    fn drop(&mut self) {
        self.remote.lose();
    }
}

impl fmt::Debug for RemoteChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteChild").finish_non_exhaustive()
    }
}

/// Waits for a future that an executor polls; made by [`on_executor`]. Dropping it drops that future: at once, or at the
/// end of the poll that it is in.
#[must_use = "futures do nothing unless awaited"]
pub struct OnExecutor<F: Future> {
    remote: Arc<Remote<F>>,
    placed: bool,
}

impl<F: Future> Future for OnExecutor<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.remote.cell.waker.register(cx.waker());
        if !std::mem::replace(&mut self.placed, true) {
            self.remote.place();
        }
        if self.remote.drop_if_cancelled() {
            // So that it lets go of its half.
            self.remote.runner.wake();
        }
        self.remote.poll_end()
    }
}

impl<F: Future> Drop for OnExecutor<F> {
    fn drop(&mut self) {
        let mut stage = lock(&self.remote.stage);
        let next = match *stage {
            Stage::Taken { .. } => Stage::Taken { orphaned: true },
            Stage::Resting { .. } | Stage::Ended { .. } | Stage::Over => Stage::Over,
        };
        let last = std::mem::replace(&mut *stage, next);
        drop(stage);
        // So that it lets go of its half.
        self.remote.runner.wake();
        drop(last);
    }
}

impl<F: Future> fmt::Debug for OnExecutor<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnExecutor")
            .field("placed", &self.placed)
            .finish_non_exhaustive()
    }
}
