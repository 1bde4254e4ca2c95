//! The error of spawning into a nursery that has ended.

use std::error::Error;
use std::fmt;

/// The error of spawning into a nursery whose block has ended. Gives the future back.
///
/// ```
/// use seedbed::{open_nursery, run};
///
/// run(async {
///     let mut kept = None;
///     open_nursery(|n| {
///         kept = Some(n.clone());
///         async {}
///     })
///     .await;
///     let closed = kept.unwrap().spawn_if_open(async { 1 }).unwrap_err();
///     assert!(closed.to_string().starts_with("the nursery is closed to new children"));
/// });
/// ```
pub struct NurseryClosedError<F> {
    future: F,
}

impl<F> NurseryClosedError<F> {
    pub(super) fn new(future: F) -> Self {
        NurseryClosedError { future }
    }

    /// Returns the future that was not spawned.
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// run(async {
    ///     let mut kept = None;
    ///     open_nursery(|n| {
    ///         kept = Some(n.clone());
    ///         async {}
    ///     })
    ///     .await;
    ///     let closed = kept.unwrap().spawn_if_open(async { 1 }).unwrap_err();
    ///     assert_eq!(closed.into_future().await, 1);
    /// });
    /// ```
    pub fn into_future(self) -> F {
        self.future
    }
}

impl<F> fmt::Debug for NurseryClosedError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NurseryClosedError").finish_non_exhaustive()
    }
}

impl<F> fmt::Display for NurseryClosedError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the nursery is closed to new children: its block has ended, because the body and all children had; \
             spawn while one of them lives, or use spawn_if_open",
        )
    }
}

impl<F> Error for NurseryClosedError<F> {}
