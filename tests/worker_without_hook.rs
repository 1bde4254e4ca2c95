//! A program that never calls the hook. It is a test program of its own, because the hook is
//! recorded for the whole process.

mod common;

use seedbed::run_sync;
use seedbed::worker::WorkerErrorKind;

#[test]
fn without_the_hook_nothing_is_started_and_the_error_names_the_fix() {
    let error = smol::block_on(async { run_sync(i32::abs, -1).await }).unwrap_err();
    assert_eq!(error.kind(), WorkerErrorKind::NotInitialized);
    let text = error.to_string();
    assert!(
        text.contains("seedbed::init()") && text.contains("i32>::abs"),
        "{text}"
    );
    assert!(common::children().is_empty());
}
