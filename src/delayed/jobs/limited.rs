//! A limit of the number of jobs that are submitted at a time.

use std::fmt;
use std::sync::Arc;

use futures_lite::future::poll_once;

use super::handle::Jobs;
use super::place::Places;
use crate::delayed::value::awaiter::AWAITER;
use crate::sync::{CapacityLimiter, Token};

/// Limits the number of jobs that are submitted and have not ended; returned by
/// [`Jobs::at_most`](crate::delayed::Jobs::at_most).
#[derive(Clone)]
pub struct Limited<'env> {
    jobs: Jobs<'env>,
    limiter: CapacityLimiter,
    places: Arc<Places>,
}

impl<'env> Limited<'env> {
    pub(super) fn new(jobs: Jobs<'env>, count: usize) -> Self {
        Self {
            jobs,
            limiter: CapacityLimiter::new(count),
            places: Arc::new(Places::new(count)),
        }
    }

    /// Waits until fewer jobs than the limit exist, and returns a handle for one more. The place is
    /// free again when the handle is dropped and its jobs have ended.
    ///
    /// In a future that holds resources, this may be a wait without end, for places of jobs in the
    /// queue that need those resources. Then one of these jobs ends with an error of the kind
    /// [`Deadlock`](crate::delayed::JobErrorKind::Deadlock), also if the wait has a time limit or
    /// is one of several, as in a `select!`; see [`Jobs::on`].
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, no place is taken.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let limited = jobs.at_most(1);
    ///         assert_eq!(limited.ready().await.call(i32::abs, -1).await.unwrap(), 1);
    ///     }));
    /// }
    /// ```
    pub async fn ready(&self) -> Jobs<'env> {
        let mut acquire = self.limiter.acquire();
        if let Some(token) = poll_once(&mut acquire).await {
            return self.at_place(token);
        }
        let waiting = AWAITER
            .get()
            .map(|job| job.begin_wait_for(self.places.clone()));
        let token = acquire.await;
        drop(waiting);
        let jobs = self.at_place(token);
        // Until now, the waits of others for this place counted as ended.
        self.jobs.pool.end_deadlocks(self.jobs.pool.lock());
        jobs
    }

    /// Returns a handle whose jobs have the place of this token.
    fn at_place(&self, token: Token) -> Jobs<'env> {
        let around = self.jobs.options.place.clone();
        self.jobs.at_place(self.places.take(token, around))
    }
}

impl<'env> Jobs<'env> {
    /// Returns a handle that submits at most `count` jobs at a time, so that a loop over many
    /// inputs does not make all jobs at once. (Grain's `QueueLimiter`.)
    ///
    /// If this handle has a place of another limit, the new one keeps it, and its jobs count for
    /// both.
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let limited = jobs.at_most(2);
    ///         let mut absolute = Vec::new();
    ///         for number in -3..0 {
    ///             absolute.push(limited.ready().await.call(i32::abs, number));
    ///         }
    ///         let total = absolute.into_iter().sum::<seedbed::delayed::Delayed<i32>>();
    ///         assert_eq!(total.await.unwrap(), 6);
    ///     }));
    /// }
    /// ```
    #[track_caller]
    pub fn at_most(&self, count: usize) -> Limited<'env> {
        assert!(
            count > 0,
            "`at_most(0)` would admit no job, and `ready` would wait forever"
        );
        Limited::new(self.clone(), count)
    }
}

impl fmt::Debug for Limited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited")
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}
