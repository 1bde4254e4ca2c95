//! The hook: where a worker process leaves the program and serves jobs, and where any other process
//! records how to start a worker.
//!
//! A worker is this program, executed again with the same arguments; it runs `main` up to the same
//! hook. A test needs other arguments, because the same ones would run all tests. libtest runs each
//! test on a thread that has the test's name, so a worker of a test is started as that one test
//! (`--exact`). libtest prints a heading before it, so the worker's standard output is `/dev/null`
//! up to the hook.
//!
//! In a worker, the rest of the program must not run on, or the program would run in its workers,
//! and start workers there. That cannot be enforced on other threads. So a worker is started only
//! if `main` itself reached the hook before it started threads, with two exceptions: libtest, whose
//! main thread waits for the test, and [`WorkerType::Spawn`], by which the user says that the
//! threads may run in the workers too.

use std::cell::RefCell;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::exec_spec::{ExecSpec, HookDirectory};
use super::launched::guardian;
use crate::sys::image::Image;
use crate::sys::role;
use crate::sys::role::Role;
use crate::sys::standard_fds;
use crate::sys::thread;
use crate::worker::child;
use crate::worker::child::Stdout;
use crate::worker::config::WorkerType;
use crate::worker::error::WorkerError;

/// How to get to the hooks that this process has reached, in this order.
static HOOKS: Mutex<Vec<Arc<ExecSpec>>> = Mutex::new(Vec::new());

/// In a worker or a guardian, the threads that the program had when the first of them reached the
/// hook, except that one.
static PROGRAM_THREADS: OnceLock<Vec<thread::Id>> = OnceLock::new();

thread_local! {
    /// How to get to the hook that this thread reached.
    static THREADS_HOOK: RefCell<Option<Arc<ExecSpec>>> = const { RefCell::new(None) };
}

fn hooks() -> MutexGuard<'static, Vec<Arc<ExecSpec>>> {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns how to get to the hook that this thread reached. A thread that is ending may have
/// forgotten it.
fn threads_hook() -> Option<Arc<ExecSpec>> {
    THREADS_HOOK
        .try_with(|hook| hook.borrow().clone())
        .unwrap_or_default()
}

/// In a worker, serves jobs and never returns. In any other process, records how a worker gets
/// here.
///
/// In a worker, the first thread that gets here serves. The other threads that the program had by
/// then are parked for the rest of the process when they get here. A job and the threads that it
/// started may call the hook (in `run`, for example), and go on.
pub(crate) fn hook() {
    match role::role() {
        Role::Program => {
            standard_fds::open_closed();
            record_here();
        }
        Role::UnhookedWorker(handshake) => {
            if !role::start_serving() {
                return stop_program_thread();
            }
            let count = note_program_threads();
            let directory = HookDirectory::path_of_present(); // the next step leaves it
            let worker = child::take_over(handshake);
            // A job may start workers of its own, which reach the hook as this process did.
            record(same_arguments(worker.stdout, directory, count));
            worker.serve()
        }
        Role::UnhookedGuardian => {
            if !role::start_serving() {
                return stop_program_thread();
            }
            standard_fds::open_closed();
            let count = note_program_threads();
            // Output of the worker before its hook would reach the launcher's standard error.
            let stdout = if is_libtest() {
                Stdout::Deferred
            } else {
                Stdout::Inherited
            };
            let spec = same_arguments(stdout, HookDirectory::path_of_present(), count);
            guardian::serve(Arc::new(spec))
        }
        Role::Worker => stop_program_thread(),
    }
}

/// Notes the threads of this process except the caller, and returns their number. Called once, by
/// the first thread that reaches the hook.
fn note_program_threads() -> usize {
    let me = thread::id();
    let mut threads = thread::all();
    threads.retain(|&thread| thread != me);
    PROGRAM_THREADS.get_or_init(|| threads).len()
}

/// Parks this thread of a worker if the program, not a job, has started it.
///
/// A thread that is neither listed nor the one that serves was started by a job or by a thread of
/// the program. If the program had other threads, it is not known which, so the worker exits: the
/// program must not go on here, and a thread of a job must not be parked, because its job may wait
/// for it.
fn stop_program_thread() {
    if threads_hook().is_some() {
        return;
    }
    let program = PROGRAM_THREADS.wait();
    if program.contains(&thread::id()) {
        loop {
            std::thread::park();
        }
    }
    if program.iter().any(|&thread| !is_main_of_libtest(thread)) {
        role::exit_cannot_serve(
            "in a worker, a thread that is not known to belong to a job reached seedbed's hook or made a call, and the \
             program had started threads before the hook: in a worker, the program must not go on. Call \
             `seedbed::init()` first thing in `main`, before any thread is started",
        );
    }
}

/// Whether this is the thread of a test program that only waits for the test.
fn is_main_of_libtest(thread: thread::Id) -> bool {
    thread == std::process::id() && is_libtest()
}

