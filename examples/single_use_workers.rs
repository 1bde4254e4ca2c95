//! How do I give each call a process of its own?
//!
//! Worker processes are used again, because that is a thousand times faster than starting one. But some code leaves
//! something behind: a global variable, a changed folder, a library that can be initialised once. For such code, a
//! worker that does one job and retires makes each call the first one.
//!
//! ```text
//! cargo run --example single_use_workers
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use seedbed::{WorkerConfig, cache_scope, run_sync};

/// What the process remembers.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// Counts how often it was called in this process. It stands for code that is not as it was after the first call.
fn count_calls(_: ()) -> u32 {
    CALLS.fetch_add(1, Ordering::Relaxed) + 1
}

seedbed::main! {
    async fn main() {
        // By default, the second call is given to the worker of the first, and finds what that one left behind.
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

        // This process was asked nothing at all: what happens in a worker stays there.
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    }
}
