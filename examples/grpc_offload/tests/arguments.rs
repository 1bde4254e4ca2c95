//! Arguments that the program cannot use are refused with a message.

#[path = "../../../tests/common/server_program.rs"]
mod server_program;

use std::process::Command;

/// Runs the program, which must refuse its arguments. Returns what it prints.
fn refused(arguments: &[&str]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_grpc_offload"));
    program.arg("127.0.0.1:0").args(arguments);
    let output = server_program::run_to_end(&mut program);
    assert!(output.stdout.is_empty(), "{arguments:?} are not refused");
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn without_a_dispatcher_no_item_would_be_processed() {
    for number in ["0", "-1", "two"] {
        let said = refused(&["--dispatchers", number]);
        assert!(said.contains("is to be 1 or more"), "{said}");
        assert!(said.contains(number), "{said}");
    }
}

#[test]
fn a_time_that_cannot_be_read_is_an_error_that_says_what_is_expected() {
    for time in ["abc", "-1", "NaN", "1e300", ""] {
        for option in ["--grace", "--job-limit"] {
            let said = refused(&[option, time]);
            assert!(said.contains("is to be a number of seconds"), "{said}");
        }
    }
}

#[test]
fn arguments_that_are_not_known_are_an_error() {
    for argument in ["more", "--more"] {
        let said = refused(&[argument]);
        assert!(said.contains(argument) && said.contains("usage:"), "{said}");
    }
}

/// Such a server would be reached without TLS, which its user does not expect.
#[test]
fn a_certificate_without_a_key_and_files_that_do_not_exist_are_errors() {
    for option in ["--certificate", "--key"] {
        let said = refused(&[option, "file.pem"]);
        assert!(said.contains("a certificate needs a key"), "{said}");
    }
    let said = refused(&["--certificate", "/missing/one.pem", "--key", "/missing/two"]);
    assert!(said.contains("cannot read /missing/one.pem"), "{said}");
}
