//! A user's crate (in the folder of the same name) has worker processes in its own `#[test]`s, whatever harness runs them.
//!
//! It is built in this crate's target folder, so that what both need is built once.

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
        .expect("it lies in the target folder");
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

/// Runs cargo in the user's crate, and expects that it succeeds and says `summary`.
fn expect(arguments: &[&str], summary: &str) {
    let output = cargo()
        .args(arguments)
        .output()
        .expect("cargo can be started");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && said.contains(summary),
        "cargo {arguments:?} ended with {}, and should have said {summary:?}:\n{said}",
        output.status
    );
}
