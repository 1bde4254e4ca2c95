//! Runs the tests of worker programs with a `main` of their own, with spawned workers and with
//! forked ones.
//!
//! libtest cannot run forked ones, because it starts threads before the hook.
//!
//! The name of a test begins with its mode: `spawned::calls::..`, `forked::calls::..`. A process
//! runs tests of one mode, because a mode decides which threads the process has at the hook. Tests
//! count processes and descriptors, so only one test runs at a time in a process. Unless the
//! arguments select one mode, this program starts itself several times, and each process runs a
//! share of the tests.

#![allow(dead_code)] // each test program uses its own part of this

use std::ffi::{OsStr, OsString};
use std::panic::resume_unwind;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;

use libtest_mimic::{Arguments, Trial};

/// The names and functions of a file's tests.
pub type Suite = &'static [(&'static str, fn())];

/// Test modules, and the modes in which their tests run.
pub type Part<'a> = (&'a [Mode], &'a [(&'static str, Suite)]);

/// How the workers of a process are started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As under libtest, a test reaches the hook on a thread that has the test's name, while the
    /// main thread waits. `WorkerType::Auto` spawns the workers.
    Spawned,
    /// Tests run on the main thread, which has reached the hook as the only thread.
    Forked,
}

pub const BOTH: &[Mode] = &[Mode::Spawned, Mode::Forked];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Spawned => "spawned",
            Mode::Forked => "forked",
        }
    }

    /// Returns the mode with which the name of a test, or a share, begins.
    fn at_start_of(text: &str, separator: char) -> Option<(Mode, &str)> {
        let (name, rest) = text.split_once(separator)?;
        let mode = BOTH.iter().find(|mode| mode.name() == name)?;
        Some((*mode, rest))
    }

    /// With musl, forking is not safe.
    fn is_possible(self) -> bool {
        self == Mode::Spawned || !cfg!(target_env = "musl")
    }
}

static MODE: OnceLock<Mode> = OnceLock::new();

/// Returns the mode of this process. A test program of libtest has none.
pub fn mode() -> Option<Mode> {
    MODE.get().copied()
}

/// Returns the name of a test of this process's mode.
pub fn name_of(module: &str, test: &str) -> String {
    let mode = mode().expect("this program runs its tests in modes");
    format!("{}::{module}::{test}", mode.name())
}

/// Prepares a thread whose calls have the hook of the test that runs now. In spawned mode it must
/// have the name of the test for that.
pub fn thread_of_test() -> thread::Builder {
    let name = thread::current().name().map(str::to_owned);
    match (mode(), name) {
        (Some(Mode::Forked), _) | (_, None) => thread::Builder::new(),
        (_, Some(name)) => thread::Builder::new().name(name),
    }
}

/// The argument of a process that runs a share of the tests: followed by the mode, and after a
/// colon the number of the share and, after a slash, the number of shares.
const SHARE: &str = "--share=";

/// A part of the tests of a mode.
#[derive(Clone, Copy)]
struct Share {
    mode: Mode,
    number: usize,
    count: usize,
}

impl Share {
    fn all_of(mode: Mode) -> Self {
        Share {
            mode,
            number: 0,
            count: 1,
        }
    }

    fn from_argument(argument: &OsStr) -> Option<Self> {
        let share = argument.to_str()?.strip_prefix(SHARE)?;
        let (mode, share) = Mode::at_start_of(share, ':')?;
        let (number, count) = share.split_once('/')?;
        Some(Share {
            mode,
            number: number.parse().ok()?,
            count: count.parse().ok()?,
        })
    }

    fn name(self) -> String {
        format!("{}:{}/{}", self.mode.name(), self.number, self.count)
    }
}

/// Returns the number of processors.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(8))
}

