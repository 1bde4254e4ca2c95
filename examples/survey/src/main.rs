//! Surveys real Rust source trees: what is the longest function in all crates on this machine?
//!
//! ```text
//! cargo run --release -p survey                        # cargo's registry, and this project
//! cargo run --release -p survey -- --jobs 4 some/folder
//! ```
//!
//! The survey parses every `.rs` file with `syn`. Doing that in its own process would be dangerous:
//! a deeply nested file overflows the stack, a FIFO in the tree blocks forever, a huge file needs
//! all memory. So worker processes do the parsing, and one page of code with [`seedbed`] guarantees
//! that
//!
//! * a file that takes too long is killed, and its worker is reaped;
//! * a file that crashes its worker, or exceeds its memory, does not affect the result of another
//!   file;
//! * Ctrl-C prints the results so far and leaves no process behind;
//! * every file that was found is accounted for, which is asserted at the end.
//!
//! The other files do not depend on seedbed: `cli` parses the arguments, `find` walks the folders,
//! `measure` is the job, `limits` sets the limits of a worker, `reason` classifies failures,
//! `ledger` records the outcomes, and `report` and `progress` show them.

mod cli;
mod find;
mod ledger;
mod limits;
mod measure;
mod progress;
mod reason;
mod report;

use std::cell::RefCell;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use seedbed::sync::CapacityLimiter;
use seedbed::worker::WorkerErrorKind;
use seedbed::{WorkerConfig, WorkerError, on_cancel, open_worker_context};

use crate::cli::{Command, Options};
use crate::find::{Extent, find};
use crate::ledger::Ledger;
use crate::limits::cap_memory;
use crate::measure::measure;
use crate::progress::Progress;
use crate::reason::Reason;
use crate::report::Report;

#[seedbed::main]
async fn main() -> ExitCode {
    let done = match cli::parse(env::args_os().skip(1)) {
        Ok(Command::Survey(options)) => survey(&options).await,
        Ok(Command::Help) => Ok(print(cli::HELP)),
        Err(error) => Err(error.to_string()),
    };
    done.unwrap_or_else(|mistake| {
        eprintln!("survey: {mistake}");
        ExitCode::from(2)
    })
}

/// Finds the files, measures them all, and prints the report, even if Ctrl-C ends the survey early.
async fn survey(options: &Options) -> Result<ExitCode, String> {
    let start = Instant::now();
    let (found, below) = if !options.folders.is_empty() {
        (find(&options.folders, Extent::Everything)?, Vec::new())
    } else {
        let folders = folders_of_everybody();
        (find(&folders, Extent::SourcesOnly)?, folders)
    };
    let limit = options.limit.unwrap_or(usize::MAX);
    let files = &found.files[..found.files.len().min(limit)];
    let ledger = RefCell::new(Ledger::of(files));

    let report = |interrupted| {
        let ledger = ledger.borrow();
        ledger.assert_complete(interrupted);
        let report = Report {
            ledger: &ledger,
            found: found.files.len(),
            unread: &found.unread,
            below: &below,
            elapsed: start.elapsed(),
            interrupted,
        };
        print_report(&report, options.json)
    };

    // Ctrl-C cancels the run. Cancellation kills and reaps all workers, then the second future
    // runs, and then the process ends by SIGINT.
    let all = measure_all(files, options, &ledger);
    on_cancel(all, async { _ = report(true) }).await;
    Ok(report(false))
}

/// Returns the default folders: the crates that cargo has fetched from each registry, and this
/// project.
fn folders_of_everybody() -> Vec<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")));
    let registries = cargo_home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let mut folders: Vec<PathBuf> = registries
        .into_iter()
        .flatten()
        .filter_map(|registry| Some(registry.ok()?.path()))
        .filter(|registry| registry.is_dir())
        .collect();
    folders.sort();
    folders.push(concat!(env!("CARGO_MANIFEST_DIR"), "/../..").into());
    folders
}

/// Measures all files, at most `jobs` at a time, and records their outcomes.
async fn measure_all(files: &[PathBuf], options: &Options, ledger: &RefCell<Ledger<'_>>) {
    let jobs = options.jobs.or(available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZeroUsize::get);
    let progress = Progress::of(files.len(), jobs);
    progress.show_running(&ledger.borrow());

    // A worker that has grown to half of its limit is replaced between two jobs, so that each file
    // has at least the other half. During a job, the kernel refuses memory beyond the limit.
    let config = WorkerConfig::new()
        .init_with(options.memory, cap_memory)
        .retire_above_memory(options.memory / 2)
        .capture_stderr(true)
        .limiter(&CapacityLimiter::new(jobs));

    open_worker_context(config, async |workers| {
        let paths = files.iter().map(|path| path.as_os_str().to_owned());
        let map = workers
            .map_sync(measure, paths)
            .unordered()
            .time_limit(options.timeout)
            .kill_on_cancel(true);
        map.for_each(async |(index, result)| {
            let outcome = result.unwrap_or_else(|error| Err(reason_of(&error, options)));
            let mut ledger = ledger.borrow_mut();
            ledger.settle(index, outcome);
            progress.advance(&ledger);
        })
        .await;
    })
    .await;
}

/// Returns the reason behind a failure of a worker.
fn reason_of(error: &WorkerError, options: &Options) -> Reason {
    match (error.kind(), error.exit(), error.panic()) {
        (WorkerErrorKind::Broken, Some(exit), _) => {
            let end = match (exit.signal_name(), exit.code()) {
                (Some(signal), _) => signal.to_owned(),
                (None, Some(code)) => format!("exit code {code}"),
                (None, None) => "a signal without a name".to_owned(),
            };
            Reason::of_death(&end, exit.cause())
        }
        (WorkerErrorKind::TimedOut, ..) => Reason::TimedOut {
            after: options.timeout,
        },
        (WorkerErrorKind::Panicked, _, Some(panic)) => Reason::Panicked {
            message: panic.message().to_owned(),
        },
        _ => Reason::NoWorker {
            message: error.to_string(),
        },
    }
}

/// Prints the report, and a line on standard error if a file could not be read.
fn print_report(report: &Report<'_>, as_json: bool) -> ExitCode {
    let printed = if as_json {
        print(&report.json())
    } else {
        print(&report.to_string())
    };
    match report.failures() {
        0 => printed,
        1 => complain("one file or folder could not be read, and is in the report"),
        n => complain(&format!(
            "{n} files and folders could not be read, and are in the report"
        )),
    }
}

/// Prints a text to standard output. A closed pipe (`survey | head`) is no error.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot print: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn complain(message: &str) -> ExitCode {
    eprintln!("survey: {message}");
    ExitCode::FAILURE
}
