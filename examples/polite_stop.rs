//! How do I stop a job so that it can clean up?
//!
//! A worker that is killed removes no temporary files and finishes no writes. With `kill_after`, a
//! cancelled call first asks its job to end, and kills the worker only if the job does not end in
//! time. A job that asks `check_cancelled` regularly returns through `?`, and everything that it
//! owns is dropped.
//!
//! ```text
//! cargo run --example polite_stop
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seedbed::worker::{RemoteError, check_cancelled};
use seedbed::{move_on_after, run_sync};

/// A folder that is removed when its owner is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: &Path) -> std::io::Result<Self> {
        fs::create_dir(path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes pieces into a scratch folder, until it is asked to end.
fn render(path: PathBuf) -> Result<u32, RemoteError> {
    let scratch = Scratch::new(&path)?;
    for piece in 0.. {
        check_cancelled()?; // the only line that politeness needs
        fs::write(scratch.0.join("piece"), piece.to_string())?;
    }
    Ok(0)
}

/// Does the same, and never asks.
fn render_deaf(path: PathBuf) -> Result<u32, RemoteError> {
    let scratch = Scratch::new(&path)?;
    for piece in 0.. {
        fs::write(scratch.0.join("piece"), piece.to_string())?;
    }
    Ok(0)
}

#[seedbed::main]
async fn main() {
    // A worker that is still starting when its call is cancelled is killed at once, so one is
    // started before.
    run_sync(i32::abs, -1).await.expect("it can be started");
    let path = std::env::temp_dir().join(format!("polite_stop-{}", std::process::id()));
    let time = Duration::from_millis(200);

    // The job ends when it is asked. The call returns what the job returns: here, an error.
    let call = run_sync(render, path.clone()).kill_after(Duration::from_secs(10));
    let outcome = move_on_after(time, call).await.expect("it ends by itself");
    let error = outcome
        .expect("its worker lives")
        .expect_err("it was stopped");
    println!("The polite job says: {error}.");
    assert!(!path.exists(), "its folder is removed");

    // A job that does not ask is killed, and leaves its folder behind.
    let call = run_sync(render_deaf, path.clone()).kill_after(Duration::from_millis(100));
    assert!(move_on_after(time, call).await.is_none());
    if path.exists() {
        fs::remove_dir_all(&path).expect("no process uses it any more");
    }
    println!("The deaf job was killed.");
}
