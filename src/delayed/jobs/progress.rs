//! The progress of a block, as a stream of its statistics.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::Stream;

use super::handle::Jobs;
use super::observed::Observed;
use super::pool::Pool;
use super::statistics::Statistics;
use crate::sync::Wait;

/// A stream of the statistics of a block; returned by
/// [`Jobs::progress`](crate::delayed::Jobs::progress).
#[must_use = "streams do nothing unless polled"]
pub struct Progress {
    pool: Arc<Pool>,
    /// The number of changes that the last item has shown.
    seen: Option<u64>,
    change: Option<Wait>,
}

impl Stream for Progress {
    type Item = Statistics;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Statistics>> {
        loop {
            if let Some(change) = &mut self.change {
                ready!(Pin::new(change).poll(cx));
                self.change = None;
            }
            let observed = self.pool.observe(self.seen);
            match observed {
                Observed::Changed(statistics, changes) => {
                    self.seen = Some(changes);
                    return Poll::Ready(Some(statistics));
                }
                Observed::Unchanged(change) => self.change = Some(change),
                Observed::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress")
            .field("statistics", &self.pool.statistics())
            .finish_non_exhaustive()
    }
}

impl Jobs<'_> {
    /// Returns a stream of the block's [statistics](Self::statistics): as they are now, and after
    /// each change. Changes between two polls make one item. The stream ends when the block has
    /// ended, and does not keep it open; so a task of the block stops reading it by itself.
    ///
    /// ```
    /// use futures_lite::StreamExt;
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let values = [jobs.call(i32::abs, -1), jobs.call(i32::abs, -2)];
    ///         let mut progress = jobs.progress();
    ///         while let Some(now) = progress.next().await {
    ///             println!("{} of {} jobs", now.succeeded, now.submitted);
    ///             if now.succeeded == 2 {
    ///                 break;
    ///             }
    ///         }
    ///         assert!(values.iter().all(|value| value.is_done()));
    ///     }));
    /// }
    /// ```
    pub fn progress(&self) -> Progress {
        Progress {
            pool: self.pool().clone(),
            seen: None,
            change: None,
        }
    }
}
