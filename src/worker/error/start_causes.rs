//! The constructors of [`WorkerError`] for workers that do not start, with their messages.

use std::time::Duration;

use super::exit::{Survivor, WorkerExit};
use super::worker_error::{WorkerError, WorkerErrorKind};
use crate::transport::codec;
use crate::transport::frame::{Frame, Kind};
use crate::transport::job::panic_report::WorkerPanic;
use crate::transport::message::{InitFailed, Refusal};

impl WorkerError {
    /// Reads the frame by which a worker tells that it cannot serve. Returns `None` for any other
    /// frame.
    pub(in crate::worker) fn of_refusal(frame: &Frame) -> Option<Self> {
        match frame.header.kind {
            Kind::CannotServe => Some(Self::start_lost(&frame.text())),
            Kind::Multithreaded => Some(Self::start_multithreaded(frame.header.number)),
            Kind::InitFailed => Some(match codec::decode(frame.payload()) {
                Ok(InitFailed::Panicked(report)) => Self::init(report.into()),
                Ok(InitFailed::BadData(message)) => Self::init_undecodable(&message),
                Ok(InitFailed::NotOurCode) => Self::image_mismatch(),
                Ok(InitFailed::Refused(refusal)) => {
                    let Refusal {
                        setting,
                        os_error,
                        words,
                    } = refusal;
                    Self::start_refused(&setting, os_error, &words)
                }
                Err(_) => Self::protocol("a report that cannot be decoded"),
            }),
            _ => None,
        }
    }

    pub(crate) fn not_initialized() -> Self {
        Self::new(
            WorkerErrorKind::NotInitialized,
            "no worker process can be started, because this program has not called seedbed's hook; enter with \
             `seedbed::run`, `#[seedbed::main]` or `#[seedbed::test]`, or call `seedbed::init()` at the start of `main` or \
             of the test",
        )
    }

    pub(crate) fn forked_program() -> Self {
        Self::new(
            WorkerErrorKind::ForkedProgram,
            "this process is a copy of one that had used worker processes or a run, made by `fork`; it shares their \
             connections and cannot have workers. Fork before the first run and the first call, or execute a program in \
             the copy",
        )
    }

