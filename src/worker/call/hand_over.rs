//! The hand-over of a job to a worker, the start of a worker, and its way back to the pool.

use std::mem;
use std::os::fd::AsFd;

use super::cancel_policy::CancelPolicy;
use crate::process::background;
use crate::sys::{credentials, fork_detector};
use crate::transport::codec;
use crate::transport::frame::Header;
use crate::transport::out_message::OutMessage;
use crate::worker::conn::worker::{Health, Worker};
use crate::worker::error::WorkerError;
use crate::worker::pool::call_guard::CallGuard;
use crate::worker::pool::worker_pool::WorkerPool;
use crate::worker::record::ExpectedWorker;
use crate::worker::spawn::forking::Forking;
use crate::worker::spawn::hook;
use crate::worker::spawn::launched::relay::Launching;
use crate::worker::spawn::launcher::{Launch, Spawning};
use crate::worker::spawn::start::Starting;

/// Gives a worker that has answered back to its pool, or lets it exit after its last job, and ends
/// the call.
pub(super) fn put_back(mut worker: Box<Worker>, answer: &Header, guard: CallGuard) {
    // An idle worker must not keep an argument, which may be large.
    if let Some(arena) = worker.take_back().into_arena(answer) {
        guard.put_arena(arena);
    }
    if worker.count_job() {
        guard.end_with(worker)
    } else {
        guard.drain_worker(worker)
    }
}

/// Hands the job to the first idle worker that can take it, beginning with `worker`. A worker that
/// exited because a retire closure panicked is an error.
pub(super) fn hand_to_idle(
    job: &mut OutMessage,
    mut worker: Option<Box<Worker>>,
    cancel_policy: CancelPolicy,
    guard: &mut CallGuard,
) -> Result<Option<Box<Worker>>, WorkerError> {
    let sent = argument_len(job);
    while let Some(mut candidate) = worker {
        if candidate.post_job(job) {
            guard.set_sent(sent);
            return Ok(Some(candidate));
        }
        match candidate.check_health() {
            Health::Fit => {
                guard.set_sent(sent);
                if cancel_policy.patience().is_some() {
                    candidate.hasten_mailbox(); // it may have been started ahead, and have had no job
                }
                candidate.put_job(mem::take(job));
                return Ok(Some(candidate));
            }
            Health::Exited => guard.drain_worker(candidate),
            Health::RetirePanicked(error) => {
                guard.drain_worker(candidate);
                return Err(error);
            }
        }
        worker = guard.take_worker();
    }
    Ok(None)
}

/// Returns the number of bytes of a job's encoded argument.
pub(super) fn argument_len(job: &OutMessage) -> usize {
    codec::encoded_len(job.payload(), job.fds().last().map(AsFd::as_fd))
}

/// Begins to start a worker.
pub(super) fn begin_start(
    pool: &WorkerPool,
) -> Result<(Box<Starting>, ExpectedWorker), WorkerError> {
    let config = &pool.config;
    config.check()?;
    let spec = hook::exec_spec(config.kind_of_workers())?;
    fork_detector::watch_for_forks();
    background::prepare().map_err(|error| WorkerError::start("its background thread", error))?;
    let expected = pool.counters.clone().expect();
    let fork_server = pool.fork_server.clone();
    let launcher = config.launcher_of_workers();
    let may_fork = launcher.is_none() && fork_server.may_fork(&spec);
    let early = may_fork.then(|| fork_server.request_early(&spec)).flatten();
    let credentials = credentials::generation();
    pool.note_credentials(credentials);
    let launch: Result<Box<dyn Launch>, _> = if let Some(launcher) = launcher {
        Launching::new(launcher, &spec, config).map(|launch| Box::new(launch) as _)
    } else if may_fork {
        Ok(Box::new(Forking::new(
            fork_server,
            spec.clone(),
            credentials,
            early,
        )))
    } else {
        let captures = config.captures_stderr();
        Spawning::new(spec.clone(), config.environment(), captures)
            .map(|launch| Box::new(launch) as _)
    };
    match launch {
        Ok(launch) => {
            let starting = Starting::of_worker(launch, spec, credentials, config.clone());
            Ok((Box::new(starting), expected))
        }
        Err(error) => {
            expected.failed(&error);
            Err(error)
        }
    }
}
