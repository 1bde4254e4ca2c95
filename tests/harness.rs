//! Tests of the test tools: a failing test leaves nothing behind that would fail others, signal
//! dispositions do not depend on the program that started the tests, and scripts name tests that
//! exist.

mod common;
#[path = "common/panics.rs"]
mod panics;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{LeakCheck, alone, children, dispositions};
use panics::panic_of;

#[expect(clippy::zombie_processes)] // the check reaps it
fn start_sleeping_child() {
    Command::new("sleep").arg("600").spawn().unwrap();
}

#[test]
fn a_process_that_a_test_leaves_behind_is_reported_and_killed() {
    let _alone = alone();
    let report = panic_of(|| {
        let check = LeakCheck::begin();
        start_sleeping_child();
        check.end_within(Duration::from_millis(10));
    });
    assert!(report.contains("left behind"), "{report}");
    assert_eq!(children(), []);
    LeakCheck::begin().end();
}

#[test]
fn the_processes_of_a_test_that_panics_are_killed() {
    let _alone = alone();
    let report = panic_of(|| {
        let _check = LeakCheck::begin();
        start_sleeping_child();
        panic!("an assertion of the test");
    });
    assert_eq!(report, "an assertion of the test");
    assert_eq!(children(), []);
}

#[test]
fn a_descriptor_that_a_test_leaves_behind_is_reported() {
    let _alone = alone();
    let check = LeakCheck::begin();
    let file = std::fs::File::open("/dev/null").unwrap();
    let report = panic_of(|| check.end_within(Duration::from_millis(10)));
    assert!(report.contains("/dev/null"), "{report}");
    drop(file);
}

#[test]
fn signals_that_were_inherited_as_ignored_get_their_default_actions() {
    const INSIDE: &str = "SEEDBED_TEST_DISPOSITIONS";
    if std::env::var_os(INSIDE).is_some() {
        let both = bit(libc::SIGINT) | bit(libc::SIGXFSZ);
        assert_eq!(ignored_signals() & both, both);
        dispositions::reset();
        assert_eq!(ignored_signals(), bit(libc::SIGPIPE));
        return;
    }
    let _alone = alone();
    let mut ignoring = Command::new("sh");
    let script = "trap '' HUP INT QUIT TERM XFSZ; exec \"$0\" --exact \"$1\"";
    ignoring
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap());
    ignoring
        .arg("signals_that_were_inherited_as_ignored_get_their_default_actions")
        .env(INSIDE, "yes");
    let output = ignoring.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let standard = bit(32) - 1; // without real-time signals
    u64::from_str_radix(mask.unwrap().trim(), 16).unwrap() & standard
}

#[test]
fn each_test_that_a_script_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut functions = String::new();
    for folder in ["src", "tests"] {
        add_function_lines(&root.join(folder), &mut functions);
    }
    for script in [
        ".ci/run",
        "tests/sanitize.sh",
        "tests/loom.sh",
        "tests/socket_only.sh",
    ] {
        let text = std::fs::read_to_string(root.join(script)).unwrap();
        let named = ["--skip ", "| test(/"].map(|before| text.split(before).skip(1));
        for rest in named.into_iter().flatten() {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            assert!(
                functions.contains(&name),
                "{script} names the test {name:?}, which does not exist"
            );
        }
    }
}

fn add_function_lines(folder: &Path, lines: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_function_lines(&path, lines);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let functions = text
                .lines()
                .filter(|line| line.trim_start().starts_with("fn "));
            functions.for_each(|line| lines.push_str(line));
        }
    }
}
