//! The hook: where a worker leaves the program's way and serves, and where any other process notes how to start one.
//!
//! A worker is this program, executed again, so it comes up on the same way: through `main`, with the same arguments, to
//! the same hook. Where the hook was reached on the main thread, or on a thread that the program started by itself, that
//! is the whole spec. A test is different. libtest runs each test on a thread of its own that bears the test's name, and
//! the same arguments would run all tests; so a worker of a test is started as that one test (`--exact`), which leads it
//! to that test's hook. On the way libtest prints a heading, so the worker's standard output is `/dev/null` up to the hook.
//!
//! Whether this is a libtest program is told by a string that libtest's code must contain, the name of an environment
//! variable that it reads. That is looked for once, and only when the hook is reached off the main thread.

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

/// The spec of the first hook that was reached in this process.
static FIRST: Mutex<Option<Arc<ExecSpec>>> = Mutex::new(None);

/// In a worker, the threads that the program had when the first of them reached the hook.
static PROGRAM_THREADS: OnceLock<Vec<thread::Id>> = OnceLock::new();

thread_local! {
    /// The spec of the hook that this thread reached.
    static MINE: RefCell<Option<Arc<ExecSpec>>> = const { RefCell::new(None) };
}

/// Serves jobs and never returns if this process is a worker; else notes how a worker gets here.
///
/// In a worker, only the first thread that gets here serves. Any other thread that the program had by then must not run
/// on as if this were the original process, and waits for the end. A job, and the threads that it started, may call
/// the hook (by `run`, say) and go on.
pub(crate) fn hook() {
    match role::role() {
        Role::Program => note(spec_of_here),
        Role::UnhookedWorker(handshake) => {
            if !role::start_serving() {
                return hook_of_another_thread();
            }
            // Nobody hears an error: only the first to serve sets this.
            let _ = PROGRAM_THREADS.set(thread::all());
            let worker = child::settle(handshake);
            // The job may want workers of its own: they come the way that this one came.
            let stdout = worker.stdout;
            note(|| same_arguments(stdout));
            worker.serve()
        }
        Role::Worker => hook_of_another_thread(),
    }
}

/// The hook, reached in a worker that is serving: by a job, by a thread of a job's, or by a thread of the program's.
fn hook_of_another_thread() {
    let me = thread::id();
    let serves = MINE.with_borrow(Option::is_some);
    if !serves && PROGRAM_THREADS.wait().contains(&me) {
        loop {
            std::thread::park();
        }
    }
}

/// Returns whether a worker can be started, because a hook was reached in this process.
pub(in crate::worker) fn is_reached() -> bool {
    MINE.with_borrow(Option::is_some)
        || FIRST
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
}

/// Returns the spec of this thread's hook, which leads nearest to here, or else of the first hook.
pub(in crate::worker) fn exec_spec() -> Option<Arc<ExecSpec>> {
    MINE.with_borrow(Option::clone)
        .or_else(|| FIRST.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Threads that lead to the same hook share their spec: what is learnt about it, and the fork servers that came by it.
fn note(spec: impl FnOnce() -> ExecSpec) {
    MINE.with_borrow_mut(|mine| {
        if mine.is_none() {
            let spec = spec();
            let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
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
    // The test has a thread of its own, beside the main one, which waits for it.
    spec.mark_multithreaded();
    spec
}

/// Tells whether libtest is linked into this program. The string to look for is put together here, so that our own code
/// does not contain it.
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
    fn a_test_is_reached_again_by_its_own_name() {
        let spec = spec_of_here();
        assert_eq!(
            spec.arguments[..2],
            [
                "--exact",
                "worker::spawn::hook::tests::a_test_is_reached_again_by_its_own_name"
            ]
        );
        assert_eq!(spec.stdout, Stdout::Deferred);
    }
}
