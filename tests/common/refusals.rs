//! Configurations with which no worker comes up, and what their errors say.

#![allow(dead_code)] // each test program uses its own part of this

use std::error::Error;

use seedbed::worker::WorkerErrorKind;
use seedbed::{WorkerConfig, WorkerError};

use super::{pid, with_workers};

/// The error of a configuration with which no worker comes up. There is nothing left of the attempt.
pub async fn refused(config: WorkerConfig) -> WorkerError {
    with_workers(config, |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap_err();
        let second = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(first.to_string(), second.to_string(), "each call is told");
        assert!(super::workers().is_empty());
        second
    })
    .await
}

/// Checks that a worker did not come up because of that setting.
pub fn assert_start_error(error: &WorkerError, setting: &str) {
    assert_eq!(error.kind(), WorkerErrorKind::Start, "{error}");
    assert!(
        error.to_string().contains(&format!("`{setting}`")),
        "{error}"
    );
}

/// The kernel's reason.
pub fn os_error(error: &WorkerError) -> Option<i32> {
    let source = error.source()?.downcast_ref::<std::io::Error>()?;
    source.raw_os_error()
}
