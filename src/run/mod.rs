//! Entering: `run`, which drives everything else, and the hook at which worker processes begin.

// `builder` sets a run up, and `driver` is its loop, which waits by `idle`. Other threads reach a
// run by a `handle`, which leads to its `inbox`: the queue of calls (`entry`) and the system tasks
// (`system_nursery`, `system_task`). A run's clock is in `time`, and its variables are in
// `variables`, because all layers use them.

mod builder;
mod current;
mod driver;
mod entry;
mod error;
mod handle;
mod idle;
mod inbox;
#[cfg(target_os = "linux")]
mod interrupt;
#[cfg(not(target_os = "linux"))]
#[path = "without_interrupt.rs"]
mod interrupt;
mod statistics;
mod system_nursery;
mod system_task;
mod tuning;
mod wake_flag;
mod workers;

pub use builder::{CtrlC, RunBuilder, run};
pub use current::{current_run, current_statistics, in_run, in_task, spawn_system_task};
pub use error::{EnterError, RunFinishedError};
pub use handle::RunHandle;
pub use statistics::RunStatistics;
#[cfg(not(all(feature = "workers", target_os = "linux")))]
pub use workers::init;

pub use crate::variables::{RunVar, RunVarToken};
