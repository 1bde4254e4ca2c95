//! How do I give each call a process of its own?
//!
//! Worker processes are reused, because that is a thousand times faster than starting one. But some
//! code leaves state behind: a global variable, a changed working directory, a library that can be
//! initialised only once. For such code, use workers that retire after one job, so that each call
//! is the first one of its process.
//!
//! ```text
//! cargo run --example single_use_workers
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use seedbed::{WorkerConfig, cache_scope, run_sync};

/// State of the process.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// Counts its calls in this process, like code that behaves differently after the first call.
fn count_calls(_: ()) -> u32 {
    CALLS.fetch_add(1, Ordering::Relaxed) + 1
}

seedbed::main! {
    async fn main() {
        // By default, the second call reuses the worker of the first one, and finds its state.
        assert_eq!(run_sync(count_calls, ()).await.unwrap(), 1);
        assert_eq!(run_sync(count_calls, ()).await.unwrap(), 2);
        println!("A worker that is used again remembers.");

        // In this scope, a worker retires after one job.
        cache_scope(WorkerConfig::new().single_use(), async {
            for _ in 0..3 {
                assert_eq!(run_sync(count_calls, ()).await.unwrap(), 1);
            }
        })
        .await;
        println!("A worker that is used once has nothing to remember.");

        // The state of this process has not changed: jobs only change their worker.
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    }
}
