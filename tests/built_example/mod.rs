//! Finds the built examples, for the tests that run them.

#[path = "../common/dispositions.rs"]
mod dispositions;

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Returns a command that runs an example. `cargo test` and `cargo nextest run` build the examples
/// first.
///
/// Cargo sets no variable for the path of an example, but the path follows from that of the test:
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