    pub(crate) fn start(what: &str, source: std::io::Error) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process could not be started: {what}: {source}{}",
                advice(&source)
            ),
        )
        .caused_by(source)
    }

    pub(crate) fn start_without_proc(source: std::io::Error) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process could not be started: `/proc/self/exe` cannot be reached ({source}); workers are \
                 this program executed again through it, so mount `/proc`"
            ),
        )
        .caused_by(source)
    }

    pub(crate) fn start_without_loader(source: std::io::Error) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process could not be started: `/proc/self/exe` is there and cannot be executed ({source}); \
                 the dynamic loader that this program needs is missing, as in another root directory (`chroot`): put it \
                 there with the libraries, or link the program statically"
            ),
        )
        .caused_by(source)
    }

    pub(crate) fn start_lost(message: &str) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!("the worker process could not be started: {message}"),
        )
    }

    pub(crate) fn start_refused(setting: &str, os_error: Option<i32>, words: &str) -> Self {
        let source = os_error.map(std::io::Error::from_raw_os_error);
        let reason = match &source {
            Some(source) => format!("{source}; {words}"),
            None => words.to_owned(),
        };
        let error = Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process could not be started: the setting `{setting}` of its configuration cannot be carried \
                 out: {reason}"
            ),
        );
        match source {
            Some(source) => error.caused_by(source),
            None => error,
        }
    }

    pub(crate) fn unusable_setting(setting: &str, words: &str) -> Self {
        Self::new(
            WorkerErrorKind::Config,
            format!("the setting `{setting}` of the configuration cannot be used: {words}"),
        )
    }

    pub(crate) fn start_multithreaded(threads: u64) -> Self {
        Self::new(
            WorkerErrorKind::UnsafeFork,
            format!(
                "the fork server cannot fork: it has {threads} threads when it has reached seedbed's hook and called the \
                 preload closures, and a copy of it would have only one of them. Call the hook before anything in `main` that \
                 starts threads, let what `preload` starts end, or take `WorkerType::Auto` or `WorkerType::Spawn` (under \
                 libtest there is no other way: each test has a thread of its own)"
            ),
        )
    }

    /// A forked worker would not know its own thread number.
    pub(crate) fn start_without_thread_record() -> Self {
        Self::new(
            WorkerErrorKind::UnsafeFork,
            "a fork server cannot fork with this C library (musl), or on this kernel (without `PR_GET_TID_ADDRESS`): \
             a forked worker would have the thread number of the fork server, so that `abort` and `raise` would signal \
             that. Take `WorkerType::Auto` or `WorkerType::Spawn`",
        )
    }

    /// There is no shared memory for the pid table.
    pub(crate) fn start_without_memory(source: std::io::Error) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the fork server could not be started: the shared memory in which it tells of its workers cannot be \
                 made (memfd_create: {source}){}; take `WorkerType::Auto` or `WorkerType::Spawn`, or allow this program \
                 that call and files of four kilobytes",
                advice(&source)
            ),
        )
        .caused_by(source)
    }

    /// The program has started threads before the hook.
    pub(crate) fn start_among_threads(others: usize) -> Self {
        let threads = if others == 1 { "thread" } else { "threads" };
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "no worker process was started, because this program had {others} other {threads} when it reached \
                 seedbed's hook: a worker executes `main` again, and there they would run on. Call `seedbed::init()` \
                 first thing in `main`, before anything that starts threads, such as a runtime (in place of \
                 `#[tokio::main]`, build the runtime after it). If these threads may run in each worker too, because \
                 they only wait or belong to a profiler, take `WorkerType::Spawn`"
            ),
        )
    }

    /// The hook was first reached on a thread other than `main`'s.
    pub(crate) fn start_off_main() -> Self {
        Self::new(
            WorkerErrorKind::Start,
            "no worker process was started, because seedbed's hook was reached on a thread other than the one of `main`, \
             and never on that one: a worker executes `main` again, which would run on there. Call `seedbed::init()` \
             first thing in `main`, before any thread is started",
        )
    }

    /// In a test program, a thread without a name has called the hook, and no test has.
    pub(crate) fn start_without_test() -> Self {
        Self::new(
            WorkerErrorKind::Start,
            "no worker process was started, because seedbed's hook was reached on a thread that is not a test's: a \
             worker of a test is the test program with that one test. Call `seedbed::init()` first thing in the test, \
             on the thread of the test",
        )
    }

    /// In a test program, no worker came up by the name of the thread that reached the hook.
    pub(crate) fn start_of_no_test(name: &str) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "no worker process could be started: a worker of a test is the test program with that one test, and the \
                 test `{name}`, after which this thread is named, does not exist or ends before it reaches seedbed's \
                 hook. Call `seedbed::init()` first thing in the test, on the thread of the test"
            ),
        )
    }

    /// The program was started as an argument of the dynamic loader.
    pub(crate) fn start_by_loader() -> Self {
        Self::new(
            WorkerErrorKind::Start,
            "no worker process was started, because `/proc/self/exe` is not this program but the dynamic loader, which \
             was executed with the program as its argument: workers are the program executed again through \
             `/proc/self/exe`. Execute the program itself (in a bundle, set its loader with `patchelf \
             --set-interpreter`)",
        )
    }

    pub(crate) fn start_in_another_namespace() -> Self {
        Self::new(
            WorkerErrorKind::UnsafeFork,
            "the fork server cannot fork: it numbers processes in another way than this program, which has unshared its \
             process namespace, so that its workers could not be found. Take `WorkerType::Auto` or `WorkerType::Spawn`"
                .to_owned(),
        )
    }

    pub(crate) fn fork_refused(source: std::io::Error) -> Self {
        let words = format!("{source}{}", advice(&source));
        Self::fork_failed(&words).caused_by(source)
    }

    pub(crate) fn fork_failed(words: &str) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!("the fork server could not fork a worker: {words}"),
        )
    }

    pub(crate) fn start_ended(exit: WorkerExit) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker {exit} before it reached seedbed's hook; a worker executes `main` again with the same \
                 arguments and environment, and must get to `run`, `#[seedbed::main]`, `#[seedbed::test]` or `init()` as this process did"
            ),
        )
        .ended(exit)
    }

    /// The worker ended before the hook because its socket was gone.
    pub(crate) fn start_without_socket(exit: WorkerExit) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker {exit}, because the descriptor of its connection was closed or replaced before it reached \
                 seedbed's hook; a worker executes `main` again: call the hook before anything in `main` that closes \
                 descriptors which it did not open (`closefrom`), and before this program executes another one in its place"
            ),
        )
        .ended(exit)
    }

    pub(crate) fn start_ended_within_init(exit: WorkerExit) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker {exit} between the hook and its first job; the `preload` and `init` closures of its \
                 configuration, if it has any, have to return, and those of `init` to keep to its limits"
            ),
        )
        .ended(exit)
    }

    pub(crate) fn start_too_slow(limit: Duration) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process had not reached seedbed's hook after {limit:?} and was killed: a worker executes \
                 `main` again, and something in it waits before the hook (for a lock or a port that this program holds, \
                 for a terminal, for the network). Call the hook before that, or allow it more time with \
                 `WorkerConfig::start_timeout`"
            ),
        )
    }

    pub(crate) fn init(panic: WorkerPanic) -> Self {
        Self::new(
            WorkerErrorKind::Init,
            format!("a `preload` or `init` closure of the worker {panic}"),
        )
        .panicked_with(panic)
    }

    pub(crate) fn init_undecodable(message: &str) -> Self {
        Self::new(
            WorkerErrorKind::Init,
            format!(
                "the worker could not decode the data of one of its configuration's closures: {message}"
            ),
        )
    }

    pub(crate) fn encode_closure_data(closure: &str, message: &str) -> Self {
        Self::new(
            WorkerErrorKind::EncodeArgument,
            format!(
                "the data of the configuration's closure `{closure}` could not be encoded: {message}"
            ),
        )
    }

    /// The worker was killed by `kill_all` before it was ready for jobs.
    pub(crate) fn start_killed_with_all() -> Self {
        Self::new(
            WorkerErrorKind::Start,
            "the worker process was killed by `WorkerContext::kill_all` before it was ready; the job did not run",
        )
    }

    /// The call was cancelled before its worker was ready for jobs.
    pub(crate) fn start_cancelled() -> Self {
        Self::new(
            WorkerErrorKind::Start,
            "the worker process was killed before it was ready, because the call was cancelled; the job did not run",
        )
    }

    /// The worker was killed before it was ready for jobs, and lives.
    pub(in crate::worker) fn start_not_ended(survivor: Survivor) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!("the worker process could not be started: it {survivor}"),
        )
    }
}

/// Returns advice for errors by which the kernel reports an exhausted resource.
fn advice(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            "; close files that this program has open, or allow it more (`ulimit -n`)"
        }
        Some(libc::ENFILE) => {
            "; the whole system may have no more open files (`/proc/sys/fs/file-max`)"
        }
        Some(libc::EAGAIN) => {
            "; end processes or threads of this user's, or allow it more (`ulimit -u`, a control group's `pids.max`)"
        }
        Some(libc::ENOMEM) => {
            "; the system, or this program's limit (`ulimit -v`, a control group's), has no memory left"
        }
        _ => "",
    }
}
