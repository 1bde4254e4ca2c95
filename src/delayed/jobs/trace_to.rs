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
    /// has its resources until it gives them back; jobs without cores have rows at the end. An
    /// arrow leads from each job to the [`then`](Self::then) that takes its result. Times are those
    /// of the run's clock.
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
