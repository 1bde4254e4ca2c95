//! The report: tables for people, JSON for programs. This file makes the text; `main` prints it.

use std::fmt::{self, Display, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::HumanCount;
use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::measure::Metrics;
use crate::reason::Reason;

/// The length of each list of the highest files.
const TOP: usize = 10;

/// A value that is counted in each file, and its texts in the report.
struct Measure {
    /// Its name in the table and, with underscores, in JSON.
    name: &'static str,
    /// The heading of its ten highest files.
    heading: &'static str,
    /// Whether the sum over files is meaningful.
    adds_up: bool,
    /// Its value in one file.
    value: fn(&Metrics) -> u64,
}

const MEASURES: [Measure; 5] = [
    Measure {
        name: "lines",
        heading: "Most lines",
        adds_up: true,
        value: |metrics| metrics.lines,
    },
    Measure {
        name: "functions",
        heading: "Most functions",
        adds_up: true,
        value: |metrics| metrics.functions,
    },
    Measure {
        name: "unsafe blocks",
        heading: "Most unsafe blocks",
        adds_up: true,
        value: |metrics| metrics.unsafe_blocks,
    },
    Measure {
        name: "longest function",
        heading: "Longest functions (lines)",
        adds_up: false,
        value: |metrics| {
            metrics
                .longest
                .as_ref()
                .map_or(0, |function| function.lines)
        },
    },
    Measure {
        name: "deepest nesting",
        heading: "Deepest nesting (blocks)",
        adds_up: false,
        value: |metrics| metrics.nesting,
    },
];

impl Measure {
    /// The name as a key of JSON.
    fn key(&self) -> String {
        self.name.replace(' ', "_")
    }

    /// Returns the files with the highest values, the highest first, without files whose value is
    /// zero.
    fn top<'a>(&self, ledger: &'a Ledger<'_>) -> Vec<(u64, &'a Path, &'a Metrics)> {
        let mut files: Vec<_> = ledger
            .surveyed()
            .map(|(path, metrics)| ((self.value)(metrics), path, metrics))
            .filter(|(value, ..)| *value > 0)
            .collect();
        // The sort is stable, so equal values stay in the order of their paths.
        files.sort_by_key(|(value, ..)| std::cmp::Reverse(*value));
        files.truncate(TOP);
        files
    }

    /// Returns the function that a line of the list is about, if there is one.
    fn function<'a>(&self, metrics: &'a Metrics) -> Option<&'a crate::measure::Function> {
        metrics
            .longest
            .as_ref()
            .filter(|_| self.name == "longest function")
    }
}

/// The contents of a report.
pub struct Report<'a> {
    /// The outcomes of the files.
    pub ledger: &'a Ledger<'a>,
    /// The number of files that the walk found: more than the ledger has if there is a `--limit`.
    pub found: usize,
    /// The folders that the walk could not read.
    pub unread: &'a [(PathBuf, String)],
    /// Folders that the tables print once, instead of once per path.
    pub below: &'a [PathBuf],
    /// The duration of the survey.
    pub elapsed: Duration,
    /// Whether the survey was interrupted.
    pub interrupted: bool,
}

/// The numbers of files, which must add up.
struct Accounts {
    surveyed: usize,
    reported: usize,
    unreached: usize,
    beyond_limit: usize,
}

impl Report<'_> {
    fn accounts(&self) -> Accounts {
        let accounts = Accounts {
            surveyed: self.ledger.surveyed().count(),
            reported: self.ledger.reported().count(),
            unreached: self.ledger.unreached(),
            beyond_limit: 0,
        };
        let taken = accounts.surveyed + accounts.reported + accounts.unreached;
        Accounts {
            beyond_limit: self.found - taken,
            ..accounts
        }
    }

    /// Returns the number of files and folders that could not be read.
    pub fn failures(&self) -> usize {
        let files = self.ledger.reported();
        let unseen = files.filter(|(_, reason)| reason.is_failure_of_the_survey());
        unseen.count() + self.unread.len()
    }

    /// Returns the report as one JSON object.
    pub fn json(&self) -> String {
        let accounts = self.accounts();
        let report = json!({
            "found": self.found,
            "surveyed": accounts.surveyed,
            "reported": accounts.reported,
            "unreached": accounts.unreached,
            "beyond_limit": accounts.beyond_limit,
            "interrupted": self.interrupted,
            "seconds": self.elapsed.as_secs_f64(),
            "totals": self.totals_as_json(),
            "top": self.top_as_json(),
            "files": self.ledger.surveyed().map(file_as_json).collect::<Vec<_>>(),
            "not_surveyed": self.ledger.reported().map(reason_as_json).collect::<Vec<_>>(),
            "unread_folders": self.unread.iter().map(|(path, message)| json!({
                "path": path.to_string_lossy(),
                "message": message,
            })).collect::<Vec<_>>(),
        });
        format!("{report:#}\n")
    }

    fn totals_as_json(&self) -> Value {
        let totals = MEASURES.iter().map(|measure| {
            let sums = Sums::of(measure, self.ledger);
            let total = measure.adds_up.then_some(sums.total);
            (
                measure.key(),
                json!({ "total": total, "highest": sums.highest }),
            )
        });
        Value::Object(totals.collect())
    }

    fn top_as_json(&self) -> Value {
        let lists = MEASURES.iter().map(|measure| {
            let top = measure.top(self.ledger).into_iter();
            let list = top.map(|(value, path, metrics)| match measure.function(metrics) {
                Some(function) => json!({
                    "path": path.to_string_lossy(),
                    "line": function.line,
                    "function": function.name,
                    "value": value,
                }),
                None => json!({ "path": path.to_string_lossy(), "value": value }),
            });
            (measure.key(), list.collect())
        });
        Value::Object(lists.collect())
    }
}

