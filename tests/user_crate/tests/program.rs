//! Tests of the user's whole program, and an integration test with its own workers.

use std::process::{Command, Stdio};

#[test]
fn the_program_prints_its_answer_once_and_nothing_else() {
    let output = Command::new(env!("CARGO_BIN_EXE_user-crate"))
        .args(["seed", "bed"])
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "7 letters\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn an_integration_test_has_workers_of_its_own() {
    assert_eq!(seedbed::run(user_crate::letters_of_all(&["seed"])), 4);
}
