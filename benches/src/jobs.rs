//! What is called in workers, ours and procspawn's, and how ours are set up.
//!
//! Every line names the type of its workers. `Auto` would do for a program that takes what is best, and leave open here
//! what was measured.

use seedbed::WorkerConfig;
use seedbed::worker::WorkerType;

use crate::{child, measure};

/// The job that does next to nothing.
pub fn successor(number: u64) -> u64 {
    std::hint::black_box(number) + 1
}

/// The job that takes a millisecond and no processor.
pub fn nap(number: u64) -> u64 {
    std::thread::sleep(std::time::Duration::from_millis(1));
    number + 1
}

/// The processor's time that the worker has used, in nanoseconds.
pub fn cpu_time(_: ()) -> u64 {
    measure::process_time().as_nanos() as u64
}

/// The worker's process.
pub fn pid(_: ()) -> u32 {
    std::process::id()
}

/// Pins the worker, which may be procspawn's.
pub fn pin(core: usize) {
    child::pin_to_core(core);
}

/// Workers of this type, on that core if one is given.
pub fn config(worker_type: WorkerType, core: Option<usize>) -> WorkerConfig {
    let config = WorkerConfig::new().worker_type(worker_type);
    match core {
        Some(core) => config.init_with(core, |core| pin(*core)),
        None => config,
    }
}

/// procspawn's pool of one worker, on that core if one is given.
pub fn pool_of_one(core: Option<usize>) -> procspawn::Pool {
    let pool = procspawn::Pool::new(1).expect("procspawn starts a pool");
    if let Some(core) = core {
        let pinned = pool.spawn(core, pin).join();
        pinned.expect("the pool answers");
    }
    pool
}
