//! Shared by the tests of `run_process`.

use std::future::Future;

use seedbed::process::{Command, RunProcess, run_process};
use seedbed::{RunBuilder, run};

use super::{LeakCheck, alone};

/// Runs the future of a test. Fails if the test leaves a process, zombies included, or a descriptor
/// behind.
pub fn test<T>(body: impl Future<Output = T>) -> T {
    test_with(RunBuilder::new(), body)
}

pub fn test_with<T>(builder: RunBuilder, body: impl Future<Output = T>) -> T {
    let _alone = alone();
    // The descriptors of the reactor and of runs are opened once and kept.
    run(async { run_process(Command::new("true")).await }).unwrap();
    let check = LeakCheck::begin();
    let value = builder.run(body);
    check.end();
    value
}

/// Runs a shell script.
pub fn sh(script: &str) -> RunProcess {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    run_process(command)
}
