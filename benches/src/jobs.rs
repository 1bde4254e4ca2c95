//! The jobs that workers of seedbed and procspawn run, and the set-up of seedbed's workers.
//!
//! Every line of the report names the type of its workers. `Auto` would leave open which type was
//! measured.

use seedbed::WorkerConfig;
use seedbed::worker::WorkerType;

use crate::{child, measure};

/// A job that does almost nothing.
pub fn successor(number: u64) -> u64 {
    std::hint::black_box(number) + 1
}

/// A job that takes a millisecond and almost no CPU time.
pub fn nap(number: u64) -> u64 {
    std::thread::sleep(std::time::Duration::from_millis(1));
    number + 1
}

/// Returns the CPU time that the worker has used, in nanoseconds.
pub fn cpu_time(_: ()) -> u64 {
    measure::process_time().as_nanos() as u64
}

/// Returns the worker's process id.
pub fn pid(_: ()) -> u32 {
    std::process::id()
}

/// Pins the worker to a core. Also used for procspawn's workers.
pub fn pin(core: usize) {
    child::pin_to_core(core);
}

/// Returns a configuration for workers of this type, pinned to `core` if given.
pub fn config(worker_type: WorkerType, core: Option<usize>) -> WorkerConfig {
    let config = WorkerConfig::new().worker_type(worker_type);
    match core {
        Some(core) => config.init_with(core, |core| pin(*core)),
        None => config,
    }
}

/// Returns a procspawn pool of one worker, pinned to `core` if given.
pub fn pool_of_one(core: Option<usize>) -> procspawn::Pool {
    let pool = procspawn::Pool::new(1).expect("procspawn starts a pool");
    if let Some(core) = core {
        let pinned = pool.spawn(core, pin).join();
        pinned.expect("the pool answers");
    }
    pool
}
