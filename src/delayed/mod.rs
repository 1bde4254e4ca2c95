//! Delayed values: expressions over values that are not there yet, and jobs with resources.
//!
//! [`open`] opens a block of jobs. [`Jobs::call`] submits a function to a worker process, and
//! returns a [`Delayed`] value at once. Such values combine by ordinary operators. Each job says
//! what it needs; as much runs at once as fits, pinned to its cores and limited in its memory. When
//! the block ends, all of it has ended.
//!
//! ```
//! use seedbed::delayed::{Cores, Delayed, JobError, Memory, Resources, each, try_open};
//!
//! fn simulate(seed: u64, steps: u32) -> f64 {
//!     (0..steps).map(|step| (seed + u64::from(step)) as f64).sum()
//! }
//!
//! fn mean(values: Vec<f64>) -> f64 {
//!     values.iter().sum::<f64>() / values.len() as f64
//! }
//!
//! fn main() {
//!     let all: Result<f64, JobError> = seedbed::run(try_open(Resources::local(), async |jobs| {
//!         // What each kind of job needs, and a name to call it by.
//!         let narrow = jobs.on(Cores(1) & Memory::mib(256)).retry(1);
//!         let simulate = |seed| narrow.call(simulate, (seed, 4));
//!         // From here on, ordinary expressions. All that is called runs already.
//!         let values: Vec<Delayed<f64>> = (0..4).map(simulate).collect();
//!         let total: Delayed<f64> = values.iter().sum();
//!         let mean = jobs.then(each(values), mean);
//!         (total * 2.0 - mean).await
//!     }));
//!     assert_eq!(all.unwrap(), 84.0);
//! }
//! ```
//!
//! # Blocks and calls, next to each other
//!
//! | | [`Jobs`] | [`Nursery`](crate::Nursery) and [`run_sync`](crate::run_sync()) |
//! |---|---|---|
//! | starts | when its resources are free, first come, first served | at once, or with a limiter token |
//! | a job that panics | is the error of its value | is the error of the call |
//! | a future that panics | ends the block | ends the block |
//! | cancelled | [kills](Jobs::kill_on_cancel) the job by default | waits for the job by default |
//! | a failure that nothing awaits | is a `tracing` event at WARN | is a `tracing` event at WARN, if its [`Task`](crate::Task) was dropped |

mod cache;
mod error;
mod executor;
mod job_statistics;
mod jobs;
mod learned;
mod run;
mod run_all;
mod setup;
mod subprocify;
mod tuning;
mod value;

pub use error::{JobError, JobErrorKind};
pub use executor::allocation;
pub use job_statistics::JobStatistics;
pub use jobs::{
    Argument, Callable, Jobs, Limited, Portable, Progress, ResourceStatistics, Statistics, open,
    try_open,
};
pub use learned::{Learned, TimeLimit};
pub use run::run;
pub use run_all::{Roots, run_all};
pub use setup::{Setup, SetupError};
pub use subprocify::subprocify;
pub use value::{Delayed, DelayedFuture, Each, Shared, delayed_val, each};

pub use crate::resource::{
    Allocation, Amount, Cores, Memory, Need, Node, Request, Resources, Token, Units, WallTime, ZERO,
};
