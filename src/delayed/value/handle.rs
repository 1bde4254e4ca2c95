//! The handle of a delayed value, and what the other files ask of it.

use std::fmt;
use std::sync::Arc;

use super::node::{Graph, Node, Ready};
use super::operation::{Operation, Work};
use crate::delayed::error::JobError;
use crate::delayed::job_statistics::JobStatistics;

/// A value that is not there yet: the result of a job, or of an expression over such values.
///
/// Arithmetic and bit operators make a new delayed value of delayed values and plain ones.
/// [`map`](Self::map), [`zip`](Self::zip), [`index`](Self::index) and the other methods do the
/// same. Nothing is computed until a value is awaited; the jobs below it run regardless. The task
/// that awaits a value computes it.
///
/// A clone is another handle of the same value, which is computed once. An operator takes its
/// operands; use references where a value is needed twice: `&a * &a`. A value moves out of its last
/// handle, and is cloned where others exist.
///
/// Awaiting returns the value, or the [`JobError`] of any job below it, as
/// soon as that fails. A panic in an operator or a function is such an error, too.
///
/// `==` and `<` must return a `bool` at once, so they do not exist: see [`equals`](Self::equals),
/// [`lt`](Self::lt) and [`choose`](Self::choose).
///
/// A plain number may stand on either side of an operator. Where nothing else says which type it
/// has, it needs a suffix: `delayed_val(1u32) + 2`.
///
/// Dropping a handle does not cancel the jobs below the value. A chain of any length is computed
/// and dropped without recursion.
///
/// # Cancellation
///
/// Awaiting a value has no effect on it when cancelled: another await goes on.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::delayed_val;
///
/// smol::block_on(async {
///     let mut total = delayed_val(0.0f64);
///     for price in [1.5f64, 2.0] {
///         total += delayed_val(price) * 2.0;
///     }
///     assert_eq!((&total).await.unwrap(), 7.0);
///     assert_eq!((1.0 - total).await.unwrap(), -6.0);
/// });
/// ```
#[must_use = "a delayed value is not computed unless it is awaited"]
pub struct Delayed<T: 'static>(pub(in crate::delayed) Arc<dyn Node<T>>);

/// Makes a delayed value that is there already.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::delayed_val;
///
/// let sum = delayed_val(1) + delayed_val(2);
/// assert_eq!(smol::block_on(async { sum.await }).unwrap(), 3);
/// ```
pub fn delayed_val<T: Send + Sync + 'static>(value: T) -> Delayed<T> {
    Delayed(Arc::new(Ready(Some(Ok(value)))))
}

impl<T: Send + Sync + 'static> From<T> for Delayed<T> {
    fn from(value: T) -> Self {
        delayed_val(value)
    }
}

impl<T: 'static> Clone for Delayed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> fmt::Debug for Delayed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.0.outcome() {
            None => "not there yet",
            Some(Ok(())) => "there",
            Some(Err(_)) => "failed",
        };
        f.debug_tuple("Delayed")
            .field(&format_args!("{state}"))
            .finish()
    }
}

impl<T: 'static> Delayed<T> {
    pub(super) fn operation<W: Work<Output = T>>(work: W) -> Self {
        Self(Arc::new(Operation::new(work)))
    }

    /// Returns whether the value is there, or has failed. A value that is computed from others is
    /// not there before it was awaited.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let one = delayed_val(1u32);
    /// assert!(one.is_done());
    /// assert!(!(one + 1).is_done());
    /// ```
    pub fn is_done(&self) -> bool {
        self.0.outcome().is_some()
    }

    /// Returns what the job has cost whose result this is. `None` before the job has ended, for a
    /// job that was cancelled or refused at once, and for a value that is computed from others.
    ///
    /// [`Jobs::statistics`](crate::delayed::Jobs::statistics) has the sums of all jobs.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let value = jobs.call(i32::abs, -3);
    ///         assert_eq!((&value).await.unwrap(), 3);
    ///         let cost = value.statistics().unwrap();
    ///         assert_eq!(cost.attempts, 1);
    ///         assert_ne!(cost.worker_pid, Some(std::process::id()));
    ///     }));
    /// }
    /// ```
    pub fn statistics(&self) -> Option<JobStatistics> {
        // The statistics are set before the result.
        self.is_done().then(|| self.0.statistics().copied())?
    }

    /// Adds the node to `missing` if it has no result.
    ///
    /// # Errors
    ///
    /// The error of the node, if it has failed.
    pub(super) fn missing(&self, missing: &mut Vec<Arc<dyn Graph>>) -> Result<(), JobError> {
        match self.0.outcome() {
            Some(outcome) => outcome.map_err(JobError::clone),
            None => {
                missing.push(self.0.clone());
                Ok(())
            }
        }
    }

    /// Returns the value, which is there.
    pub(in crate::delayed) fn get(&self) -> Result<&T, JobError> {
        match self.0.result() {
            Some(result) => result.as_ref().map_err(JobError::clone),
            None => unreachable!("the value of a node was taken before it was computed"),
        }
    }

    /// Moves the value, which is there, out of the last handle, and clones it otherwise.
    pub(in crate::delayed) fn into_result(mut self) -> Result<T, JobError>
    where
        T: Clone,
    {
        match Arc::get_mut(&mut self.0).and_then(|node| node.take()) {
            Some(result) => result,
            None => self.get().cloned(),
        }
    }
}
