//! Jobs: what is called in workers and spawned in a block, when its resources are free.
//!
//! | files | job |
//! |---|---|
//! | `open` | the blocks |
//! | `handle`, `options`, `limited` | the handle that submits jobs, its options, its limit |
//! | `pool`, `state`, `waiter` | the resources of a block, and its queue |
//! | `enqueue`, `ticket` | putting a job into the queue, where it gets its allocation |
//! | `record` | a job from its submission to its end, as it is counted |
//! | `progress`, `bar`, `observed`, `trace`, `trace_slot`, `trace_to` | what a block does, for those that look on |
//! | `run` | one job, from its turn to its result |
//! | `running`, `recorded_wait`, `waits` | a job that runs in this process; what it waits for |
//! | `job_group`, `block_end`, `place` | jobs that are waited for as a whole |
//! | `process` | a program as a job |
//! | `learned`, `demand` | what jobs ask for whose limits are learned |
//! | `cached` | jobs whose results are kept for later runs |
//! | `statistics` | what a block does, and what its jobs have cost |
//! | `callable` | the functions and values that may be sent |

#[cfg(feature = "indicatif")]
mod bar;
mod block_end;
mod cached;
mod callable;
mod demand;
mod enqueue;
#[cfg(all(test, not(loom)))]
mod executor_tests;
mod handle;
mod job_group;
mod learned;
mod limited;
mod observed;
mod open;
mod options;
mod place;
mod pool;
#[cfg(all(test, not(loom)))]
mod pool_tests;
mod process;
mod progress;
mod record;
mod recorded_wait;
mod run;
mod running;
mod state;
mod statistics;
mod ticket;
mod trace;
mod trace_slot;
mod trace_to;
mod waiter;
mod waits;

pub use callable::{Argument, Callable, Portable};
pub use handle::Jobs;
pub use limited::Limited;
pub use open::{open, try_open};
pub use progress::Progress;
pub use statistics::{ResourceStatistics, Statistics};
