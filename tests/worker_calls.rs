//! Calls that succeed, and what they find in their worker.

mod common;

use common::test;
use seedbed::{WorkerConfig, open_worker_context, run_sync};

fn double(n: u64) -> u64 {
    2 * n
}

fn pid(_: ()) -> u32 {
    std::process::id()
}

/// Runs with a context of its own, so that its end is part of the test.
async fn with_workers<F, Fut>(config: WorkerConfig, body: F) -> Fut::Output
where
    F: FnOnce(seedbed::WorkerContext) -> Fut,
    Fut: Future,
{
    open_worker_context(config, body).await
}

#[test]
fn a_value_comes_back_from_another_process() {
    test(async {
        with_workers(WorkerConfig::new(), |workers| async move {
            assert_eq!(workers.run_sync(double, 21).await.unwrap(), 42);
            assert_ne!(workers.run_sync(pid, ()).await.unwrap(), std::process::id());
        })
        .await;
    });
}
