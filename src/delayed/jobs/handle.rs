//! The handle that submits jobs.

use std::any::type_name;
use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use super::callable::{Argument, Callable, Portable};
use super::job_group::JobGroup;
use super::options::Options;
use super::place::Place;
use super::pool::Pool;
use super::record::Record;
use super::run::{Job, run_job};
use super::running::{held_here, run_as, run_future};
use super::statistics::Statistics;
use crate::delayed::learned::TimeLimit;
use crate::delayed::value::Delayed;
use crate::delayed::value::awaiter::JobId;
use crate::delayed::value::promise::pending;
use crate::resource::{Cores, Request, ZERO};
use crate::task::Spawner;
use crate::transport::job::code::assert_captures_nothing;
use crate::worker::WorkerContext;

/// A handle on a block of jobs, given to the body of [`open`](crate::delayed::open()).
///
/// [`call`](Self::call) submits a job for a worker process, [`spawn`](Self::spawn) a future of this
/// process; both return a [`Delayed`] value at once. The jobs wait for their resources in one
/// queue, first come, first served. [`on`](Self::on), [`retry`](Self::retry) and the other options
/// return a new handle, and change nothing else. Cloning is cheap.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Cores, Jobs, Memory, Resources, open};
///
/// fn simulate(seed: u64, steps: u32) -> u64 {
///     (0..steps).fold(seed, |state, _| state.wrapping_mul(31) + 1)
/// }
///
/// async fn body(jobs: Jobs<'_>) -> u64 {
///     let narrow = jobs.on(Cores(1) & Memory::mib(256)).retry(1);
///     let simulate = |seed| narrow.call(simulate, (seed, 3));
///     (simulate(1) + simulate(2) * 2).await.unwrap()
/// }
///
/// fn main() {
///     let total = seedbed::run(async { open(Resources::local(), body).await });
///     assert_eq!(total, 30784 + 2 * 60575);
/// }
/// ```
#[derive(Clone)]
pub struct Jobs<'env> {
    pub(super) spawner: Spawner<'env>,
    pub(super) pool: Arc<Pool>,
    pub(super) options: Arc<Options>,
}

impl<'env> Jobs<'env> {
    pub(super) fn new(spawner: Spawner<'env>, pool: Arc<Pool>) -> Self {
        let held_around: Arc<[_]> = held_here(&pool).into();
        let options = Options {
            of_call: Arc::new(pool.check(Cores(1).into(), &held_around)),
            of_future: Arc::new(pool.check(ZERO, &held_around)),
            retry: 0,
            time_limit: None,
            memory: None,
            kill_on_cancel: true,
            is_prioritized: pool.is_prioritized,
            workers: None,
            held_around,
            block: None,
            place: None,
            cache_key: None,
        };
        Self {
            spawner,
            pool,
            options: Arc::new(options),
        }
    }

    pub(super) fn with(&self, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::clone(&self.options);
        change(&mut options);
        Self {
            spawner: self.spawner.clone(),
            pool: self.pool.clone(),
            options: Arc::new(options),
        }
    }

    /// Returns a handle whose jobs have this place of a limit.
    pub(super) fn at_place(&self, place: Place) -> Self {
        self.with(|options| options.place = Some(Arc::new(place)))
    }

    /// Returns a handle whose jobs belong to a block within another one.
    pub(super) fn of_block(&self, jobs: &Arc<JobGroup>) -> Self {
        self.with(|options| options.block = Some(jobs.clone()))
    }