/// Returns how to start a worker of this type that is to serve a call of this thread: by the hook
/// that this thread reached, or else by another one of this process. Hooks from which a worker has
/// come up are preferred.
///
/// # Errors
///
/// Fails if in a worker that was started so, the program would run on, or would be another one.
pub(in crate::worker) fn exec_spec(worker_type: WorkerType) -> Result<Arc<ExecSpec>, WorkerError> {
    if role::role() != Role::Program {
        stop_program_thread();
    }
    if !Image::of_this_process().was_executed() {
        return Err(WorkerError::start_by_loader());
    }
    let own = threads_hook().filter(|spec| !spec.is_useless());
    let spec = own.map_or_else(usable_hook, Ok)?;
    match spec.other_threads() {
        0 => Ok(spec),
        _ if worker_type == WorkerType::Spawn => Ok(spec),
        others if worker_type == WorkerType::ForkServer => {
            Err(WorkerError::start_multithreaded(others as u64 + 1))
        }
        others => Err(WorkerError::start_among_threads(others)),
    }
}

fn usable_hook() -> Result<Arc<ExecSpec>, WorkerError> {
    let hooks = hooks();
    let works = hooks.iter().find(|spec| spec.has_worked());
    let usable = works.or_else(|| hooks.iter().find(|spec| !spec.is_useless()));
    usable.cloned().ok_or_else(|| match hooks.first() {
        Some(useless) => WorkerError::start_of_no_test(useless.test_name().unwrap_or_default()),
        None if is_libtest() => WorkerError::start_without_test(),
        None => WorkerError::start_off_main(),
    })
}

/// Records how a worker gets to the hook that this thread of an ordinary program has reached.
///
/// Nothing is recorded on a thread that is neither the main one nor, by its name, that of a test:
/// in a worker, `main` would run on. Such a thread uses the hooks of others.
fn record_here() {
    role::note_hook();
    if threads_hook().is_some() {
        return;
    }
    if thread::is_main() {
        let directory = HookDirectory::of_first_hook();
        record(same_arguments(
            Stdout::Inherited,
            directory,
            live_threads() - 1,
        ));
    } else if is_libtest()
        && let Some(name) = std::thread::current().name()
    {
        record(one_test(name));
    }
}

/// Counts the threads that may still run code of the program.
fn live_threads() -> usize {
    if thread::is_alone() == Some(true) {
        return 1; // the count costs a hundred times as much
    }
    thread::count().unwrap_or(1).max(1)
}

/// Records the hook of this thread. Threads with the same hook share one value, and with it the
/// fork servers.
fn record(spec: ExecSpec) {
    role::note_hook();
    let mut hooks = hooks();
    let known = hooks
        .iter()
        .find(|known| known.leads_to_same_hook_as(&spec));
    let spec = known.cloned().unwrap_or_else(|| {
        let spec = Arc::new(spec);
        hooks.push(spec.clone());
        spec
    });
    drop(hooks);
    // A thread that is ending has no use for it.
    let _ = THREADS_HOOK.try_with(|hook| hook.replace(Some(spec)));
}

fn same_arguments(
    stdout: Stdout,
    directory: Option<Arc<HookDirectory>>,
    other_threads: usize,
) -> ExecSpec {
    let arguments = std::env::args_os().skip(1).collect();
    ExecSpec::new(arguments, stdout, directory, other_threads)
}

fn one_test(name: &str) -> ExecSpec {
    let arguments = [
        "--exact",
        name,
        "--nocapture",
        "--include-ignored",
        "--test-threads=1",
    ];
    let arguments = arguments.into_iter().map(OsString::from).collect();
    // The test runs on a thread of its own, while the main thread waits for it.
    let directory = HookDirectory::of_first_hook();
    let spec = ExecSpec::new(arguments, Stdout::Deferred, directory, 0);
    spec.mark_multithreaded();
    spec
}

/// Whether libtest is linked into this program, which then contains the name of an environment
/// variable that libtest reads. The name is put together here, so that our own code does not
/// contain it.
fn is_libtest() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let name: String = ["RUST", "TEST", "THREADS"]
            .map(std::hint::black_box)
            .join("_");
        Image::of_this_process().contains(name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_a_test_is_started_by_the_name_of_the_test() {
        hook();
        let spec = threads_hook().unwrap();
        assert_eq!(
            spec.arguments[..2],
            [
                "--exact",
                "worker::spawn::hook::tests::a_worker_of_a_test_is_started_by_the_name_of_the_test"
            ]
        );
        assert_eq!(spec.stdout, Stdout::Deferred);
    }

    #[test]
    fn a_thread_without_a_name_in_a_test_program_records_no_hook() {
        let recorded = std::thread::spawn(|| {
            hook();
            threads_hook().is_some()
        });
        assert!(!recorded.join().unwrap());
        assert!(role::has_reached_hook());
    }
}
