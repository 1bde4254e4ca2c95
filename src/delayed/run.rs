//! A run that is a block of jobs.

use std::future::Future;

use super::jobs::{Jobs, open};
use super::setup::{Setup, SetupError};

/// Enters a [run](crate::run()) and opens a block of jobs in it.
///
/// The setup is read after the hook, so that a worker process does not read it.
/// [`run_all`](crate::delayed::run_all()) runs several functions side by side.
///
/// # Errors
///
/// If the file that the setup names cannot be read, or is wrong. No job has run then.
///
/// # Panics
///
/// With the panic of the body or of a spawned future.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{JobError, Setup};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let sum = seedbed::delayed::run(Setup::from_env().name("sum"), async |jobs| {
///         let sum = jobs.call(i32::abs, -1) + jobs.call(i32::abs, -2);
///         sum.await
///     })?;
///     assert_eq!(sum?, 3);
///     Ok(())
/// }
/// ```
pub fn run<'env, R, F, Fut>(setup: impl Into<Setup>, body: F) -> Result<R, SetupError>
where
    F: FnOnce(Jobs<'env>) -> Fut,
    Fut: Future<Output = R>,
{
    let setup = setup.into();
    crate::run::run(async {
        let setup = setup.loaded()?;
        Ok(open(setup, body).await)
    })
}
