//! The hook: where a worker leaves the program's way and serves, and where any other process notes how to start one.
//!
//! A worker is this program, executed again, so it comes up on the same way: through `main`, with the same arguments, to
//! the same hook. Where the hook was reached on the main thread, or on a thread that the program started by itself, that
//! is the whole recipe. A test is different. libtest runs each test on a thread of its own that bears the test's name, and
//! the same arguments would run all tests; so a worker of a test is started as that one test (`--exact`), which leads it
//! to that test's hook. On the way libtest prints a heading, so the worker's standard output is `/dev/null` up to the hook.
//!
//! Whether this is a libtest program is told by a string that libtest's code must contain, the name of an environment
//! variable that it reads. That is looked for once, and only when the hook is reached off the main thread.

use std::cell::RefCell;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::sys::image::Image;
use crate::sys::role;
use crate::sys::role::Role;
use crate::sys::thread;
use crate::worker::child;
use crate::worker::child::Stdout;

/// How to execute this program so that it reaches the hook.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// What argument zero is to be; it may hold a name that the program goes by.
    pub(in crate::worker) name: OsString,
    pub(in crate::worker) arguments: Vec<OsString>,
    pub(in crate::worker) stdout: Stdout,
    /// A fork server that came this way was not alone in its process, so no other need be tried.
    crowded: AtomicBool,
}

impl Recipe {
    pub(in crate::worker) fn new(arguments: Vec<OsString>, stdout: Stdout) -> Self {
        Recipe {
            name: std::env::args_os().next().unwrap_or_default(),
            arguments,
            stdout,
            crowded: AtomicBool::new(false),
        }
    }

    fn leads_where(&self, other: &Recipe) -> bool {
        (&self.name, &self.arguments, self.stdout) == (&other.name, &other.arguments, other.stdout)
    }

    /// Whether a fork server that comes this way may be alone in its process.
    pub(in crate::worker) fn may_fork(&self) -> bool {
        !self.crowded.load(Ordering::Relaxed)
    }

    pub(in crate::worker) fn is_crowded(&self) {
        self.crowded.store(true, Ordering::Relaxed);
    }
}

/// The recipe of the first hook that was reached in this process.
static FIRST: Mutex<Option<Arc<Recipe>>> = Mutex::new(None);

/// In a worker, the threads that the program had when the first of them reached the hook.
static PROGRAM_THREADS: OnceLock<Vec<thread::Id>> = OnceLock::new();

thread_local! {
    /// The recipe of the hook that this thread reached.
    static MINE: RefCell<Option<Arc<Recipe>>> = const { RefCell::new(None) };
}

/// Serves jobs and never returns if this process is a worker; else notes how a worker gets here.
///
/// In a worker, only the first thread that gets here serves. Any other thread that the program had by then must not run
/// on as if this were the original process, and waits for the end. A job, and the threads that it started, may call
/// the hook (by `run`, say) and go on.
pub(crate) fn hook() {
    match role::role() {
        Role::Program => note(recipe_of_here),
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

/// Returns the recipe of this thread's hook, which leads nearest to here, or else of the first hook.
pub(in crate::worker) fn recipe() -> Option<Arc<Recipe>> {
    MINE.with_borrow(Option::clone)
        .or_else(|| FIRST.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Threads that lead to the same hook share their recipe: what is learnt about it, and the fork servers that came by it.
fn note(recipe: impl FnOnce() -> Recipe) {
    MINE.with_borrow_mut(|mine| {
        if mine.is_none() {
            let recipe = recipe();
            let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
            *mine = Some(match &*first {
                Some(first) if first.leads_where(&recipe) => first.clone(),
                _ => Arc::new(recipe),
            });
            if first.is_none() {
                first.clone_from(mine);
            }
        }
    });
}

fn recipe_of_here() -> Recipe {
    let current = std::thread::current();
    match current.name() {
        Some(name) if !thread::is_main() && is_libtest() => one_test(name),
        _ => same_arguments(Stdout::Inherited),
    }
}

fn same_arguments(stdout: Stdout) -> Recipe {
    Recipe::new(std::env::args_os().skip(1).collect(), stdout)
}

fn one_test(name: &str) -> Recipe {
    let arguments = [
        "--exact",
        name,
        "--nocapture",
        "--include-ignored",
        "--test-threads=1",
    ];
    let recipe = Recipe::new(
        arguments.into_iter().map(OsString::from).collect(),
        Stdout::Deferred,
    );
    // The test has a thread of its own, beside the main one, which waits for it.
    recipe.is_crowded();
    recipe
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
        let recipe = recipe_of_here();
        assert_eq!(
            recipe.arguments[..2],
            [
                "--exact",
                "worker::spawn::hook::tests::a_test_is_reached_again_by_its_own_name"
            ]
        );
        assert_eq!(recipe.stdout, Stdout::Deferred);
    }
}
