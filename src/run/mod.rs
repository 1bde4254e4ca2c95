//! Entering: `run`, which drives everything else, and the hook at which worker processes begin.

mod builder;
mod driver;
mod interrupt;
mod macros;

use std::future::IntoFuture;

pub use builder::{CtrlC, RunBuilder};

/// Runs a future, and everything that it opens, to the end, on this thread; drives smol's reactor meanwhile.
///
/// This is `RunBuilder::new().run(future)`: real time, and Ctrl-C cancels (see [`CtrlC`]). When it returns, every task,
/// every shielded section and (with the last run) every idle worker process has ended.
///
/// In a worker process this is the hook: it serves jobs, and never returns. So everything *before* it in `main` also
/// runs in each worker, with the same arguments and environment.
///
/// # Panics
///
/// With `future`'s panic; and if called inside of another run on the same thread.
///
/// ```
/// let five = seedbed::run(async { 5 });
/// assert_eq!(five, 5);
/// ```
pub fn run<F: IntoFuture>(future: F) -> F::Output {
    RunBuilder::new().run(future)
}
