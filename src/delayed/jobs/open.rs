//! The blocks of jobs.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use super::block_end::BlockEnd;
use super::handle::Jobs;
use super::pool::Pool;
use crate::cancel::{on_cancel, shield};
use crate::delayed::executor::{Executor, Local};
use crate::delayed::setup::Setup;
use crate::task::{Nursery, open_nursery, try_open_nursery};

/// Opens a block of jobs that share resources, and runs `body` with a handle on it.
///
/// The block is a nursery: it ends when the body and all jobs have ended, and returns the body's
/// value. At its end, its workers are shut down. A [`Delayed`](crate::delayed::Delayed) value may
/// leave it; the jobs below such a value have ended.
///
/// # Cancellation
///
/// When a scope around the block is cancelled, the body and the waiting jobs are dropped, and the
/// workers of running jobs are killed and reaped, unless
/// [`kill_on_cancel`](crate::delayed::Jobs::kill_on_cancel) is false. Values of jobs that have no
/// result are [`Cancelled`](crate::delayed::JobErrorKind::Cancelled).
///
/// # Panics
///
/// With the panic of the body or of a spawned future.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Cores, Resources, allocation, open};
///
/// fn cores(_: ()) -> usize {
///     assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
///     allocation().unwrap().cores().len()
/// }
///
/// fn main() {
///     seedbed::run(open(Resources::local(), async |jobs| {
///         let two = jobs.on(Cores(1)).call(cores, ()) + jobs.call(cores, ());
///         assert_eq!(two.await.unwrap(), 2);
///     }));
/// }
/// ```
#[doc(alias = "open_waitgroup")]
pub fn open<'env, R, F, Fut>(setup: impl Into<Setup>, body: F) -> impl Future<Output = R>
where
    F: FnOnce(Jobs<'env>) -> Fut,
    Fut: Future<Output = R>,
{
    let setup = setup.into();
    let executor = Arc::new(Local::new(setup.clone()));
    open_on(executor, setup, body)
}

/// Opens a block whose calls are executed by `executor`.
pub(super) fn open_on<'env, R, F, Fut>(
    executor: Arc<dyn Executor>,
    setup: Setup,
    body: F,
) -> impl Future<Output = R>
where
    F: FnOnce(Jobs<'env>) -> Fut,
    Fut: Future<Output = R>,
{
    let end = End::default();
    let (of_block, pool) = (executor.clone(), end.pool.clone());
    let block = open_nursery(move |n: Nursery<'env, R>| {
        let pool = pool.get_or_init(|| Arc::new(Pool::new(&setup, of_block)));
        body(Jobs::new(n.spawner(), pool.clone()))
    });
    within(executor, end, block)
}

/// Opens a block of jobs whose body can fail. An `Err` of the body cancels the jobs; in everything
/// else, the block is like that of [`open`].
///
/// # Cancellation
///
/// When a scope around the block is cancelled, the body and the waiting jobs are dropped, and the
/// workers of running jobs are killed and reaped.
///
/// # Errors
///
/// The error of the body.
///
/// # Panics
///
/// With the panic of the body or of a spawned future.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{JobError, Resources, try_open};
///
/// fn main() {
///     let sum: Result<i32, JobError> = seedbed::run(try_open(Resources::local(), async |jobs| {
///         let sum = jobs.call(i32::abs, -1) + jobs.call(i32::abs, -2);
///         Ok(sum.await?)
///     }));
///     assert_eq!(sum.unwrap(), 3);
/// }
/// ```
pub fn try_open<'env, T, E, F, Fut>(
    setup: impl Into<Setup>,
    body: F,
) -> impl Future<Output = Result<T, E>>
where
    F: FnOnce(Jobs<'env>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let setup = setup.into();
    let executor: Arc<dyn Executor> = Arc::new(Local::new(setup.clone()));
    let end = End::default();
    let (of_block, pool) = (executor.clone(), end.pool.clone());
    let block = try_open_nursery(move |n: Nursery<'env, Result<T, E>>| {
        let pool = pool.get_or_init(|| Arc::new(Pool::new(&setup, of_block)));
        body(Jobs::new(n.spawner(), pool.clone()))
    });
    within(executor, end, block)
}

/// Runs a block, and ends what its executor has begun. Its parameter is the whole type of the
/// block, so that the compiler sees without knowing `'env` that this future is `Send`.
async fn within<B: Future>(executor: Arc<dyn Executor>, end: End, block: B) -> B::Output {
    let value = on_cancel(block, executor.end()).quiet().await;
    shield(executor.end()).quiet().await;
    drop(end);
    value
}

/// Closes the pool of a block when dropped.
#[derive(Default)]
struct End {
    /// Set when the block begins.
    pool: Arc<OnceLock<Arc<Pool>>>,
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.get() {
            pool.close();
        }
    }
}

impl Jobs<'_> {
    /// Opens a block within this one, whose jobs share the same resources and the same queue. A
    /// function that makes jobs of its own uses it to end with all of them.
    ///
    /// # Cancellation
    ///
    /// When a scope around the block is cancelled, its jobs are cancelled as by [`open`].
    ///
    /// # Panics
    ///
    /// With the panic of the body or of a spawned future.
    ///
    /// ```
    /// use seedbed::delayed::{Jobs, Resources, open};
    ///
    /// async fn distance(jobs: &Jobs<'_>, a: i32, b: i32) -> i32 {
    ///     jobs.open(async |jobs| jobs.call(i32::abs_diff, (a, b)).await.unwrap() as i32).await
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         assert_eq!(distance(&jobs, 3, 5).await, 2);
    ///     }));
    /// }
    /// ```
    pub fn open<'sub, R, F, Fut>(&self, body: F) -> impl Future<Output = R> + use<'sub, R, F, Fut>
    where
        F: FnOnce(Jobs<'sub>) -> Fut,
        Fut: Future<Output = R>,
    {
        let (pool, end) = (self.pool().clone(), BlockEnd::default());
        let of_block = end.clone();
        let block = open_nursery(move |n: Nursery<'sub, R>| {
            let jobs = Jobs::new(n.spawner(), pool).of_block(&of_block.jobs);
            of_block.after(body(jobs))
        });
        end.of(block)
    }
}
