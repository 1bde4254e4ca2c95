//! The progress bar. It exists only if standard error is a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error, or nothing if that is not a terminal. Dropping it removes it from the
/// screen.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Returns a bar for this many files.
    pub fn of(files: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} files, {eta} left")
                    .expect("the template is fixed, and right");
            ProgressBar::new(files as u64).with_style(style)
        });
        Progress(bar)
    }

    /// Counts one more file.
    pub fn advance(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
