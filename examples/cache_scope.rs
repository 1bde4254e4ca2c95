//! How do I give one part of my program its own workers, without passing a context through all of
//! its functions?
//!
//! ```text
//! cargo run --example cache_scope
//! ```

use std::path::Path;

use seedbed::{WorkerConfig, cache_scope, open_nursery, run_sync};

/// Returns the id of the process that it runs in.
fn process_id(_: ()) -> u32 {
    std::process::id()
}

/// A function deep inside a library. It calls [`run_sync`] and does not know which workers are
/// used.
async fn deep_inside() -> u32 {
    run_sync(process_id, ())
        .await
        .expect("nothing can go wrong with this job")
}

/// Returns whether there is a process with this id.
fn is_alive(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

#[seedbed::main]
async fn main() {
    // Outside any scope, the workers come from a cache that the whole process shares. After its
    // job, a worker returns to the cache, and the next call uses it.
    let shared = deep_inside().await;
    assert_eq!(deep_inside().await, shared);
    println!("Process {shared} does the shared work.");

    // All code that runs inside this scope uses workers of the scope, at any depth of calls.
    let config = WorkerConfig::new().init(|| println!("A worker of the scope starts."));
    let own = cache_scope(config, async {
        let own = deep_inside().await;
        assert_ne!(own, shared);

        // The tasks of a nursery do too, if the nursery was opened in the scope.
        open_nursery(async |n| {
            let task = n.spawn(deep_inside());
            assert_eq!(task.await, own);
        })
        .await;
        own
    })
    .await;
    println!("Process {own} did the work of the scope.");

    // The workers of the scope have ended with it. The shared worker is still idle.
    assert!(!is_alive(own));
    assert!(is_alive(shared));
    assert_eq!(deep_inside().await, shared);
}
