//! Worker processes: cached, killable, and never left behind.
//!
//! The files, from the call downwards: [`call`] is `run_sync` and what cancellation may interrupt of it; [`context`] holds
//! the workers and their configuration ([`config`]), with the choice among idle ones in [`cache`] and their common end in
//! [`farewell`]; [`attempt`] has one job done by one worker; [`start`] brings a new worker up, launched by [`launch`] in the
//! way that [`hook`] noted; [`life`] is one live worker, made of its [`process`] and its [`connection`]. [`child`] is the
//! other side: what happens in the worker process itself. It knows none of the others.

mod attempt;
mod cache;
mod call;
mod child;
mod config;
mod connection;
mod context;
mod farewell;
mod hook;
mod launch;
mod life;
mod process;
mod start;

pub use call::{RunSync, RunSyncFuture, current_default_worker_limiter, run_sync};
pub use config::{WorkerConfig, WorkerType};
pub use context::{
    WorkerContext, WorkerStatistics, cache_scope, configure_default_context,
    default_context_statistics, open_worker_context,
};

pub use crate::error::{WorkerError, WorkerErrorKind, WorkerExit, WorkerPanic};
pub use crate::job::status::WorkerStatus;

pub(crate) use context::shutdown_default;
pub(crate) use hook::{hook, hook_reached};

/// Makes this program able to start workers: in a worker process serves jobs and never returns, in any other returns at
/// once.
///
/// `run`, `main!` and `test!` do this by themselves. Call it, first thing in `main` or in a `#[test]`, where you enter in
/// another way, such as `smol::block_on`. **Everything before it in `main` runs again in each worker.**
///
/// # Examples
///
/// ```
/// fn main() {
///     seedbed::init();
///     let shouted = smol::block_on(async { seedbed::run_sync(shout, "hello".to_owned()).await });
///     assert_eq!(shouted.unwrap(), "HELLO");
/// }
///
/// fn shout(word: String) -> String {
///     word.to_uppercase()
/// }
/// ```
pub fn init() {
    hook();
}
