//! An executor for what goes on without a caller: processes to be reaped, jobs whose callers are
//! gone, fork servers that are starting.
//!
//! It has a thread of its own. smol's global executor belongs to the program: a task of the
//! program's that blocks there, in a call to a worker for example, would keep the fork server that
//! this very call waits for from starting. Nothing that runs here blocks.

use std::future::{Future, pending};
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::catch_unwind;
use std::sync::{Mutex, PoisonError};

use async_io::{Async, block_on};
use smol::{Executor, Task};

use super::tuning::{PAUSE_AFTER_PANIC, REACTOR_DESCRIPTORS};
use crate::sys::main_thread::spawn_like_main;
use crate::sys::unwind::discard;

static EXECUTOR: Executor<'static> = Executor::new();

/// Whether the thread has been started.
static STARTED: Mutex<bool> = Mutex::new(false);

/// Starts the thread, once. Callers do this before they start a process, so that a program which
/// can have no more threads gets an error before there is anything to clean up.
///
/// # Errors
///
/// If the thread cannot be started, or if too few descriptors are left for the reactor.
pub(crate) fn prepare() -> io::Result<()> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        prepare_reactor()?;
        spawn_like_main("seedbed-tidy", run)?;
        *started = true;
    }
    Ok(())
}

/// Starts the reactor. Its first use starts it, and panics if too few descriptors are left; so they
/// are counted first.
fn prepare_reactor() -> io::Result<()> {
    let (socket, other) = UnixStream::pair()?;
    let spare: io::Result<Vec<_>> = (0..REACTOR_DESCRIPTORS)
        .map(|_| other.try_clone())
        .collect();
    drop(spare?);
    Async::new(socket).map(drop)
}

fn run() {
    loop {
        // A panic of a task goes to the task's handle. One of a foreign waker must not end this
        // thread.
        let ended = catch_unwind(|| block_on(EXECUTOR.run(pending::<()>())));
        debug_assert!(ended.is_err(), "only a panic ends it");
        ended.unwrap_or_else(discard);
        std::thread::sleep(PAUSE_AFTER_PANIC); // or a waker that always panics would keep it busy
    }
}

/// Spawns a task onto the background executor.
pub(crate) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let task = EXECUTOR.spawn(future);
    let _ = prepare(); // an earlier call has done it, except in tests; on failure the next call tries again
    task
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_background_executor_runs_while_smols_own_is_blocked() {
        let value = smol::spawn(async { smol::block_on(spawn(async { 7 })) });
        assert_eq!(smol::block_on(value), 7);
    }
}
