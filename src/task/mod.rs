//! Nurseries: blocks that own the tasks which are started in them.
//!
//! The children are polled inside the block's own future ([`block`]), so they may borrow what outlives the block, and
//! dropping the block drops them. They interleave; they do not run in parallel. Each child is one allocation
//! ([`child`]); which of them are ready is a lock-free stack ([`ready`]); what a block does with its children when it is
//! cancelled or somebody panics is in [`owner`], and who decides what the block returns in [`outcome`]. A child that an
//! executor polls on other threads is, here, one that waits for it ([`remote`]).
//!
//! Who may look at a block's children while it works with them is in [`roster`], in which task a thread is in [`place`];
//! on these stand the names and numbers of [`info`], and the whole [`tree`].

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
pub(crate) mod shuffle;
mod start;
mod task_handle;
mod tree;

use std::future::Future;

use handle::check_body;

pub use block::Block;
pub use error::NurseryClosedError;
pub use handle::{LocalNursery, Nursery, Spawner, TrySpawned};
pub use info::{NurseryInfo, TaskId, TaskInfo, current_root_task, current_task};
pub use remote::{ChildExecutor, OnExecutor, RemoteChild, on_executor};
pub use start::{StartError, Started};
pub use task_handle::Task;
pub use tree::{TaskTree, task_tree, task_trees};

pub(crate) use info::RootTask;
pub(crate) use place::in_no_task;

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
pub fn open_nursery<'env, R, F, Fut>(body: F) -> Block<Nursery<'env, R>, F, Fut>
where
    F: FnOnce(Nursery<'env, R>) -> Fut,
    Fut: Future<Output = R>,
{
    Block::new(body, None)
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
pub fn open_local_nursery<'env, R, F, Fut>(body: F) -> Block<LocalNursery<'env, R>, F, Fut>
where
    F: FnOnce(LocalNursery<'env, R>) -> Fut,
    Fut: Future<Output = R>,
{
    Block::new(body, None)
}

/// Opens a nursery whose block can fail. The first error, of the body or of a child started with
/// [`try_spawn`](Nursery::try_spawn), cancels the rest, and the block returns it.
///
/// # Cancellation
///
/// The block does not end before all children have. Dropping it drops the body and all children.
///
/// # Errors
///
/// The first that the body or a child returns. Later errors go to [`Nursery::on_late_error`].
///
/// # Panics
///
/// With the panic of the body or of a child.
///
/// ```
/// use seedbed::time::sleep_forever;
/// use seedbed::{run, try_open_nursery};
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
pub fn try_open_nursery<'env, R, E, F, Fut>(body: F) -> Block<Nursery<'env, Result<R, E>>, F, Fut>
where
    F: FnOnce(Nursery<'env, Result<R, E>>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    Block::new(body, Some(check_body))
}

/// Opens a nursery whose block can fail and whose children need not be `Send`.
///
/// # Cancellation
///
/// The block does not end before all children have. Dropping it drops the body and all children.
///
/// # Errors
///
/// The first that the body or a child returns. Later errors go to [`LocalNursery::on_late_error`].
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
) -> Block<LocalNursery<'env, Result<R, E>>, F, Fut>
where
    F: FnOnce(LocalNursery<'env, Result<R, E>>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    Block::new(body, Some(check_body))
}
