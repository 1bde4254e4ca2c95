//! One job, from its turn to its result.

use std::sync::Arc;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};

use super::callable::{Callable, Portable};
use super::demand;
use super::in_worker::{Surroundings, run_with};
use super::options::Options;
use super::pool::Pool;
use super::record::{Ended, Record};
use super::ticket::{Grant, Ticket};
use crate::delayed::error::JobError;
use crate::delayed::job_statistics::JobStatistics;
use crate::resource::Allocation;
use crate::time::current_time;
use crate::worker::{ExitCause, RunSync, WorkerContext, WorkerError, WorkerErrorKind, run_sync};

/// The argument of a job, which is kept for the next attempt. It is encoded as an `A`.
struct Kept<A>(Arc<A>);

impl<A: Serialize> Serialize for Kept<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, A: Deserialize<'de>> Deserialize<'de> for Kept<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        A::deserialize(deserializer).map(|argument| Self(Arc::new(argument)))
    }
}

impl<A> Kept<A> {
    fn into_inner(self) -> A {
        Arc::into_inner(self.0).unwrap_or_else(|| unreachable!("a worker has one handle"))
    }
}

/// A job that waits for its turn, and its function.
pub(super) struct Job<F, A> {
    pub(super) f: F,
    pub(super) argument: A,
    /// `None` if the job asks for nothing.
    pub(super) ticket: Option<Ticket>,
}

/// Waits for the resources of a job, and runs it until it has a result or no attempt is left.
/// Returns what it has cost, too.
pub(super) async fn run_job<F, A, M>(
    job: Job<F, A>,
    mut record: Record,
    pool: Arc<Pool>,
    options: Arc<Options>,
) -> Ended<F::Value>
where
    F: Callable<A, M>,
    A: Portable,
    F::Value: Portable,
{
    let result = run_attempts(job, &pool, &options, &mut record).await;
    record.end(result, &options)
}

async fn run_attempts<F, A, M>(
    job: Job<F, A>,
    pool: &Arc<Pool>,
    options: &Options,
    record: &mut Record,
) -> Result<F::Value, JobError>
where
    F: Callable<A, M>,
    A: Portable,
    F::Value: Portable,
{
    let name = record.name();
    let mut grant = record.begin(job.ticket).await?;
    let cost = &mut record.cost;
    let mut workers = choose_workers(pool, options, grant.as_ref());
    let argument = Arc::new(job.argument);
    for attempt in 1.. {
        let surroundings = grant.as_ref().map(|grant| Surroundings {
            allocation: Allocation::clone(&grant.allocation),
            is_shared: workers.is_shared,
        });
        let mut call = call(
            &workers.context,
            job.f,
            surroundings,
            Kept(argument.clone()),
        )
        .named_after::<F>()
        .kill_on_cancel(options.kill_on_cancel);
        if workers.is_unlimited {
            call = call.limiter(&pool.unlimited);
        }
        if let Some(limit) = options.time_limit_now() {
            call = call.time_limit(limit);
        }
        cost.attempts = attempt;
        let begun = current_time();
        let called = call.await;
        cost.wall = current_time().saturating_duration_since(begun);
        match called {
            Ok((value, of_worker)) => {
                *cost = JobStatistics {
                    queued: cost.queued,
                    attempts: attempt,
                    ..of_worker
                };
                return Ok(value);
            }
            Err(error) if is_out_of_memory(&error) && options.memory.is_some() => {
                let more = |held: &Grant| {
                    let all = demand::of_second_run(pool, options, &held.allocation)?;
                    Some((held.job(), all))
                };
                let Some((id, all)) = grant.as_ref().and_then(more) else {
                    return Err(JobError::of_worker(name, attempt, error));
                };
                drop(grant.take()); // or the new request would wait for it
                let granted = match Ticket::submit(pool, (id, name), &all, true) {
                    Ok(Some(ticket)) => ticket.granted(&mut cost.queued).await.map(Some),
                    Ok(None) => Ok(None),
                    Err(reason) => Err(reason),
                };
                grant = granted.map_err(|reason| {
                    let reason =
                        format!("it ran out of its memory, and to run once more, {reason}");
                    JobError::impossible(name, attempt, reason)
                })?;
                workers = choose_workers(pool, options, grant.as_ref());
            }
            Err(error) if error.kind() == WorkerErrorKind::Broken && attempt <= options.retry => {}
            Err(error) => return Err(JobError::of_worker(name, attempt, error)),
        }
    }
    unreachable!("the last attempt returns")
}

fn is_out_of_memory(error: &WorkerError) -> bool {
    let exit = error.exit();
    exit.is_some_and(|exit| exit.cause() == ExitCause::OutOfMemory)
}

/// The call of a job, which returns its result and what it has cost in the worker.
type Call<A, R> = RunSync<(Option<Surroundings>, Kept<A>), (R, JobStatistics)>;

fn call<F, A, M>(
    context: &Option<WorkerContext>,
    f: F,
    surroundings: Option<Surroundings>,
    argument: Kept<A>,
) -> Call<A, F::Value>
where
    F: Callable<A, M>,
    A: Portable,
    F::Value: Portable,
{
    // Captures `f`, which has no size, so that this closure has none.
    let job = move |(surroundings, argument): (Option<Surroundings>, Kept<A>)| {
        run_with(surroundings, || f.apply(argument.into_inner()))
    };
    match context {
        Some(context) => context.run_sync(job, (surroundings, argument)),
        None => run_sync(job, (surroundings, argument)),
    }
}

/// The workers of a job.
struct Workers {
    /// `None` for the current context.
    context: Option<WorkerContext>,
    /// Whether other calls use them, too.
    is_shared: bool,
    /// Whether the job's resources limit the number of its calls, and no other limiter does.
    is_unlimited: bool,
}

/// A job that is pinned or limited runs in a worker of the block that had as many cores before: a
/// library that has made a thread pool of two threads would not make one of four.
fn choose_workers(pool: &Pool, options: &Options, grant: Option<&Grant>) -> Workers {
    let cores = grant.map_or(0, |grant| grant.allocation.cores().len());
    let is_limited = grant.is_some_and(|grant| grant.allocation.memory().is_some());
    let of_block = options.workers.is_none() && (cores > 0 || is_limited);
    Workers {
        context: if of_block {
            Some(pool.workers.get(cores))
        } else {
            options.workers.clone()
        },
        is_shared: !of_block,
        is_unlimited: cores > 0 || is_limited,
    }
}
