//! Writes the trace of a block into a file.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use super::handle::Jobs;

impl Jobs<'_> {
    /// Writes what the block does from now on into a file, as a trace in the JSON format of
    /// `chrome://tracing`, which [Perfetto](https://ui.perfetto.dev) shows, too.
    ///
    /// Each core has a row. A job is a slice in the rows of its cores, from the moment at which it
    /// has its resources until it gives them back; jobs without cores have rows at the end. Times
    /// are those of the run's clock.
    ///
    /// Arrows show what depends on what:
    ///
    /// * from each job to the beginning of a [`then`](Self::then) whose argument comes from its
    ///   result;
    /// * from each job to the moment at which a [future](Self::spawn) of the block receives a value
    ///   that comes from its result;
    /// * from the moment at which a future submits a job to the beginning of that.
    ///
    /// A value comes from a job through operators, [`each`](crate::delayed::each()),
    /// [`map`](crate::delayed::Delayed::map) and all other methods, also if it was computed for an
    /// earlier await. [`choose`](crate::delayed::Delayed::choose) comes from its condition and from
    /// the value that it chose. Jobs that were over before the trace began, jobs of other blocks,
    /// and jobs whose value was [kept](Self::cached), have no slice and no arrow. Awaits of the
    /// block's body, and values that a future gets through a channel, are not known.
    ///
    /// The file is complete when the block has ended. If writing fails, the jobs go on, and the
    /// error is a `tracing` event at WARN.
    ///
    /// # Errors
    ///
    /// If the file cannot be made, if the block writes a trace already, or if it has ended; in the
    /// last two cases, no file is made or changed. The block goes on in any case.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    ///
    /// fn main() {
    ///     let folder = tempfile::tempdir().unwrap();
    ///     let path = folder.path().join("trace.json");
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         jobs.trace_to(&path).unwrap();
    ///         jobs.call(i32::abs, -3).await.unwrap();
    ///     }));
    ///     assert!(std::fs::read_to_string(path).unwrap().contains("abs"));
    /// }
    /// ```
    pub fn trace_to(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let named = |error: io::Error| {
            let text = format!("the trace `{}` cannot be written: {error}", path.display());
            io::Error::new(error.kind(), text)
        };
        let create = || File::create(path).map(BufWriter::new);
        self.pool().begin_trace(create).map_err(named)
    }
}
