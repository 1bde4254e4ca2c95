//! The command line: parses text into [`Options`], without side effects.
//!
//! `lexopt` splits the arguments. The standard library cannot parse times and sizes, so this file
//! does. Every mistake is an error with a one-line message, which `main` prints.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Error, ValueExt};

/// The text that `--help` prints.
pub const HELP: &str = "\
Surveys Rust source trees: parses every .rs file in worker processes that may crash, hang or eat memory.

Usage: survey [OPTIONS] [FOLDER]...

Without a folder: the sources of all crates in cargo's registry, and this project's own.

Options:
  --timeout TIME   kill the worker of a file that takes longer [default: 5s] (ms, s, m, h)
  --memory SIZE    address space that each worker may use [default: 512M] (K, M, G; at least 64M)
  --jobs N         files that are parsed at the same time [default: the number of CPUs]
  --limit N        survey the first N files only, in the order of their paths
  --json           print JSON instead of tables
  --help           print this

Exit status: 0 if every file could be read, 1 if some could not, 2 for wrong arguments.
A file that is not valid Rust, or that was too much for its worker, is a result and not a failure.
";

/// The least value of `--memory`: a worker needs address space for the program itself.
const LEAST_MEMORY: u64 = 64 << 20;

/// The request of the command line.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Survey with these options.
    Survey(Options),
}

/// The options of a survey.
#[derive(Debug, PartialEq)]
pub struct Options {
    /// The time limit for one file.
    pub timeout: Duration,
    /// The address space of a worker, in bytes.
    pub memory: u64,
    /// The number of files that are measured at the same time; `None`: one for each CPU.
    pub jobs: Option<NonZeroUsize>,
    /// The greatest number of files to survey.
    pub limit: Option<usize>,
    /// Print JSON instead of tables.
    pub json: bool,
    /// The folders to survey. Empty: the default folders.
    pub folders: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            timeout: Duration::from_secs(5),
            memory: 512 << 20,
            jobs: None,
            limit: None,
            json: false,
            folders: Vec::new(),
        }
    }
}

/// Parses the arguments, without the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("timeout") => options.timeout = parser.value()?.parse_with(duration)?,
            Arg::Long("memory") => options.memory = parser.value()?.parse_with(memory)?,
            Arg::Long("jobs") => options.jobs = Some(parser.value()?.parse_with(at_least_one)?),
            Arg::Long("limit") => options.limit = Some(parser.value()?.parse()?),
            Arg::Long("json") => options.json = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Value(folder) => options.folders.push(folder.into()),
            unknown => return Err(unknown.unexpected()),
        }
    }
    Ok(Command::Survey(options))
}

/// Parses a time: `5s`, `250ms`, `2m`, `1h`. A bare number is in seconds.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let (number, unit) = number_and_unit(text).ok_or("a time looks like 5s, 250ms or 2m")?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("the units of time are ms, s, m and h"),
    };
    match number.checked_mul(milliseconds) {
        Some(0) => Err("no file can be surveyed in no time"),
        // More than a hundred years is a mistake, and not every clock could represent it.
        Some(time) if time <= 100 * 365 * 24 * 3_600_000 => Ok(Duration::from_millis(time)),
        _ => Err("that is too long a time"),
    }
}

/// Parses a size that is large enough for a worker.
fn memory(text: &str) -> Result<u64, &'static str> {
    match size(text)? {
        bytes if bytes < LEAST_MEMORY => Err("a worker needs at least 64M"),
        bytes => Ok(bytes),
    }
}

/// Parses a size: `512M`, `2G`, `65536K`. A bare number is in bytes.
fn size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = number_and_unit(text).ok_or("a size looks like 512M or 2G")?;
    let unit = match unit.to_ascii_uppercase().as_str() {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err("the units of size are K, M and G"),
    };
    number
        .checked_mul(unit)
        .ok_or("that is more than any machine has")
}

/// Parses a number of jobs. `NonZeroUsize` could be parsed directly, but its error messages mention
/// a "non-zero type".
fn at_least_one(text: &str) -> Result<NonZeroUsize, &'static str> {
    let number: usize = text
        .parse()
        .map_err(|_| "a number of jobs looks like 1 or 8")?;
    NonZeroUsize::new(number).ok_or("nothing gets done by no jobs")
}

/// Splits `12ms` into `12` and `ms`. Returns `None` if the text does not start with a number that
/// fits.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses arguments that are written as on a command line.
    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    fn options(line: &str) -> Options {
        match parsed(line) {
            Ok(Command::Survey(options)) => options,
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn no_arguments_mean_the_documented_defaults() {
        assert_eq!(options(""), Options::default());
        assert!(HELP.contains("[default: 5s]") && HELP.contains("[default: 512M]"));
    }

    #[test]
    fn every_option_is_read() {
        assert_eq!(
            options("--timeout 250ms a --memory=1G --jobs 3 --limit 10 --json b"),
            Options {
                timeout: Duration::from_millis(250),
                memory: 1 << 30,
                jobs: NonZeroUsize::new(3),
                limit: Some(10),
                json: true,
                folders: vec!["a".into(), "b".into()],
            }
        );
        assert_eq!(parsed("--help"), Ok(Command::Help));
        assert_eq!(parsed("folder -h"), Ok(Command::Help));
    }

    #[test]
    fn a_folder_may_look_like_an_option_after_two_dashes() {
        assert_eq!(options("-- --json").folders, vec![PathBuf::from("--json")]);
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(size("123"), Ok(123));
        assert_eq!(size("65536k"), Ok(64 << 20));
        assert_eq!(size("2G"), Ok(2 << 30));
    }

    #[test]
    fn a_wrong_argument_is_one_clear_line() {
        for (line, message) in [
            ("--tiemout 5s", "invalid option '--tiemout'"),
            ("-x", "invalid option '-x'"),
            ("--timeout", "missing argument for option '--timeout'"),
            ("--timeout soon", "a time looks like 5s"),
            ("--timeout 5d", "the units of time are"),
            ("--timeout 0s", "in no time"),
            ("--timeout 18446744073709551615h", "too long a time"),
            ("--timeout -5s", "a time looks like 5s"),
            ("--memory lots", "a size looks like 512M"),
            ("--memory 5T", "the units of size are"),
            ("--memory 1K", "at least 64M"),
            (
                "--memory 18446744073709551615G",
                "more than any machine has",
            ),
            ("--jobs 0", "by no jobs"),
            ("--jobs many", "a number of jobs looks like"),
            ("--limit -1", "invalid digit"),
            ("--json=yes", "unexpected argument for option '--json'"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(message), "{line:?} gave {error:?}");
            assert_eq!(error.lines().count(), 1, "{line:?} gave {error:?}");
        }
    }
}
