//! A function that is called in workers whenever it is called.

use crate::transport::job::code::assert_captures_nothing;
use crate::worker::{Argument, JobResult, RunSync, run_sync};

/// Makes a function whose calls are calls in a worker process. (Grain's `subprocify`.)
///
/// `subprocify(f)(x)` is [`run_sync(f, x)`](crate::run_sync()), which documents the details.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::subprocify;
///
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// fn main() {
///     seedbed::run(async {
///         let square = subprocify(square);
///         assert_eq!(square(3).await.unwrap() + square(4).kill_on_cancel(true).await.unwrap(), 25);
///     });
/// }
/// ```
pub fn subprocify<F, A, R>(f: F) -> impl Fn(A) -> RunSync<A, R> + Copy + Send + Sync + 'static
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    A: Argument,
    R: JobResult,
{
    const { assert_captures_nothing::<F>() };
    move |argument| run_sync(f, argument)
}
