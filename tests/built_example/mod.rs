//! Finds the examples as programs, for the tests that run them.

#[path = "../common/dispositions.rs"]
mod dispositions;

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// A command that runs this example, which `cargo test` and `cargo nextest run` have built before any test.
///
/// Cargo names no variable for examples as it does for binaries, but they lie beside the folder of the tests:
/// `target/<profile>/deps/<test>` and `target/<profile>/examples/<example>`.
pub fn example(name: &str) -> Command {
    let test = env::current_exe().expect("a test knows its own file");
    let profile = test.ancestors().nth(2).expect("a test lies in `deps`");
    let example: PathBuf = profile.join("examples").join(name);
    assert!(
        example.is_file(),
        "{} is missing: `cargo test` builds it, but with `--test` only `cargo build --example {name}` does",
        example.display()
    );
    // An example that handles Ctrl-C must not inherit that SIGINT is ignored.
    dispositions::reset();
    Command::new(example)
}
