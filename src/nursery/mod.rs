//! Nurseries: blocks that own the tasks which are started in them.
//!
//! The children are polled inside the block's own future ([`block`]), so they may borrow what outlives the block, and
//! dropping the block drops them. They interleave; they do not run in parallel. Each child is one allocation
//! ([`child`]); which of them are ready is a lock-free stack ([`ready`]); what a block does with its children when it is
//! cancelled or somebody panics is in [`owner`], and who decides what the block returns in [`outcome`]. Who may look at a
//! block's children while it works with them is in [`roster`], in which task a thread is in [`place`]; on these stand the
//! names and numbers of [`info`], and the whole [`tree`].

mod block;
mod child;
mod error;
mod handle;
mod info;
#[cfg(all(test, loom))]
mod loom_tests;
mod outcome;
mod owner;
mod place;
mod ready;
mod remote;
mod roster;
mod start;
mod task;
mod tree;

use std::future::{Future, pending};

pub use block::Block;
pub use error::NurseryClosed;
pub use handle::{LocalNursery, Nursery, Spawner, TrySpawned};
pub use info::{NurseryInfo, TaskId, TaskInfo, current_root_task, current_task};
pub use remote::{ChildExecutor, OnExecutor, RemoteChild, on_executor};
pub use start::{StartError, Started};
pub use task::Task;
pub use tree::{TaskTree, task_tree, task_trees};

pub(crate) use info::RootTask;

/// Opens a nursery: a block that ends when everything that was started in it has ended.
///
/// `body` gets a [`Nursery`] handle, with which it, its children, and whoever else it is given to, start children. The
/// block waits for the body and for every child, then returns the body's value; or, if somebody ended the block early,
/// the value given to [`terminate`](Nursery::terminate).
///
/// Both `|n| async move { .. }` and `async |n| { .. }` work; the latter borrows without `move`. Children may borrow
/// what outlives the block, but not the body's own variables.
///
/// If the body or a child panics, the others are cancelled, and once all have ended the panic goes on in the parent.
///
/// # Cancellation
///
/// When a scope around it is cancelled, the body and all children are dropped where they wait, those with an active
/// shield as soon as that has ended; then the block is dropped by that scope. Ending is not a cancel point: a block
/// whose body and children end without waiting returns its value. Dropping the block from outside drops all of them at
/// once; no child can outlive it.
///
/// # Panics
///
/// With the panic of the body or of a child.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
/// use seedbed::{open_nursery, run};
///
/// run(async {
///     let paths = ["a", "bb", "ccc"];
///     let (paths, total) = (&paths, &AtomicUsize::new(0));
///     open_nursery(|n| async move {
///         for path in paths {
///             n.spawn(async move { total.fetch_add(path.len(), Relaxed) });
///         }
///     })
///     .await; // nothing that was spawned is alive here
///     assert_eq!(total.load(Relaxed), 6);
/// });
/// ```
pub fn open_nursery<'env, R, F, Fut>(body: F) -> Block<Nursery<'env, R>, R, F, Fut>
where
    F: FnOnce(Nursery<'env, R>) -> Fut,
    Fut: Future<Output = R>,
{
    Block::new(body)
}

/// Opens a nursery whose children need not be `Send`. The block's future is not `Send` either.
///
/// # Cancellation
///
/// As [`open_nursery`].
///
/// # Panics
///
/// With the panic of the body or of a child.
///
/// ```
/// use std::rc::Rc;
/// use seedbed::{open_local_nursery, run};
///
/// run(async {
///     let shared = Rc::new(5);
///     let value = open_local_nursery(|n| async move { n.spawn(async move { *shared }).await });
///     assert_eq!(value.await, 5);
/// });
/// ```
pub fn open_local_nursery<'env, R, F, Fut>(body: F) -> Block<LocalNursery<'env, R>, R, F, Fut>
where
    F: FnOnce(LocalNursery<'env, R>) -> Fut,
    Fut: Future<Output = R>,
{
    Block::new(body)
}

/// Opens a nursery whose block may fail: the first error, of the body or of a child started with
/// [`try_spawn`](Nursery::try_spawn), cancels the rest and is the block's.
///
/// # Cancellation
///
/// As [`open_nursery`].
///
/// # Errors
///
/// The first that the body or a child returns. What fails later goes to [`Nursery::on_late_error`].
///
/// # Panics
///
/// With the panic of the body or of a child.
///
/// ```
/// use seedbed::{run, sleep_forever, try_open_nursery};
///
/// run(async {
///     let result: Result<(), &str> = try_open_nursery(|n| async move {
///         n.spawn(sleep_forever());
///         Err("the body fails, so the child is cancelled")?;
///         Ok(())
///     })
///     .await;
///     assert!(result.is_err());
/// });
/// ```
pub fn try_open_nursery<'env, R, E, F, Fut>(
    body: F,
) -> impl Future<Output = Result<R, E>> + use<'env, R, E, F, Fut>
where
    F: FnOnce(Nursery<'env, Result<R, E>>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    open_nursery(|n: Nursery<'env, Result<R, E>>| {
        let body = body(n.clone());
        or_fail(body, move |error| n.fail_body(error))
    })
}

/// Opens a nursery whose block may fail and whose children need not be `Send`: [`try_open_nursery`] and
/// [`open_local_nursery`] in one.
///
/// # Cancellation
///
/// As [`open_nursery`].
///
/// # Errors
///
/// As [`try_open_nursery`].
///
/// # Panics
///
/// With the panic of the body or of a child.
///
/// ```
/// use std::rc::Rc;
/// use seedbed::{run, try_open_local_nursery};
///
/// run(async {
///     let shared = Rc::new(5);
///     let result: Result<i32, ()> = try_open_local_nursery(|n| async move {
///         n.try_spawn(async move { Ok(*shared) }).await.ok_or(())
///     })
///     .await;
///     assert_eq!(result, Ok(5));
/// });
/// ```
pub fn try_open_local_nursery<'env, R, E, F, Fut>(
    body: F,
) -> impl Future<Output = Result<R, E>> + use<'env, R, E, F, Fut>
where
    F: FnOnce(LocalNursery<'env, Result<R, E>>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    open_local_nursery(|n: LocalNursery<'env, Result<R, E>>| {
        let body = body(n.clone());
        or_fail(body, move |error| n.fail_body(error))
    })
}

/// Runs the body of a block that may fail. `fail` gives the error back if it is the block's; if not, it comes too late,
/// and the block drops this.
async fn or_fail<R, E>(
    body: impl Future<Output = Result<R, E>>,
    fail: impl FnOnce(E) -> Option<E>,
) -> Result<R, E> {
    match body.await {
        Ok(value) => Ok(value),
        Err(error) => match fail(error) {
            Some(error) => Err(error),
            None => pending().await,
        },
    }
}
