//! What has to go on without a caller: workers to be reaped, jobs whose callers are gone, fork servers that are coming up.
//!
//! It goes on by an executor of our own, on a thread of its own. smol's global one would be at hand, and has one thread as well; but
//! that is the program's. A task there which blocks, on a call into a worker for example, would keep the very fork server from
//! coming up that it waits for, and all that is killed meanwhile would stay a zombie.
//!
//! What runs here never blocks.

use std::future::{Future, pending};
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::catch_unwind;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_io::{Async, block_on};
use smol::{Executor, Task};

/// More descriptors than the reactor consists of: an epoll, a timer, and an event.
const REACTOR: usize = 4;

/// How long to wait after a panic.
const BEFORE_THE_NEXT: Duration = Duration::from_millis(100);

static EXECUTOR: Executor<'static> = Executor::new();

/// Whether there is the thread.
static STAFFED: Mutex<bool> = Mutex::new(false);

/// Makes sure of the thread. Asked before there is anything that could need it, so that a program which can have no more threads
/// gets an error while nothing has happened.
///
/// # Errors
///
/// If there can be no thread.
pub(in crate::worker) fn prepare() -> io::Result<()> {
    let mut staffed = STAFFED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*staffed {
        reactor()?;
        std::thread::Builder::new()
            .name("seedbed-tidy".into())
            .spawn(run)?;
        *staffed = true;
    }
    Ok(())
}

/// Makes sure of the reactor. Whoever needs it first makes it, and panics if there are too few descriptors for that; so they
/// are counted here, where there can be an error.
fn reactor() -> io::Result<()> {
    let (socket, other) = UnixStream::pair()?;
    let spare: io::Result<Vec<_>> = (0..REACTOR).map(|_| other.try_clone()).collect();
    drop(spare?);
    Async::new(socket).map(drop)
}

fn run() {
    loop {
        // A task's own panic is its caller's. One of a foreign waker must not end what others rely upon.
        let ended = catch_unwind(|| block_on(EXECUTOR.run(pending::<()>())));
        debug_assert!(ended.is_err(), "nothing else ends it");
        std::thread::sleep(BEFORE_THE_NEXT); // what panics at once again must not take a processor for itself
    }
}

/// Begins something that goes on by itself.
pub(in crate::worker) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let task = EXECUTOR.spawn(future);
    let _ = prepare(); // it was, but by tests; without a thread, this waits for the next who asks
    task
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_spawned_goes_on_while_smols_own_executor_is_blocked() {
        let value = smol::spawn(async { smol::block_on(spawn(async { 7 })) });
        assert_eq!(smol::block_on(value), 7);
    }
}
