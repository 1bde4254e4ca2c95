//! Children on other threads: `spawn_on`, and the future that waits for such a child in its
//! nursery.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::child_handle::Task;
use super::fallible::TrySpawned;
use super::nursery::Nursery;
use super::remote::{End, Remote, RemoteChild, TakenEnd, WaiterNode};
use crate::cancel::position::commit_if_cancelled;

/// An executor that can poll children of a nursery, for [`Nursery::spawn_on`].
///
/// Implemented for smol's executors, also in an `Arc`, and for closures. For smol's global executor
/// use `&|child| smol::spawn(child).detach()`.
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
    /// Polls `child` on any thread until it is done. If the executor drops it before that, the
    /// nursery notices.
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

/// Runs `future` on an executor, and returns a future that waits for it.
///
/// This is [`Nursery::spawn_on`] without a nursery, or for other ways to spawn: `n.start(|started|
/// on_executor(&executor, ..))`. The executor gets its part at once, but polls `future` only after
/// the returned future was polled. The scopes and tree variables of `future` are those where the
/// returned future is polled first.
///
/// # Cancellation
///
/// `future` is dropped where it waits: on this thread, or on the executor's thread if that thread
/// is polling it. The caller waits for that, and for shields in `future`. If cancelled before the
/// executor has polled it, `future` is dropped without having run. Dropping the returned future
/// from outside seedbed drops `future` at once, shields included, or in the background at the end
/// of the poll that it is in.
///
/// # Panics
///
/// With the panic of `future`. Also if the executor drops its part before `future` has ended,
/// unless the caller is cancelled.
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
    let remote = Arc::new(Remote::new(future.into_future()));
    // Made first: if the executor panics, its drop ends the executor's part.
    let waiter = OnExecutor {
        remote: remote.clone(),
        node: None,
    };
    executor.execute(RemoteChild::new(remote));
    waiter
}

impl<R> Nursery<'_, R> {
    /// Spawns a child that an executor polls, and that can so use another core.
    ///
    /// The child is like one of [`spawn`](Nursery::spawn): the block waits for it, its scopes and
    /// tree variables are those where the nursery was opened, cancelling reaches it on any thread,
    /// shields in it make the block wait, and the block resumes its panic. Three things are
    /// different:
    ///
    /// * The child must be `'static`.
    /// * If it is cancelled before the executor has polled it, it is dropped without having run.
    /// * If the block is dropped from outside while an executor's thread is polling the child, that
    ///   poll goes on in the background, and the child is dropped at its end.
    ///
    /// If no thread runs the executor, the child makes no progress and the block waits, but the
    /// child can be cancelled. Sleeps and deadlines in the child use the run's clock. A virtual
    /// clock does not see other threads: a child that is being polled there counts as blocked.
    ///
    /// # Panics
    ///
    /// If the block has ended. The block panics if the executor is dropped before the child has
    /// ended.
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
    /// Spawns a child that an executor polls, and whose error ends the block.
    ///
    /// Combines [`spawn_on`](Nursery::spawn_on) and [`try_spawn`](Nursery::try_spawn).
    ///
    /// # Panics
    ///
    /// If the block has ended. The block panics if the executor is dropped before the child has
    /// ended.
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

/// Waits for a future that an executor polls. Returned by [`on_executor`].
///
/// Dropping it drops that future: at once, or at the end of the poll that it is in.
#[must_use = "futures do nothing unless awaited"]
pub struct OnExecutor<F: Future> {
    remote: Arc<Remote<F>>,
    /// `None` before the first poll and after the end.
    node: Option<WaiterNode>,
}

impl<F: Future> Future for OnExecutor<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let OnExecutor { remote, node: slot } = &mut *self;
        remote.register(cx.waker());
        let node = slot.get_or_insert_with(|| remote.allow_polls());
        node.follow();
        if remote.drop_if_cancelled() {
            remote.wake_executor();
        }
        let end = match remote.take_end() {
            TakenEnd::None => return Poll::Pending,
            TakenEnd::Dropped => return remote.poll_dead(cx),
            TakenEnd::Ended(end) => end,
        };
        // The caller is cancelled too, and is dropped instead of a panic.
        if let End::Lost = end
            && commit_if_cancelled()
        {
            node.set_plain();
            return remote.poll_dead(cx);
        }
        *slot = None;
        match end {
            End::Value(value) => Poll::Ready(value),
            End::Panicked(payload) => resume_unwind(payload),
            End::Lost => panic!(
                "the executor that this child was put on was dropped, or dropped the child, before the child had ended; \
                 keep the executor until the nursery has ended, or cancel the nursery first"
            ),
        }
    }
}

impl<F: Future> Drop for OnExecutor<F> {
    fn drop(&mut self) {
        self.remote.orphan();
    }
}

impl<F: Future> fmt::Debug for OnExecutor<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnExecutor")
            .field("waiting", &self.node.is_some())
            .finish_non_exhaustive()
    }
}
