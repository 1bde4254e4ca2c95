//! Applies the allocation of a job in its worker: pins the worker's threads to the cores, and
//! limits its memory.
//!
//! A worker of a block keeps the cores of its last job, because moving to other cores costs some
//! 40 µs. A worker of a context that other calls use, too, has its former cores again when the job
//! has ended. The memory limit ends with the job, because the next argument is decoded before the
//! next job sets its limit.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::delayed::job_statistics::JobStatistics;
use crate::delayed::value::awaiter::AWAITER;
use crate::resource::Allocation;
use crate::sys::data_size::data_held;
use crate::sys::primitives::lock;
use crate::sys::usage::{self, CpuTimes};

/// The allocation of the job that this process runs as a worker, and what is in force.
static OF_WORKER: Mutex<InForce> = Mutex::new(InForce {
    allocation: None,
    cores: Vec::new(),
    memory: None,
    born_with: None,
});

struct InForce {
    allocation: Option<Arc<Allocation>>,
    /// The cores that the worker is pinned to; empty if it is not.
    cores: Vec<usize>,
    /// The number of bytes that may be added to those of the beginning.
    memory: Option<u64>,
    /// The memory and its limit before the first limited job.
    born_with: Option<(u64, Rlimit)>,
}

/// The allocation of a job, as it is sent to the worker.
#[derive(Serialize, Deserialize)]
pub(in crate::delayed) struct Surroundings {
    pub(in crate::delayed) allocation: Allocation,
    /// Whether other calls use the worker, too.
    pub(in crate::delayed) is_shared: bool,
}

/// Returns the resources of the running job: in a worker, those of the job that it runs; elsewhere,
/// those of the future that was spawned on resources. `None` outside of both.
///
/// In a worker, the process is pinned to the cores, so
/// [`available_parallelism`](std::thread::available_parallelism) counts them, and its memory is
/// limited.
///
/// # Examples
///
/// ```
/// assert!(seedbed::delayed::allocation().is_none());
/// ```
pub fn allocation() -> Option<Arc<Allocation>> {
    let of_future = AWAITER.get().and_then(|job| job.allocation().cloned());
    of_future.or_else(|| lock(&OF_WORKER).allocation.clone())
}

/// Runs a job in the worker with its allocation. Returns what it has cost, too.
///
/// # Panics
///
/// If the worker cannot be pinned or limited. The caller gets that as the job's error.
pub(super) fn run_with<R>(
    surroundings: Option<Surroundings>,
    job: impl FnOnce() -> R,
) -> (R, JobStatistics) {
    let allocation = surroundings.as_ref().map(|around| &around.allocation);
    let has_memory = allocation.is_some_and(|allocation| allocation.memory().is_some());
    let _restored = surroundings.map(enter);
    let meter = Meter::start(has_memory);
    let value = job();
    (value, meter.stop())
}

/// Measures what a job uses.
struct Meter {
    begun: Instant,
    cpu_times: CpuTimes,
    measures_memory: bool,
}

impl Meter {
    fn start(measures_memory: bool) -> Self {
        Self {
            measures_memory: measures_memory && usage::forget_peak_memory(),
            cpu_times: usage::cpu_times(),
            begun: Instant::now(),
        }
    }

    fn stop(self) -> JobStatistics {
        let CpuTimes { user, system } = usage::cpu_times() - self.cpu_times;
        JobStatistics {
            wall: self.begun.elapsed(),
            cpu_user: user,
            cpu_system: system,
            peak_memory: self.measures_memory.then(usage::peak_memory),
            worker_pid: Some(std::process::id()),
            ..JobStatistics::default()
        }
    }
}

/// Ends the effect of an allocation when dropped.
struct Entered {
    /// The cores to return to.
    former_cores: Option<CpuSet>,
    is_shared: bool,
}

fn enter(surroundings: Surroundings) -> Entered {
    let Surroundings {
        allocation,
        is_shared,
    } = surroundings;
    let cores = allocation.cores();
    let former_cores = (is_shared && !cores.is_empty())
        .then(|| sched_getaffinity(None).ok())
        .flatten();
    let mut in_force = lock(&OF_WORKER);
    if !cores.is_empty() && in_force.cores != cores {
        let mut set = CpuSet::new();
        let known = cores.iter().filter(|&&core| core < CpuSet::MAX_CPU);
        known.for_each(|&core| set.set(core));
        if let Err(error) = pin_all_threads(&set) {
            drop(in_force);
            panic!(
                "the job's worker cannot be pinned to the cores of its allocation, {cores:?}: {error}"
            );
        }
        in_force.cores = cores;
    }
    if let Err(error) = limit_memory(&mut in_force, allocation.memory()) {
        drop(in_force);
        panic!("the memory of the job's worker cannot be limited: {error}");
    }
    in_force.allocation = Some(Arc::new(allocation));
    Entered {
        former_cores,
        is_shared,
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut in_force = lock(&OF_WORKER);
        in_force.allocation = None;
        let _ = limit_memory(&mut in_force, None); // raising a limit to what it was is allowed
        if !self.is_shared {
            return;
        }
        if let Some(cores) = &self.former_cores {
            let _ = pin_all_threads(cores); // fails only if the machine has lost these cores since
            in_force.cores.clear();
        }
    }
}

/// Pins all threads of this process. A new thread inherits the cores of the one that starts it, but
/// a job may have left threads.
fn pin_all_threads(set: &CpuSet) -> std::io::Result<()> {
    sched_setaffinity(None, set)?;
    // Without `/proc`, the other threads stay where they are.
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Ok(());
    };
    for thread in threads.flatten() {
        let id = thread
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(id) = id.and_then(Pid::from_raw) {
            let _ = sched_setaffinity(Some(id), set); // fails for a thread that has ended
        }
    }
    Ok(())
}

/// Limits the memory of this process to what it was born with and so much more.
fn limit_memory(in_force: &mut InForce, more: Option<u64>) -> std::io::Result<()> {
    if in_force.memory == more {
        return Ok(());
    }
    let (held, limit) = *in_force
        .born_with
        .get_or_insert_with(|| (data_held().unwrap_or(0), getrlimit(Resource::Data)));
    let wanted = more.map(|more| held.saturating_add(more));
    // A limit of the configuration stays.
    let current = [wanted, limit.current].into_iter().flatten().min();
    let maximum = limit.maximum;
    setrlimit(Resource::Data, Rlimit { current, maximum })?;
    in_force.memory = more;
    Ok(())
}