fn file_as_json((path, metrics): (&Path, &Metrics)) -> Value {
    json!({ "path": path.to_string_lossy(), "metrics": metrics })
}

fn reason_as_json((path, reason): (&Path, &Reason)) -> Value {
    let mut file = json!({
        "path": path.to_string_lossy(),
        "reason": reason.name(),
        "message": reason.to_string(),
    });
    if let Reason::Syntax { line, column, .. } = reason {
        file["line"] = json!(line);
        file["column"] = json!(column);
    }
    file
}

/// Returns the report as tables.
impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_totals(f)?;
        for measure in &MEASURES {
            self.write_top(f, measure)?;
        }
        self.write_not_surveyed(f)?;
        self.write_accounts(f)
    }
}

impl Report<'_> {
    fn write_totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for folder in self.below {
            writeln!(f, "Paths are below {}", on_one_line(folder))?;
        }
        if !self.below.is_empty() {
            writeln!(f)?;
        }
        let [total, mean, highest] = ["total", "per file", "highest"];
        writeln!(f, "{:<18}{total:>14}{mean:>12}{highest:>12}", "")?;
        for measure in &MEASURES {
            let sums = Sums::of(measure, self.ledger);
            let total = if measure.adds_up {
                HumanCount(sums.total).to_string()
            } else {
                String::new()
            };
            let mean = sums.total as f64 / sums.files.max(1) as f64;
            let highest = HumanCount(sums.highest).to_string();
            writeln!(
                f,
                "{:<18}{total:>14}{mean:>12.1}{highest:>12}",
                measure.name
            )?;
        }
        Ok(())
    }

    fn write_top(&self, f: &mut fmt::Formatter<'_>, measure: &Measure) -> fmt::Result {
        let top = measure.top(self.ledger);
        if top.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{}", measure.heading)?;
        for (value, path, metrics) in top {
            let (value, path) = (HumanCount(value).to_string(), self.shown(path));
            match measure.function(metrics) {
                Some(function) => {
                    writeln!(f, "{value:>10}  {path}:{} {}", function.line, function.name)?
                }
                None => writeln!(f, "{value:>10}  {path}")?,
            }
        }
        Ok(())
    }

    fn write_not_surveyed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = [0_u64; Reason::NAMES.len()];
        let mut lines = String::new();
        for (path, reason) in self.ledger.reported() {
            let name = Reason::NAMES.iter().position(|name| *name == reason.name());
            counts[name.expect("every reason has a name in the list")] += 1;
            writeln!(lines, "  {}: {reason}", self.shown(path))?;
        }
        if !lines.is_empty() {
            writeln!(f, "\nNot surveyed")?;
            for (count, name) in counts.iter().zip(Reason::NAMES) {
                if *count > 0 {
                    writeln!(f, "{:>10}  {name}", HumanCount(*count).to_string())?;
                }
            }
            write!(f, "\n{lines}")?;
        }
        for (path, message) in self.unread {
            writeln!(f, "\n  {}: folder unreadable: {message}", self.shown(path))?;
        }
        Ok(())
    }

    /// Returns a path as the tables show it.
    fn shown(&self, path: &Path) -> String {
        let inside = self
            .below
            .iter()
            .find_map(|folder| path.strip_prefix(folder).ok());
        on_one_line(inside.unwrap_or(path))
    }

    /// Returns the last and most important line: whether every file is accounted for.
    fn write_accounts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |files: usize| HumanCount(files as u64);
        let accounts = self.accounts();
        write!(
            f,
            "\n{} surveyed + {} reported",
            count(accounts.surveyed),
            count(accounts.reported)
        )?;
        if self.interrupted {
            write!(f, " + {} not reached", count(accounts.unreached))?;
        }
        if accounts.beyond_limit > 0 {
            write!(f, " + {} beyond --limit", count(accounts.beyond_limit))?;
        }
        let seconds = self.elapsed.as_secs_f64();
        writeln!(f, " = {} files found, in {seconds:.1} s", count(self.found))
    }
}

/// A measure over all files.
#[derive(Default)]
struct Sums {
    files: u64,
    total: u64,
    highest: u64,
}