    /// Counts a job that is submitted.
    pub(super) fn record(&self, job: JobId, name: &'static str) -> Record {
        Record::new(&self.pool, &self.options, job, name)
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Sets the resources of each job. Without this, a call has one core, and a future nothing.
    ///
    /// The job's worker is pinned to its cores, and its memory is limited. A job that can never
    /// have what it asks for is an error at once, of the kind
    /// [`Impossible`](crate::delayed::JobErrorKind::Impossible). [`ZERO`] asks for nothing: calls
    /// then share the workers and the limiter of plain [`run_sync`](crate::run_sync()).
    ///
    /// # Waiting with resources
    ///
    /// A future that holds resources may await other jobs. If such a job cannot start before the
    /// future has ended, the await is an error of the kind
    /// [`Deadlock`](crate::delayed::JobErrorKind::Deadlock): at once, if the job does not fit next
    /// to what the future holds; otherwise when all jobs with resources wait for others in this
    /// way. The future can then give its resources back by ending.
    ///
    /// The library knows the awaits of delayed values, however they are computed: those of the
    /// future itself, of the scopes, nurseries and blocks that it opens, and of other futures of
    /// the block that it awaits. It also knows the waits for the end of a [block](Self::open)
    /// within the future, and for a [place](crate::delayed::Limited::ready) in a limit; they have
    /// no error to return, so a job that they wait for gets it.
    ///
    /// Such a wait counts also if it has a time limit, or is one of several in a `join!` or a
    /// `select!`, because the library cannot tell whether something else would end it. So the
    /// future of a `select!` may get the error although another branch is about to end, unless that
    /// branch waits for a value that is there already. (A future that keeps such a branch and never
    /// polls it again counts as running, so its other waits are not found to have no end.)
    ///
    /// These waits are not known:
    ///
    /// * for an event, a lock, a limiter, a channel, or a process, because nothing says which job
    ///   would end them;
    /// * for a [`Task`](crate::Task) of a nursery that was opened outside of the future, because
    ///   its awaits belong to the place where that nursery was opened;
    /// * in a task of another executor, or in a thread, because no job is around it;
    /// * for a job of a block with resources of its own, which waits for this block in turn,
    ///   because each block knows its own queue only.
    ///
    /// While such a wait lasts, [`statistics`](Self::statistics) says which job the queue waits
    /// with, and which jobs have what that needs; and the [task tree](crate::nursery::task_tree)
    /// says what each task waits for.
    ///
    /// ```
    /// use seedbed::delayed::{Cores, JobErrorKind, Resources, open};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::none().cores([0]), async |jobs| {
    ///         let error = jobs.on(Cores(2)).call(i32::abs, -3).await.unwrap_err();
    ///         assert_eq!(error.kind(), JobErrorKind::Impossible);
    ///         assert!(error.to_string().contains("asks for 2 cores"));
    ///     }));
    /// }
    /// ```
    pub fn on(&self, request: impl Into<Request>) -> Self {
        let held = &self.options.held_around;
        let checked = Arc::new(self.pool.check(request.into(), held));
        self.with(|options| {
            options.of_call = checked.clone();
            options.of_future = checked;
        })
    }

    /// Sets how often a job is run again after its worker has ended with it
    /// ([`Broken`](crate::worker::WorkerErrorKind::Broken)). It keeps its resources in between. The
    /// default is 0, as a job that is run twice may do its work twice.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn crash(code: i32) {
    ///     std::process::exit(code)
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let error = jobs.retry(2).call(crash, 5).await.unwrap_err();
    ///         assert_eq!(error.attempts(), 3);
    ///     }));
    /// }
    /// ```
    pub fn retry(&self, times: u32) -> Self {
        self.with(|options| options.retry = times)
    }

    /// Limits the time of each attempt of a job, from the hand-over to a worker; see
    /// [`RunSync::time_limit`](crate::worker::RunSync::time_limit). A future is limited from the
    /// moment at which it has its resources, by the run's clock. The limit is a duration, or is
    /// [`Learned`](crate::delayed::Learned) from earlier jobs.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::delayed::{JobErrorKind, Resources, open};
    ///
    /// fn spin(_: ()) {
    ///     loop {
    ///         std::hint::spin_loop();
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let brief = jobs.time_limit(Duration::from_millis(50));
    ///         let error = brief.call(spin, ()).await.unwrap_err();
    ///         assert_eq!(error.kind(), JobErrorKind::TimedOut); // and no process is left
    ///     }));
    /// }
    /// ```
    #[doc(alias = "timeout")]
    pub fn time_limit(&self, limit: impl Into<TimeLimit>) -> Self {
        let limit = self.learned_limit(limit.into());
        self.with(|options| options.time_limit = Some(limit))
    }

    /// Sets whether cancelling the block kills running jobs. By default it does, because nothing
    /// can see their results. (For a plain [`run_sync`](crate::run_sync()), the default is the
    /// opposite.)
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let patient = jobs.kill_on_cancel(false);
    ///         assert_eq!(patient.call(i32::abs, -3).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn kill_on_cancel(&self, kill: bool) -> Self {
        self.with(|options| options.kill_on_cancel = kill)
    }

