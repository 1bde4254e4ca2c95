//! Starts processes that are to end with this program, from a thread that lives as long as it does.
//!
//! The kernel sends a parent-death signal when the *thread* that started the process ends. A call
//! may be polled on a thread that ends earlier.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError, mpsc};

use crate::sys::child_setup::block_all_signals;
use crate::sys::main_thread::spawn_like_main;

struct Request {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// The channel to the thread, with the number of the process that the thread belongs to: a forked
/// copy of the program does not have it.
static SPAWNER: Mutex<Option<(u32, mpsc::Sender<Request>)>> = Mutex::new(None);

/// Starts a process from the thread. Blocks for as long as that takes, as a start from the calling
/// thread does.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    let (reply, answer) = mpsc::channel();
    let lost = |_| io::Error::other("the thread that starts processes has ended");
    let request = Request { command, reply };
    spawner()?.send(request).map_err(|_| lost(()))?;
    answer.recv().map_err(|_| lost(()))?
}

fn spawner() -> io::Result<mpsc::Sender<Request>> {
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    let this = std::process::id();
    if let Some((process, spawner)) = &*spawner
        && *process == this
    {
        return Ok(spawner.clone());
    }
    let (sender, requests) = mpsc::channel();
    spawn_like_main("seedbed-spawn", move || serve(&requests))?;
    Ok(spawner.insert((this, sender)).1.clone())
}

fn serve(requests: &mpsc::Receiver<Request>) {
    block_all_signals();
    for Request { mut command, reply } in requests {
        // If this thread ended by a panic, the kernel would kill what it has started.
        let started = catch_unwind(AssertUnwindSafe(|| command.spawn()))
            .unwrap_or_else(|_| Err(io::Error::other("starting the process panicked")));
        let _ = reply.send(started); // the caller waits for it
    }
}