/// Runs the tests that the program's arguments select, and exits. At most `at_once` shares of the
/// tests run at the same time.
pub fn run(at_once: usize, parts: &[Part<'_>]) -> ! {
    let mut own: Vec<OsString> = std::env::args_os().collect();
    let share = own.get(1).and_then(|first| Share::from_argument(first));
    if share.is_some() {
        own.remove(1);
    }
    let arguments = Arguments::from_iter(own.iter());
    if arguments.list {
        let all = BOTH.iter().flat_map(|&mode| trials(mode, parts));
        libtest_mimic::run(&arguments, all.collect()).exit();
    }
    match share.or_else(|| only_share(&arguments, parts)) {
        Some(share) => run_share(share, arguments, parts),
        None => {
            let at_once = arguments.test_threads.unwrap_or(at_once).max(1);
            let count = if arguments.filter.is_none() {
                at_once
            } else {
                1 // few tests
            };
            run_shares(&shares(count, parts), &own[1..], at_once)
        }
    }
}

/// Returns the share of this process if its arguments select tests of one mode.
fn only_share(arguments: &Arguments, parts: &[Part<'_>]) -> Option<Share> {
    let filter = arguments.filter.as_ref()?;
    if let Some((mode, _)) = Mode::at_start_of(filter, ':') {
        return Some(Share::all_of(mode));
    }
    match shares(1, parts)[..] {
        [only] => Some(only),
        // The name is that of a thread which the library took for a test. No test runs, as under
        // libtest.
        _ if std::env::var_os("SEEDBED_WORKER").is_some() => Some(Share::all_of(Mode::Spawned)),
        _ => None,
    }
}

/// Divides the tests of each mode into shares.
fn shares(count: usize, parts: &[Part<'_>]) -> Vec<Share> {
    let has_tests = |&mode: &Mode| trials(mode, parts).next().is_some();
    let modes = BOTH.iter().copied().filter(has_tests);
    let share = |mode, number| Share {
        mode,
        number,
        count,
    };
    modes
        .flat_map(|mode| (0..count).map(move |number| share(mode, number)))
        .collect()
}

/// Returns the tests of a mode, if it is possible.
fn trials(mode: Mode, parts: &[Part<'_>]) -> impl Iterator<Item = Trial> {
    let parts = parts
        .iter()
        .filter(move |(modes, _)| mode.is_possible() && modes.contains(&mode));
    let modules = parts.flat_map(|(_, modules)| modules.iter());
    modules.flat_map(move |&(module, suite)| {
        suite.iter().map(move |&(test, function)| {
            let name = format!("{}::{module}::{test}", mode.name());
            Trial::test(name.clone(), move || {
                run_test(mode, name, function);
                Ok(())
            })
        })
    })
}

fn run_test(mode: Mode, name: String, test: fn()) {
    match mode {
        Mode::Forked => test(),
        Mode::Spawned => {
            let thread = thread::Builder::new().name(name).spawn(test);
            let outcome = thread.expect("a thread can be started").join();
            outcome.unwrap_or_else(|panic| resume_unwind(panic));
        }
    }
}

/// Runs a share of the tests in this process.
fn run_share(share: Share, mut arguments: Arguments, parts: &[Part<'_>]) -> ! {
    MODE.get_or_init(|| share.mode);
    if share.mode == Mode::Forked {
        super::dispositions::reset();
        super::stage::before_the_hook();
        seedbed::init();
    }
    let trials = trials(share.mode, parts);
    let trials = trials.skip(share.number).step_by(share.count).collect();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit()
}

/// Runs each share in a process of its own, prints what the processes print, those that fail last,
/// and exits.
fn run_shares(shares: &[Share], arguments: &[OsString], at_once: usize) -> ! {
    if shares.is_empty() {
        println!("skipped: with musl, forking is not safe");
    }
    let waiting = Mutex::new(shares.iter().copied());
    let (sender, ended) = mpsc::channel();
    let failed = thread::scope(|threads| {
        for _ in 0..at_once {
            let (waiting, sender) = (&waiting, sender.clone());
            threads.spawn(move || {
                let next = || waiting.lock().expect("no thread panics with it").next();
                while let Some(share) = next() {
                    let outcome = (share, output_of(share, arguments));
                    sender.send(outcome).expect("the main thread receives it");
                }
            });
        }
        drop(sender);
        let mut failed = Vec::new();
        for (share, output) in ended {
            if output.status.success() {
                print(&output);
            } else {
                failed.push((share, output));
            }
        }
        failed
    });
    for (share, output) in &failed {
        print(output);
        println!(
            "FAILED: share {} of the tests: {}",
            share.name(),
            output.status
        );
    }
    std::process::exit(i32::from(!failed.is_empty()))
}

fn output_of(share: Share, arguments: &[OsString]) -> Output {
    let program = std::env::current_exe().expect("a test knows its own file");
    let mut command = Command::new(program);
    command
        .arg(format!("{SHARE}{}", share.name()))
        .args(arguments)
        .stdin(Stdio::inherit())
        // Jobs panic on purpose, and each process reads its debug information for the first
        // backtrace. A test that fails can be run again by its name.
        .env("RUST_BACKTRACE", "0");
    command.output().expect("this program can be started")
}

fn print(output: &Output) {
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
}
