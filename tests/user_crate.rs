//! Runs the tests of a user's crate, in the folder of the same name, under several harnesses. Its
//! `#[test]`s use worker processes.
//!
//! The crate is built in the target folder of this one, so that the dependencies of both are built
//! once.

use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn its_tests_pass_under_every_harness() {
    expect(&["test"], "8 passed; 0 failed; 1 ignored");
    expect(
        &["test", "--", "--test-threads=1"],
        "8 passed; 0 failed; 1 ignored",
    );
    expect(&["test", "--", "--ignored"], "1 passed; 0 failed");
    if has_nextest() {
        expect(
            &["nextest", "run", "--no-fail-fast"],
            "10 passed, 1 skipped",
        );
    } else {
        eprintln!("cargo-nextest is not installed: that harness was skipped");
    }
}

fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the temporary folder is in the target folder");
    cargo
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/user_crate"))
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null());
    cargo
}

fn has_nextest() -> bool {
    let version = cargo().args(["nextest", "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}

/// Runs cargo in the user's crate. Panics unless cargo succeeds and prints `summary`.
fn expect(arguments: &[&str], summary: &str) {
    let output = cargo()
        .args(arguments)
        .output()
        .expect("cargo can be started");
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && printed.contains(summary),
        "cargo {arguments:?} exited with {} and should have printed {summary:?}:\n{printed}",
        output.status
    );
}
