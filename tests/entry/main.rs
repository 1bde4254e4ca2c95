//! How a worker gets from `exec` to the hook, and what it has there: standard input, directory,
//! environment.
//!
//! A program whose `main` does things before the hook is needed, so this one has its own `main`. It
//! runs itself again, to play a part that an environment variable names. Its workers inherit the
//! variable, so they play the same part up to the hook.

#![allow(clippy::duplicate_mod)]

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod arrival;
mod inheritance;
mod threads;

use std::process::{Command, Stdio};

use libtest_mimic::{Arguments, Trial};
use seedbed::WorkerConfig;
use seedbed::worker::WorkerType;

/// The environment variable that names the part.
const PART: &str = "SEEDBED_TEST_PART";

/// The environment variable that names the type of the workers.
const TYPE: &str = "SEEDBED_TEST_TYPE";

/// A test, and the part that the program plays in it: the function is called instead of the tests.
type Play = (&'static str, fn(), fn());

fn main() {
    let plays = [arrival::PLAYS, inheritance::PLAYS, threads::PLAYS].concat();
    if let Ok(part) = std::env::var(PART) {
        let (_, _, play) = plays.iter().find(|(name, ..)| *name == part).unwrap();
        return play();
    }
    common::dispositions::reset();
    let trials = plays.iter().map(|&(name, test, _)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// The types of workers that each part is played with. With musl, forking is not safe.
const TYPES: &[&str] = if cfg!(target_env = "musl") {
    &["spawn"]
} else {
    &["spawn", "fork"]
};

/// These and the default.
const ALL_TYPES: &[&str] = if cfg!(target_env = "musl") {
    &["auto", "spawn"]
} else {
    &["auto", "spawn", "fork"]
};

/// Prepares to play a part in a process of its own.
fn player(part: &str, worker_type: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env(PART, part)
        .env(TYPE, worker_type)
        .stdin(Stdio::null());
    command
}

/// A configuration with the type of workers that this part is played with.
fn config() -> WorkerConfig {
    WorkerConfig::new().worker_type(match &*std::env::var(TYPE).unwrap() {
        "spawn" => WorkerType::Spawn,
        "fork" => WorkerType::ForkServer,
        _ => WorkerType::Auto,
    })
}

/// Whether this process is a worker that has not reached the hook.
fn is_worker() -> bool {
    std::env::var_os("SEEDBED_WORKER").is_some()
}

/// Plays a part to its end, and returns what it said. Panics if it fails.
fn played(command: Command) -> String {
    let (status, said) = common::stage::run_to_end(command);
    assert!(status.success(), "{status}: {said}");
    said
}
