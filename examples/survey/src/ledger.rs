//! The ledger: the outcome of each file that was found.
//!
//! Every file has one slot, which is filled once. So no file can be lost or counted twice without a
//! panic, and the totals of a report are counted from the same slots as its lists.

use std::path::{Path, PathBuf};

use crate::measure::Metrics;
use crate::reason::Reason;

/// The outcome of one file.
pub type Outcome = Result<Metrics, Reason>;

/// The slots of all files, in the order of their paths.
#[derive(Debug)]
pub struct Ledger<'a> {
    files: &'a [PathBuf],
    outcomes: Vec<Option<Outcome>>,
    /// All files before this index have outcomes.
    settled_before: usize,
}

impl<'a> Ledger<'a> {
    /// Returns a ledger of empty slots.
    pub fn of(files: &'a [PathBuf]) -> Self {
        Ledger {
            files,
            outcomes: vec![None; files.len()],
            settled_before: 0,
        }
    }

    /// Records the outcome of the file at `index`.
    ///
    /// # Panics
    ///
    /// Panics if the file has an outcome already.
    pub fn settle(&mut self, index: usize, outcome: Outcome) {
        let before = self.outcomes[index].replace(outcome);
        assert_eq!(before, None, "{:?} is settled twice", self.files[index]);
        let rest = &self.outcomes[self.settled_before..];
        self.settled_before += rest.iter().take_while(|slot| slot.is_some()).count();
    }

    /// Returns the files that were surveyed.
    pub fn surveyed(&self) -> impl Iterator<Item = (&'a Path, &Metrics)> {
        self.slots()
            .filter_map(|(path, outcome)| Some((path, outcome?.as_ref().ok()?)))
    }

    /// Returns the files that could not be surveyed.
    pub fn reported(&self) -> impl Iterator<Item = (&'a Path, &Reason)> {
        self.slots()
            .filter_map(|(path, outcome)| Some((path, outcome?.as_ref().err()?)))
    }

    /// Returns the files without an outcome, in the order in which they begin.
    pub fn pending(&self) -> impl Iterator<Item = &'a Path> {
        self.slots()
            .skip(self.settled_before)
            .filter_map(|(path, outcome)| outcome.is_none().then_some(path))
    }

    /// Returns the number of files without an outcome.
    pub fn unreached(&self) -> usize {
        self.pending().count()
    }

    /// Checks that every file has exactly one outcome, and that none is missing unless the survey
    /// was `interrupted`.
    ///
    /// # Panics
    ///
    /// Panics if the counts do not add up, which would be a bug.
    pub fn assert_complete(&self, interrupted: bool) {
        let (surveyed, reported) = (self.surveyed().count(), self.reported().count());
        let unreached = self.unreached();
        assert_eq!(surveyed + reported + unreached, self.files.len());
        assert!(interrupted || unreached == 0, "{unreached} files were lost");
    }

    fn slots(&self) -> impl Iterator<Item = (&'a Path, Option<&Outcome>)> {
        let paths = self.files.iter().map(PathBuf::as_path);
        paths.zip(self.outcomes.iter().map(Option::as_ref))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<PathBuf> {
        vec!["a.rs".into(), "b.rs".into(), "c.rs".into()]
    }

    #[test]
    fn every_file_is_in_one_place() {
        let files = files();
        let mut ledger = Ledger::of(&files);
        assert_eq!(ledger.unreached(), 3);
        ledger.settle(2, Ok(Metrics::default()));
        ledger.settle(0, Err(Reason::OverMemory));
        ledger.assert_complete(true);
        let names = |path: &Path| path.display().to_string();
        assert_eq!(
            ledger
                .surveyed()
                .map(|(path, _)| names(path))
                .collect::<Vec<_>>(),
            ["c.rs"]
        );
        assert_eq!(
            ledger
                .reported()
                .map(|(path, _)| names(path))
                .collect::<Vec<_>>(),
            ["a.rs"]
        );
        assert_eq!(ledger.pending().map(names).collect::<Vec<_>>(), ["b.rs"]);
        assert_eq!(ledger.unreached(), 1);
        ledger.settle(1, Ok(Metrics::default()));
        ledger.assert_complete(false);
    }

    #[test]
    #[should_panic(expected = "3 files were lost")]
    fn a_lost_file_is_noticed() {
        Ledger::of(&files()).assert_complete(false);
    }

    #[test]
    #[should_panic(expected = "settled twice")]
    fn a_file_is_settled_once() {
        let files = files();
        let mut ledger = Ledger::of(&files);
        ledger.settle(0, Ok(Metrics::default()));
        ledger.settle(0, Err(Reason::OverMemory));
    }
}
