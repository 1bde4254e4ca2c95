//! A gate at which a job waits for its test, and calls that are stopped at a chosen poll.

use std::future::{IntoFuture, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;

use seedbed::CancelScope;

/// A folder through which a job reports that it has begun, and waits for permission to end.
pub struct Gate(tempfile::TempDir);

impl Gate {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub async fn begun(&self) -> u32 {
        loop {
            match std::fs::read_to_string(self.0.path().join("begun")) {
                Ok(pid) if !pid.is_empty() => return pid.parse().unwrap(),
                _ => smol::future::yield_now().await,
            }
        }
    }

    pub fn open(&self) {
        std::fs::write(self.0.path().join("go"), "").unwrap();
    }
}

/// Reports that the job has begun.
pub fn begin(gate: &Path) {
    std::fs::write(gate.join("begun"), std::process::id().to_string()).unwrap();
}

/// Waits until the gate is open.
pub fn pass(gate: &Path) {
    while !gate.join("go").exists() {
        std::thread::yield_now();
    }
}

/// Cancels or drops a call when it is pending for the `k`-th time. Returns whether it was.
pub async fn stopped_when_pending<F: IntoFuture>(call: F, k: usize, drops: bool) -> bool {
    let scope = CancelScope::new();
    let mut call = pin!(scope.run(call));
    let mut pending = 0;
    poll_fn(|cx| {
        if call.as_mut().poll(cx).is_ready() {
            return Poll::Ready(pending >= k);
        }
        pending += 1;
        if pending == k && drops {
            return Poll::Ready(true);
        }
        if pending == k {
            scope.cancel();
        }
        Poll::Pending
    })
    .await
}
