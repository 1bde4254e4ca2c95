//! The progress display: how many files are done, how many in a second, and which are being parsed.
//! It exists only if standard error is a terminal.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::ledger::Ledger;

/// A bar, and a line with the files that are being parsed. It fits into a terminal of 80 columns.
const TEMPLATE: &str =
    "{bar:25} {human_pos}/{human_len} files, {per_sec:1}, {eta} left\nparsing {wide_msg}";

/// The time between two drawings while no file ends.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// A display on standard error, or nothing if that is not a terminal. Dropping it removes it from
/// the screen.
pub struct Progress {
    bar: Option<ProgressBar>,
    jobs: usize,
}

impl Progress {
    /// Returns a display for this many files, of which `jobs` are parsed at the same time.
    pub fn of(files: usize, jobs: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template(TEMPLATE).expect("the template is fixed, and right");
            let bar = ProgressBar::new(files as u64).with_style(style);
            bar.enable_steady_tick(REDRAW_INTERVAL);
            bar
        });
        Progress { bar, jobs }
    }

    /// Counts one more file, which is in the ledger.
    pub fn advance(&self, ledger: &Ledger<'_>) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
            self.show_running(ledger);
        }
    }

    /// Shows the names of the files that are being parsed. Files begin in the order of the ledger,
    /// so these are the first ones without an outcome.
    pub fn show_running(&self, ledger: &Ledger<'_>) {
        if let Some(bar) = &self.bar {
            let names: Vec<_> = ledger.pending().take(self.jobs).map(short).collect();
            bar.set_message(names.join(", "));
        }
    }
}

/// Returns the last three parts of a path: of a file in a crate, for example
/// `syn-2.0.1/src/lib.rs`.
fn short(path: &Path) -> String {
    let parts: Vec<_> = path.iter().collect();
    let last: PathBuf = parts[parts.len().saturating_sub(3)..].iter().collect();
    last.display().to_string()
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_has_at_most_three_parts() {
        assert_eq!(short(Path::new("lib.rs")), "lib.rs");
        assert_eq!(short(Path::new("/src/a.rs")), "/src/a.rs");
        let path = Path::new("/root/registry/syn-2.0.1/src/lib.rs");
        assert_eq!(short(path), "syn-2.0.1/src/lib.rs");
    }
}
