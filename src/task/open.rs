//! The functions that open a nursery.

use std::future::Future;

use super::block::Block;
use super::nursery::{LocalNursery, Nursery};
use super::raw_handle::check_body;

/// Opens a nursery: a block that ends when every task that was spawned in it has ended.
///
/// `body` gets a [`Nursery`] handle, which spawns children. It may give clones of the handle to its
/// children and to other tasks. The block waits for the body and for every child, and returns the
/// body's value. If the block was ended early, it returns the value given to
/// [`terminate`](Nursery::terminate). [`service`](Block::service) and [`daemon`](Block::daemon)
/// change the order in which body and children end.
///
/// Both `|n| async move { .. }` and `async |n| { .. }` work. The latter borrows without `move`.
/// Children may borrow everything that outlives the block, but not the body's own variables.
///
/// If the body or a child panics, the others are cancelled. When all have ended, the block resumes
/// the panic. An error is a value like any other: with a `?` in the body, the block still waits for
/// all children. Use [`try_open_nursery`] there.
///
/// Nested blocks are polled on one stack: each level takes about 1 KiB, so a thread with 2 MiB of
/// stack has room for about 2,000 levels. The number of children in a block is not limited.
///
/// # Cancellation
///
/// When a scope around the block is cancelled, the body and all children are dropped where they
/// wait. A task with an active shield is dropped as soon as the shield has ended. Then that scope
/// drops the block. Ending is not a cancel point: a block whose body and children end without
/// waiting returns its value. Dropping the block from outside drops the body and all children at
/// once, so no child can outlive the block.
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
#[doc(alias = "JoinSet")]
#[doc(alias = "TaskGroup")]
#[doc(alias = "join_all")]
#[doc(alias = "coroutine_scope")]
pub fn open_nursery<'env, R, F, Fut>(body: F) -> Block<Nursery<'env, R>, F, Fut>
where
    F: FnOnce(Nursery<'env, R>) -> Fut,
    Fut: Future<Output = R>,
{
    Block::new(body, Nursery::new, None)
}

/// Opens a nursery whose children need not be `Send`. The block's future is not `Send` either.
///
/// In everything else the block is like that of [`open_nursery`].
///
/// # Cancellation
///
/// When a scope around the block is cancelled, the body and all children are dropped where they
/// wait, and then the block is.
///
/// # Panics
///
/// With the panic of the body or of a child.
///
/// ```
/// use std::rc::Rc;
/// use seedbed::nursery::open_local_nursery;
/// use seedbed::run;
///
/// run(async {
///     let shared = Rc::new(5);
///     let value = open_local_nursery(|n| async move { n.spawn(async move { *shared }).await });
///     assert_eq!(value.await, 5);
/// });
/// ```
#[doc(alias = "LocalSet")]
#[doc(alias = "spawn_local")]
pub fn open_local_nursery<'env, R, F, Fut>(body: F) -> Block<LocalNursery<'env, R>, F, Fut>
where
    F: FnOnce(LocalNursery<'env, R>) -> Fut,
    Fut: Future<Output = R>,
{
    Block::new(body, LocalNursery::new, None)
}

/// Opens a nursery whose block can fail. The first error, of the body or of a child started with
/// [`try_spawn`](Nursery::try_spawn), cancels the rest, and the block returns it.
///
/// # Cancellation
///
/// When a scope around the block is cancelled, the body and all children are dropped where they
/// wait, and then the block is.
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
#[doc(alias = "try_join_all")]
#[doc(alias = "ErrGroup")]
pub fn try_open_nursery<'env, R, E, F, Fut>(body: F) -> Block<Nursery<'env, Result<R, E>>, F, Fut>
where
    F: FnOnce(Nursery<'env, Result<R, E>>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    Block::new(body, Nursery::new, Some(check_body))
}

/// Opens a nursery whose block can fail and whose children need not be `Send`.
///
/// # Cancellation
///
/// When a scope around the block is cancelled, the body and all children are dropped where they
/// wait, and then the block is.
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
/// use seedbed::nursery::try_open_local_nursery;
/// use seedbed::run;
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
    Block::new(body, LocalNursery::new, Some(check_body))
}
