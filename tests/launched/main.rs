//! Workers that a launcher starts, here on the same machine: through `env`, `sh` and the like.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod ends;
mod starts;

use std::time::Duration;

use common::children;
use rustix::process::{Signal, getppid, kill_process};
use seedbed::WorkerConfig;
use seedbed::worker::Launcher;

/// A launcher that starts workers on this machine. Its lease is as short as can be.
pub fn here() -> Launcher {
    Launcher::command(["env"]).lease(Duration::from_secs(1))
}

pub fn config() -> WorkerConfig {
    WorkerConfig::new().launcher(here())
}

/// A launcher that runs a shell script, in which `"$@"` is the command that starts the worker.
pub fn script(script: &str) -> Launcher {
    Launcher::command(["sh", "-c", script, "sh"]).lease(Duration::from_secs(1))
}

pub fn guardian(_: ()) -> i32 {
    getppid().unwrap().as_raw_nonzero().get()
}

/// Sends a signal to the guardian, and waits for the end.
pub fn signal_guardian(signal: i32) {
    let signal = Signal::from_named_raw(signal).unwrap();
    kill_process(getppid().unwrap(), signal).unwrap();
    common::endless(());
}

pub fn abort(_: ()) {
    std::process::abort()
}

/// Returns whether a guardian has started a worker.
pub fn has_worker() -> bool {
    let mut guardians = children().into_iter();
    guardians.any(|guardian| !common::children_of(guardian).is_empty())
}
