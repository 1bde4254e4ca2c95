//! Runs the tests of the package `user-crate` with other harnesses than `cargo test` does, and with
//! other arguments. Its `#[test]`s use worker processes.

use std::process::Command;

use seedbed_checks::{built, cargo};

/// The targets of the package that have tests.
const TARGETS: [&str; 3] = ["--lib", "--test", "program"];

#[test]
fn its_unit_tests_pass_one_after_the_other() {
    expect(
        unit_tests().arg("--test-threads=1"),
        "8 passed; 0 failed; 1 ignored",
    );
}

#[test]
fn its_ignored_test_passes_when_asked_for() {
    expect(unit_tests().arg("--ignored"), "1 passed; 0 failed");
}

#[test]
fn its_tests_pass_each_in_a_process_of_its_own() {
    let version = cargo().args(["nextest", "--version"]).output();
    if !version.is_ok_and(|output| output.status.success()) {
        eprintln!("cargo-nextest is not installed: that harness was skipped");
        return;
    }
    let mut nextest = cargo();
    nextest
        .args([
            "nextest",
            "run",
            "--no-fail-fast",
            "-E",
            "package(user-crate)",
        ])
        .args(TARGETS);
    expect(&mut nextest, "10 passed");
}

/// The program with the unit tests.
fn unit_tests() -> Command {
    let program = built(&TARGETS)
        .into_iter()
        .filter(|artifact| artifact.name == "user_crate")
        .find_map(|artifact| artifact.executable);
    Command::new(program.expect("the library of the package has tests"))
}

/// Runs a program. Panics unless it succeeds and prints `summary`.
fn expect(command: &mut Command, summary: &str) {
    let output = command.output().expect("it can be started");
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && printed.contains(summary),
        "{command:?} exited with {} and should have printed {summary:?}:\n{printed}",
        output.status
    );
}
