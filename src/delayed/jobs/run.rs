//! One call, from its turn to its result.

use std::sync::Arc;

use super::callable::{Callable, Portable};
use super::demand;
use super::options::Options;
use super::pool::Pool;
use super::record::{Ended, Record};
use super::state::Refusal;
use super::ticket::{Grant, Ticket};
use crate::delayed::error::JobError;
use crate::delayed::executor::{Attempt, Call, Called};
use crate::delayed::job_statistics::JobStatistics;
use crate::time::current_time;
use crate::worker::{Answer, ExitCause, WorkerError, WorkerErrorKind};

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
    let Job {
        f,
        argument,
        ticket,
    } = job;
    let call = Arc::new(Called::new::<F, F::Value>(
        move |argument| f.apply(argument),
        argument,
    ));
    let mut value = None;
    let mut decode = |answer: Answer| {
        let (decoded, cost) = answer.decode()?;
        value = Some(decoded);
        Ok(cost)
    };
    let ended = run_attempts(call, ticket, &pool, &options, &mut record, &mut decode).await;
    let result = match (ended, value) {
        (Ok(()), Some(value)) => Ok(value),
        (Err(error), _) => Err(error),
        (Ok(()), None) => unreachable!("the attempt that succeeded has decoded the value"),
    };
    record.end(result)
}

/// Decodes the result of a call and keeps it. Returns what the call has cost.
type Decode<'a> = &'a mut (dyn FnMut(Answer) -> Result<JobStatistics, WorkerError> + Send);

/// Makes attempts until one succeeds. This is the same code for calls of all types.
async fn run_attempts(
    call: Arc<dyn Call>,
    ticket: Option<Ticket>,
    pool: &Arc<Pool>,
    options: &Options,
    record: &mut Record,
    decode: Decode<'_>,
) -> Result<(), JobError> {
    let name = record.name();
    let mut grant = record.begin(ticket).await?;
    let cost = &mut record.cost;
    for attempt in 1.. {
        cost.attempts = attempt;
        let begun = current_time();
        let answer = pool.executor.run(Attempt {
            call: call.clone(),
            allocation: grant.as_ref().map(|grant| grant.allocation.clone()),
            context: options.workers.clone(),
            kill_on_cancel: options.kill_on_cancel,
            time_limit: options.time_limit_now(),
        });
        let ended = answer.await.and_then(&mut *decode);
        cost.wall = current_time().saturating_duration_since(begun);
        match ended {
            Ok(of_worker) => {
                *cost = JobStatistics {
                    queued: cost.queued,
                    attempts: attempt,
                    ..of_worker
                };
                return Ok(());
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
                    Err(reason) => Err(Refusal::Impossible(reason)),
                };
                grant = granted.map_err(|refusal| {
                    let refusal = refusal.after("it ran out of its memory, and to run once more, ");
                    refusal.into_error(name, attempt)
                })?;
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
