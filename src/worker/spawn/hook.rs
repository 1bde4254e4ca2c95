//! The hook: where a worker process leaves the program and serves jobs, and where any other process
//! records how to start a worker.
//!
//! A worker is this program, executed again with the same arguments; it runs `main` up to the same
//! hook. A test needs other arguments, because the same ones would run all tests. libtest runs each
//! test on a thread that has the test's name, so a worker of a test is started as that one test
//! (`--exact`). libtest prints a heading before it, so the worker's standard output is `/dev/null`
//! up to the hook.

use std::cell::RefCell;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::exec_spec::ExecSpec;
use crate::sys::image::Image;
use crate::sys::role;
use crate::sys::role::Role;
use crate::sys::thread;
use crate::worker::child;
use crate::worker::child::Stdout;

/// How to get to the first hook that this process reached.
static FIRST_HOOK: Mutex<Option<Arc<ExecSpec>>> = Mutex::new(None);

/// In a worker, the threads that the program had when the first of them reached the hook.
static PROGRAM_THREADS: OnceLock<Vec<thread::Id>> = OnceLock::new();

thread_local! {
    /// How to get to the hook that this thread reached.
    static THREADS_HOOK: RefCell<Option<Arc<ExecSpec>>> = const { RefCell::new(None) };
}

/// In a worker, serves jobs and never returns. In any other process, records how a worker gets
/// here.
///
/// In a worker, the first thread that gets here serves. The other threads that the program had by
/// then are parked for the rest of the process, because they must not run on as if this were the
/// original process. A job and the threads that it started may call the hook (in `run`, for
/// example), and go on.
pub(crate) fn hook() {
    match role::role() {
        Role::Program => record(spec_of_here),
        Role::UnhookedWorker(handshake) => {
            if !role::start_serving() {
                return park_program_threads();
            }
            // Set here only, and this code runs once.
            let _ = PROGRAM_THREADS.set(thread::all());
            let worker = child::take_over(handshake);
            // A job may start workers of its own, which reach the hook as this process did.
            let stdout = worker.stdout;
            record(|| same_arguments(stdout));
            worker.serve()
        }
        Role::Worker => park_program_threads(),
    }
}

/// Parks this thread of a worker if the program, not a job, has started it.
fn park_program_threads() {
    let me = thread::id();
    let is_serving = THREADS_HOOK.with_borrow(Option::is_some);
    if !is_serving && PROGRAM_THREADS.wait().contains(&me) {
        loop {
            std::thread::park();
        }
    }
}

/// Returns whether this process has reached a hook, so that a worker can be started.
pub(in crate::worker) fn is_reached() -> bool {
    THREADS_HOOK.with_borrow(Option::is_some)
        || FIRST_HOOK
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
}

/// Returns how to get to the hook that this thread reached, or else to the first hook of this
/// process.
pub(in crate::worker) fn exec_spec() -> Option<Arc<ExecSpec>> {
    THREADS_HOOK.with_borrow(Option::clone).or_else(|| {
        FIRST_HOOK
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    })
}

/// Records how to get to this thread's hook. Threads with the same hook share one value, and with
/// it the fork servers.
fn record(spec: impl FnOnce() -> ExecSpec) {
    THREADS_HOOK.with_borrow_mut(|mine| {
        if mine.is_none() {
            let spec = spec();
            let mut first = FIRST_HOOK.lock().unwrap_or_else(PoisonError::into_inner);
            *mine = Some(match &*first {
                Some(first) if first.leads_to_same_hook_as(&spec) => first.clone(),
                _ => Arc::new(spec),
            });
            if first.is_none() {
                first.clone_from(mine);
            }
        }
    });
}

fn spec_of_here() -> ExecSpec {
    let current = std::thread::current();
    match current.name() {
        Some(name) if !thread::is_main() && is_libtest() => one_test(name),
        _ => same_arguments(Stdout::Inherited),
    }
}

fn same_arguments(stdout: Stdout) -> ExecSpec {
    ExecSpec::new(std::env::args_os().skip(1).collect(), stdout)
}

fn one_test(name: &str) -> ExecSpec {
    let arguments = [
        "--exact",
        name,
        "--nocapture",
        "--include-ignored",
        "--test-threads=1",
    ];
    let spec = ExecSpec::new(
        arguments.into_iter().map(OsString::from).collect(),
        Stdout::Deferred,
    );
    // The test runs on a thread of its own, while the main thread waits for it.
    spec.mark_multithreaded();
    spec
}

/// Whether libtest is linked into this program, which then contains the name of an environment
/// variable that libtest reads. The name is put together here, so that our own code does not
/// contain it.
fn is_libtest() -> bool {
    let name: String = ["RUST", "TEST", "THREADS"]
        .map(std::hint::black_box)
        .join("_");
    Image::of_this_process().contains(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_a_test_is_started_by_the_name_of_the_test() {
        let spec = spec_of_here();
        assert_eq!(
            spec.arguments[..2],
            [
                "--exact",
                "worker::spawn::hook::tests::a_worker_of_a_test_is_started_by_the_name_of_the_test"
            ]
        );
        assert_eq!(spec.stdout, Stdout::Deferred);
    }
}
