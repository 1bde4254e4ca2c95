//! How do I give each call a process of its own?
//!
//! Workers are reused, because that is a thousand times faster than starting one. But some code
//! leaves state behind: a global variable, a changed working directory, a library that can be
//! initialised only once. For such code, use workers that do one job and retire, so that each call
//! is the first in its process.
//!
//! ```text
//! cargo run --example single_use_workers
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use seedbed::{WorkerConfig, cache_scope, run_sync};

/// State of the process.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// Counts its calls in this process. It stands for code that changes the state of its process.
fn count_calls(_: ()) -> u32 {
    CALLS.fetch_add(1, Ordering::Relaxed) + 1
}

#[seedbed::main]
async fn main() {
    // By default, the second call goes to the worker of the first one, and sees the state that
    // it left behind.
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

    // This process has not called the function: state in a worker stays there.
    assert_eq!(CALLS.load(Ordering::Relaxed), 0);
}
