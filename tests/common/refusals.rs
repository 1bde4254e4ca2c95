//! Configurations with which no worker comes up, and what their errors say.

#![allow(dead_code)] // each test program uses its own part of this

use std::error::Error;

use seedbed::worker::WorkerErrorKind;
use seedbed::{WorkerConfig, WorkerError};

use super::{pid, with_workers};

/// Makes two calls with a configuration with which no worker starts. Checks that nothing is left of
/// either, and returns their error.
pub async fn refused(config: WorkerConfig) -> WorkerError {
    with_workers(config, |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap_err();
        let second = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(
            first.to_string(),
            second.to_string(),
            "both calls fail alike"
        );
        assert!(super::workers().is_empty());
        second
    })
    .await
}

/// Checks that an error says that a worker did not start because of that setting.
pub fn assert_start_error(error: &WorkerError, setting: &str) {
    assert_eq!(error.kind(), WorkerErrorKind::Start, "{error}");
    assert!(
        error.to_string().contains(&format!("`{setting}`")),
        "{error}"
    );
}

/// Returns the error number of the system call that failed.
pub fn os_error(error: &WorkerError) -> Option<i32> {
    let source = error.source()?.downcast_ref::<std::io::Error>()?;
    source.raw_os_error()
}