    /// Puts the jobs before all that are not prioritised. While the first prioritised job waits for
    /// its resources, no other job starts.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         assert_eq!(jobs.prioritized().call(i32::abs, -3).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn prioritized(&self) -> Self {
        self.with(|options| options.is_prioritized = true)
    }

    /// Sets the workers that run the jobs. By default, a job with cores or memory runs in workers
    /// of the block, which have the [configuration](crate::WorkerConfig) of the current context,
    /// and other jobs in the current context.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn variable(name: String) -> Option<String> {
    ///     std::env::var(name).ok()
    /// }
    ///
    /// fn main() {
    ///     let config = WorkerConfig::new().env("COLOUR", "green");
    ///     seedbed::run(open_worker_context(config, async |workers| {
    ///         open(Resources::local(), async |jobs| {
    ///             let colour = jobs.workers(&workers).call(variable, "COLOUR".to_owned());
    ///             assert_eq!(colour.await.unwrap().as_deref(), Some("green"));
    ///         })
    ///         .await
    ///     }));
    /// }
    /// ```
    pub fn workers(&self, context: &WorkerContext) -> Self {
        self.with(|options| options.workers = Some(context.clone()))
    }

    /// Submits a job: a function that a worker process calls when the job's resources are free.
    ///
    /// `f` is a plain function, or a closure that captures nothing. Several arguments are a tuple.
    /// The job's panic, and any error of the call, are the error of the value. Dropping the value
    /// does not cancel the job; the block waits for it.
    ///
    /// # Panics
    ///
    /// If the block has ended.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn add(a: f64, b: f64) -> f64 {
    ///     a + b
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let sum = jobs.call(add, (1.0, 2.0)) * 2.0;
    ///         assert_eq!(sum.await.unwrap(), 6.0);
    ///     }));
    /// }
    /// ```
    #[track_caller]
    #[doc(alias = "submit")]
    pub fn call<F, A, M>(&self, f: F, argument: impl Argument<A>) -> Delayed<F::Value>
    where
        F: Callable<A, M>,
        A: Portable,
        F::Value: Portable,
    {
        const { assert_captures_nothing::<F>() };
        let name = type_name::<F>();
        let (promise, value) = pending(name);
        let key = self.claim_cache_key::<F>();
        let record = self.record(promise.job(), name);
        if let Some(key) = key {
            let (jobs, job) = (self.clone(), promise.job());
            let argument = argument.into_argument();
            self.spawner.spawn(async move {
                let cached = jobs.run_cached::<F, A, M>(key, record, (job, f, argument));
                promise.settle_job(cached.await);
            });
            return value;
        }
        match self.enqueue(promise.job(), name, &self.demand_of_call()) {
            Err(error) => promise.settle_job(record.fail(error)),
            Ok(ticket) => {
                let job = Job {
                    f,
                    argument: argument.into_argument(),
                    ticket,
                };
                let (pool, options) = (self.pool.clone(), self.options.clone());
                self.spawner.spawn(async move {
                    let ended = run_job::<F, A, M>(job, record, pool, options);
                    promise.settle_job(ended.await);
                });
            }
        }
        value
    }

    /// Submits a job when a delayed value is there, which is its argument. The job enters the queue
    /// at that moment. An error of the value is that of the job.
    ///
    /// # Panics
    ///
    /// If the block has ended.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, each, open};
    ///
    /// fn sum(values: Vec<i32>) -> i32 {
    ///     values.iter().sum()
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let values = each(vec![jobs.call(i32::abs, -1), jobs.call(i32::abs, -2)]);
    ///         assert_eq!(jobs.then(values, sum).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    #[track_caller]
    pub fn then<F, A, M>(&self, value: impl Into<Delayed<A>>, f: F) -> Delayed<F::Value>
    where
        F: Callable<A, M>,
        A: Portable + Clone,
        F::Value: Portable,
    {
        const { assert_captures_nothing::<F>() };
        let name = type_name::<F>();
        let (promise, result) = pending(name);
        let (jobs, value) = (self.clone(), value.into());
        let record = self.record(promise.job(), name);
        promise.set_argument(&value);
        let key = self.claim_cache_key::<F>();
        self.spawner.spawn(async move {
            let (job, pool) = (promise.job(), &jobs.pool);
            let computed = run_as(job, pool, None, value.computed()).await;
            promise.forget_argument();
            let argument = match computed.and_then(Delayed::into_result) {
                Ok(argument) => argument,
                Err(error) => return promise.settle_job(record.fail(error)),
            };
            let job = (job, f, argument);
            promise.settle_job(match key {
                Some(key) => jobs.run_cached::<F, A, M>(key, record, job).await,
                None => jobs.run_call::<F, A, M>(record, job).await,
            });
        });
        result
    }

    /// Submits a future, which runs in this block when its resources are free. It may borrow what
    /// outlives the block.
    ///
    /// A panic of the future ends the block, as in a nursery. (A panic of a job in a worker is an
    /// error of its value.)
    ///
    /// # Panics
    ///
    /// If the block has ended.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// async fn price(of: &str) -> f64 {
    ///     of.len() as f64
    /// }
    ///
    /// fn main() {
    ///     let name = "apple".to_owned();
    ///     let name = &name;
    ///     seedbed::run(open(Resources::local(), async move |jobs| {
    ///         let total = jobs.spawn(price(name)) * 2.0;
    ///         assert_eq!(total.await.unwrap(), 10.0);
    ///     }));
    /// }
    /// ```
    #[track_caller]
    pub fn spawn<Fut>(&self, future: Fut) -> Delayed<Fut::Output>
    where
        Fut: IntoFuture<IntoFuture: Send + 'env> + Send + 'env,
        Fut::Output: Send + Sync + 'static,
    {
        let name = type_name::<Fut>();
        let (promise, value) = pending(name);
        let job = promise.job();
        let mut record = self.record(job, name);
        match self.enqueue(job, name, &self.demand(&self.options.of_future)) {
            Err(error) => promise.settle_job(record.fail(error)),
            Ok(ticket) => {
                let future = future.into_future();
                let (pool, options) = (self.pool.clone(), self.options.clone());
                self.spawner.spawn(async move {
                    let result = run_future(job, future, ticket, &pool, &options, &mut record);
                    let result = result.await;
                    promise.settle_job(record.end(result));
                });
            }
        }
        value
    }

    /// Returns what the block does now, what the first job in the queue waits for and which jobs
    /// have that, and what the jobs that have ended have cost. [`Delayed::statistics`] has the same
    /// for one job.
    ///
    /// ```
    /// use seedbed::delayed::{Cores, Resources, open};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::none().cores([0]), async |jobs| {
    ///         let one = jobs.on(Cores(1));
    ///         let both = one.spawn(async { 1 }) + one.spawn(async { 2 });
    ///         assert_eq!((jobs.statistics().running, jobs.statistics().queued), (1, 1));
    ///         let line = jobs.statistics().to_string();
    ///         assert!(line.contains("waits for 1 core, and there is 0 of `cores`"), "{line}");
    ///         assert!(line.ends_with("has cores 0"), "{line}");
    ///         assert_eq!(both.await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn statistics(&self) -> Statistics {
        self.pool.statistics()
    }
}

impl fmt::Debug for Jobs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
