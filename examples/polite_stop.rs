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
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seedbed::worker::{RemoteError, check_cancelled};
use seedbed::{move_on_after, run_sync};

/// Writes pieces into a temporary folder, until it is asked to end.
fn render(parent: PathBuf) -> Result<u32, RemoteError> {
    let folder = tempfile::tempdir_in(parent)?;
    for piece in 0.. {
        check_cancelled()?; // the only line that politeness needs
        fs::write(folder.path().join("piece"), piece.to_string())?;
    }
    Ok(0)
}

/// Does the same, and never asks.
fn render_deaf(parent: PathBuf) -> Result<u32, RemoteError> {
    let folder = tempfile::tempdir_in(parent)?;
    for piece in 0.. {
        fs::write(folder.path().join("piece"), piece.to_string())?;
    }
    Ok(0)
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

#[seedbed::main]
async fn main() -> io::Result<()> {
    // A worker that is still starting when its call is cancelled is killed at once, so one is
    // started before.
    run_sync(i32::abs, -1).await.expect("it can be started");
    let parent = tempfile::tempdir()?;
    let path = parent.path().to_owned();
    let time = Duration::from_millis(200);

    // The job ends when it is asked. The call returns what the job returns: here, an error.
    let call = run_sync(render, path.clone()).kill_after(Duration::from_secs(10));
    let outcome = move_on_after(time, call).await.expect("it ends by itself");
    let error = outcome
        .expect("its worker lives")
        .expect_err("it was stopped");
    println!("The polite job says: {error}.");
    assert!(is_empty(&path)?, "its folder is removed");

    // A job that does not ask is killed, and leaves its folder behind.
    let call = run_sync(render_deaf, path.clone()).kill_after(Duration::from_millis(100));
    assert!(move_on_after(time, call).await.is_none());
    println!("The deaf job was killed.");
    parent.close() // with what the job has left
}