impl Sums {
    fn of(measure: &Measure, ledger: &Ledger<'_>) -> Sums {
        let values = ledger
            .surveyed()
            .map(|(_, metrics)| (measure.value)(metrics));
        values.fold(Sums::default(), |sums, value| Sums {
            files: sums.files + 1,
            total: sums.total + value,
            highest: sums.highest.max(value),
        })
    }
}

/// Returns a path on one line of a terminal. Control characters in a file name are replaced, so
/// that they cannot move the cursor.
fn on_one_line(path: &Path) -> String {
    let text = path.to_string_lossy();
    let escaped = text.chars().map(|char| {
        if char.is_control() {
            char.escape_default().to_string()
        } else {
            char.to_string()
        }
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Function;

    fn metrics(lines: u64) -> Metrics {
        Metrics {
            lines,
            functions: 2,
            unsafe_blocks: 0,
            longest: Some(Function {
                name: "parse".to_owned(),
                line: 7,
                lines: 30,
            }),
            nesting: 4,
        }
    }

    /// Reports three files, one of each outcome, of five that were found.
    fn reported<R>(interrupted: bool, look: impl FnOnce(Report<'_>) -> R) -> R {
        let files = ["a.rs", "long/way/b.rs", "c\n.rs"].map(PathBuf::from);
        let mut ledger = Ledger::of(&files);
        ledger.settle(0, Ok(metrics(1234)));
        ledger.settle(
            2,
            Err(Reason::Syntax {
                line: 3,
                column: 14,
                message: "expected `;`".to_owned(),
            }),
        );
        if !interrupted {
            ledger.settle(1, Ok(metrics(2000)));
        }
        look(Report {
            ledger: &ledger,
            found: 5,
            unread: &[("sub".into(), "Permission denied".into())],
            below: &["long/way".into()],
            elapsed: Duration::from_millis(2345),
            interrupted,
        })
    }

    #[test]
    fn the_tables_show_totals_tops_reasons_and_accounts() {
        let text = reported(false, |report| report.to_string());
        for line in [
            "Paths are below long/way",
            "                           total    per file     highest",
            "lines                      3,234      1617.0       2,000",
            "longest function                        30.0          30",
            "Most lines",
            "     2,000  b.rs",
            "     1,234  a.rs",
            "        30  a.rs:7 parse",
            "         1  syntax error",
            "  c\\n.rs: syntax error at 3:14: expected `;`",
            "  sub: folder unreadable: Permission denied",
            "2 surveyed + 1 reported + 2 beyond --limit = 5 files found, in 2.3 s",
        ] {
            assert!(
                text.lines().any(|shown| shown == line),
                "no line {line:?} in\n{text}"
            );
        }
        assert!(
            !text.contains("Most unsafe blocks"),
            "nothing to list, no list:\n{text}"
        );
    }

    #[test]
    fn an_interrupted_survey_says_what_it_did_not_reach() {
        let text = reported(true, |report| report.to_string());
        assert!(
            text.contains("1 surveyed + 1 reported + 1 not reached + 2 beyond --limit = 5"),
            "{text}"
        );
    }

    #[test]
    fn the_json_says_the_same() {
        let json: Value = serde_json::from_str(&reported(false, |report| report.json())).unwrap();
        assert_eq!(json["found"], 5);
        assert_eq!(json["surveyed"], 2);
        assert_eq!(json["totals"]["lines"]["total"], 3234);
        assert_eq!(json["totals"]["deepest_nesting"]["total"], Value::Null);
        assert_eq!(json["top"]["lines"][0]["path"], "long/way/b.rs");
        assert_eq!(json["top"]["longest_function"][0]["function"], "parse");
        assert_eq!(json["files"][0]["metrics"]["longest"]["line"], 7);
        assert_eq!(json["not_surveyed"][0]["reason"], "syntax error");
        assert_eq!(json["not_surveyed"][0]["column"], 14);
        assert_eq!(json["unread_folders"][0]["message"], "Permission denied");
    }

    #[test]
    fn only_what_was_not_seen_counts_as_a_failure() {
        // A syntax error is a result; a folder that cannot be read is not.
        assert_eq!(reported(false, |report| report.failures()), 1);
    }

    #[test]
    fn the_top_has_ten_files_and_equals_stay_in_order() {
        let files: Vec<PathBuf> = (10..30).map(|n| format!("{n}.rs").into()).collect();
        let mut ledger = Ledger::of(&files);
        for index in 0..files.len() {
            ledger.settle(index, Ok(metrics(7)));
        }
        let top = MEASURES[0].top(&ledger);
        let paths: Vec<_> = top.iter().map(|(_, path, _)| path.to_path_buf()).collect();
        assert_eq!(paths, files[..10]);
    }

    #[test]
    fn an_empty_survey_has_a_report() {
        let ledger = Ledger::of(&[]);
        let report = Report {
            ledger: &ledger,
            found: 0,
            unread: &[],
            below: &[],
            elapsed: Duration::ZERO,
            interrupted: false,
        };
        assert!(
            report
                .to_string()
                .contains("0 surveyed + 0 reported = 0 files found")
        );
    }
}
