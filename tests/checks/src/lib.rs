//! Functions that several checks use. They find the repository, run cargo, and find the programs
//! that it has built.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The folder of the repository.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().nth(2);
    root.expect("this package is two folders below the root")
}

/// The cargo that runs this test.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(root())
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null());
    cargo
}

/// A file that cargo has built.
pub struct Artifact {
    /// The name of the library or the program.
    pub name: String,
    pub files: Vec<PathBuf>,
    /// The program, if this is one.
    pub executable: Option<PathBuf>,
}

/// Asks cargo for what is built for these targets of the packages that `cargo test` tests. If that
/// runs this test, all is built already.
pub fn built(targets: &[&str]) -> Vec<Artifact> {
    let mut command = cargo();
    command
        .args(["test", "--no-run", "--quiet", "--message-format=json"])
        .args(targets);
    if is_release() {
        command.arg("--release");
    }
    let output = command.output().expect("cargo can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let messages = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("cargo prints JSON"));
    messages.filter_map(|message| artifact(&message)).collect()
}

/// Whether this test is built with the profile `release`.
fn is_release() -> bool {
    let test = env::current_exe().expect("the path of this program is known");
    let profile = test.ancestors().nth(2).and_then(Path::file_name);
    profile.is_some_and(|name| name == "release")
}

fn artifact(message: &Value) -> Option<Artifact> {
    let files = message["filenames"].as_array()?;
    Some(Artifact {
        name: message["target"]["name"].as_str()?.to_owned(),
        files: files
            .iter()
            .filter_map(Value::as_str)
            .map(PathBuf::from)
            .collect(),
        executable: message["executable"].as_str().map(PathBuf::from),
    })
}
