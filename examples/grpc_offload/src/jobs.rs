//! The functions that run in worker processes. They know nothing of gRPC.

use std::time::Duration;

use seedbed::run_sync;
use seedbed::worker::WorkerError;
use serde::{Deserialize, Serialize};

/// The longest time of one job, after which its worker is killed.
pub const JOB_LIMIT: Duration = Duration::from_secs(2);

#[derive(Serialize, Deserialize)]
pub struct Job {
    pub limit: u64,
    pub fault: Option<Fault>,
}

/// The misbehaviour of a faulty library.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum Fault {
    Panic,
    Crash,
    Hang,
}

#[derive(Serialize, Deserialize)]
pub struct Outcome {
    pub primes: u64,
    pub process: u32,
}

/// Runs a job in a worker, which is killed if the job is cancelled or takes too long.
///
/// # Errors
///
/// If the job panicked, crashed or was killed. Other jobs are not affected.
pub async fn offload(job: Job) -> Result<Outcome, WorkerError> {
    run_sync(count_primes, job)
        .kill_on_cancel(true)
        .time_limit(JOB_LIMIT)
        .await
}

fn count_primes(job: Job) -> Outcome {
    match job.fault {
        None => {}
        Some(Fault::Panic) => panic!("the job was asked to panic"),
        Some(Fault::Crash) => std::process::abort(),
        Some(Fault::Hang) => loop {
            std::thread::sleep(JOB_LIMIT);
        },
    }
    let is_prime = |n: &u64| (2..=n.isqrt()).all(|divisor| !n.is_multiple_of(divisor));
    Outcome {
        primes: (2..job.limit).filter(is_prime).count() as u64,
        process: std::process::id(),
    }
}
