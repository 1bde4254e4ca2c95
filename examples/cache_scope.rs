//! How do I give one part of my program its own workers, without passing anything through all of its functions?
//!
//! ```text
//! cargo run --example cache_scope
//! ```

use std::path::Path;

use seedbed::{WorkerConfig, cache_scope, open_nursery, run_sync};

/// The number of the process that this runs in.
fn process_id(_: ()) -> u32 {
    std::process::id()
}

/// A function deep inside of some library. It calls [`run_sync`] and knows nothing about where that runs.
async fn deep_inside() -> u32 {
    run_sync(process_id, ())
        .await
        .expect("nothing can go wrong with this job")
}

/// Whether there is a process of this number.
fn is_alive(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

seedbed::main! {
    async fn main() {
        // Outside of any scope, the workers come from a cache that the whole process shares. A worker that has done
        // its job goes back there, and the next call finds it warm.
        let shared = deep_inside().await;
        assert_eq!(deep_inside().await, shared);
        println!("Process {shared} does the shared work.");

        // Everything that runs inside of this scope uses workers of the scope, however deep down the call is.
        let config = WorkerConfig::new().init(|| println!("A worker of the scope starts."));
        let own = cache_scope(config, async {
            let own = deep_inside().await;
            assert_ne!(own, shared);

            // That goes for the tasks of a nursery too, if the nursery was opened in the scope.
            open_nursery(async |n| {
                let task = n.spawn(deep_inside());
                assert_eq!(task.await, own);
            })
            .await;
            own
        })
        .await;
        println!("Process {own} did the work of the scope.");

        // With the scope its workers have ended. The shared one has waited for more.
        assert!(!is_alive(own));
        assert!(is_alive(shared));
        assert_eq!(deep_inside().await, shared);
    }
}
