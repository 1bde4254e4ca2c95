//! The functions that run in worker processes. They know nothing of gRPC.

use std::time::Duration;

use seedbed::run_sync;
use seedbed::worker::RunSync;
use serde::{Deserialize, Serialize};

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

/// Runs a job in a worker, which is killed if the job is cancelled, or takes longer than the limit.
///
/// # Errors
///
/// Awaiting it fails if the job panicked, crashed or was killed. Other jobs are not affected.
pub fn offload(job: Job, limit: Duration) -> RunSync<Job, Outcome> {
    run_sync(count_primes, job)
        .kill_on_cancel(true)
        .time_limit(limit)
}

fn count_primes(job: Job) -> Outcome {
    match job.fault {
        None => {}
        Some(Fault::Panic) => panic!("the job was asked to panic"),
        Some(Fault::Crash) => std::process::abort(),
        Some(Fault::Hang) => loop {
            std::thread::park();
        },
    }
    let is_prime = |n: &u64| (2..=n.isqrt()).all(|divisor| !n.is_multiple_of(divisor));
    Outcome {
        primes: (2..job.limit).filter(is_prime).count() as u64,
        process: std::process::id(),
    }
}
