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

use std::future::{Future, pending};

pub use block::Block;
pub use error::NurseryClosed;
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

/// Opens a nursery whose children serve the body: when it is cancelled, the body ends first, and the children, out of
/// reach until then, are cancelled once it has.
///
/// So the body can use them in its clean-up: a connection whose pump still runs can say goodbye. It does not matter who
/// cancels: a scope around, [`terminate`](Nursery::terminate), or a child that panics. Everything else is as with
/// [`open_nursery`]: a body that returns is followed by waiting for the children, or with [`Block::daemon`] by
/// cancelling them; and [`Task::cancel`] ends one child at any time. (This is tricycle's `open_service_nursery`.)
///
/// A child that is being [started](Nursery::start) is cancelled with whoever starts it, and shielded as soon as it has
/// started.
///
/// # Cancellation
///
/// When a scope around it is cancelled, the body is dropped where it waits, or as soon as an active shield in it has
/// ended; then the children in the same way; then the block is dropped by that scope. Dropping the block from outside
/// drops the body, then the children, at once.
///
/// # Panics
///
/// With the panic of the body or of a child.
///
/// ```
/// use std::time::Duration;
/// use seedbed::{move_on_after, on_cancel, open_service_nursery, run, sleep_forever, sync::channel};
///
/// run(async {
///     let (send, receive) = channel(0);
///     let heard = &std::sync::Mutex::new(Vec::new());
///     let session = open_service_nursery(|n| async move {
///         let pump = n.spawn(async move {
///             while let Ok(word) = receive.receive().await {
///                 heard.lock().unwrap().push(word);
///             }
///         });
///         send.send("hello").await.unwrap();
///         on_cancel(sleep_forever(), async {
///             send.send("goodbye").await.unwrap();
///             send.close();
///             pump.await // it is still there
///         })
///         .await;
///     });
///     assert_eq!(move_on_after(Duration::from_millis(1), session).await, None);
///     assert_eq!(*heard.lock().unwrap(), ["hello", "goodbye"]);
/// });
/// ```
pub fn open_service_nursery<'env, R, F, Fut>(body: F) -> Block<Nursery<'env, R>, R, F, Fut>
where
    F: FnOnce(Nursery<'env, R>) -> Fut,
    Fut: Future<Output = R>,
{
    Block::new(body).service()
}

/// Opens a service nursery whose block may fail: [`open_service_nursery`] and [`try_open_nursery`] in one.
///
/// # Cancellation
///
/// As [`open_service_nursery`]. The first error of a child cancels the body first, too.
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
/// use seedbed::{run, sleep_forever, try_open_service_nursery};
///
/// run(async {
///     let result: Result<(), &str> = try_open_service_nursery(|n| async move {
///         n.try_spawn(async { Err::<(), _>("the service broke") });
///         sleep_forever().await;
///         Ok(())
///     })
///     .await;
///     assert_eq!(result, Err("the service broke"));
/// });
/// ```
pub fn try_open_service_nursery<'env, R, E, F, Fut>(
    body: F,
) -> impl Future<Output = Result<R, E>> + use<'env, R, E, F, Fut>
where
    F: FnOnce(Nursery<'env, Result<R, E>>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    open_service_nursery(|n: Nursery<'env, Result<R, E>>| {
        let body = body(n.clone());
        or_fail(body, move |error| n.fail_body(error))
    })
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
