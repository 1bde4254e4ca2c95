//! How do I keep a function that leaks, or allocates too much, from using all memory of the
//! machine?
//!
//! There are two limits. A slow leak is handled between jobs: a worker that has grown too large
//! retires, and a new one takes its place. A sudden allocation in the middle of a job is handled by
//! the kernel: it refuses the memory, the worker aborts, and the caller gets an error. Other calls
//! are not affected.
//!
//! ```text
//! cargo run --example memory_capped_workers
//! ```

use std::collections::BTreeSet;

use seedbed::worker::{ExitCause, WorkerErrorKind};
use seedbed::{WorkerConfig, open_worker_context};

const MEGABYTE: u64 = 1 << 20;

/// Leaks this many megabytes, and returns the id of its process.
fn leak(megabytes: u64) -> u32 {
    // The bytes are ones, because memory that is never written to takes no pages.
    vec![1_u8; (megabytes * MEGABYTE) as usize].leak();
    std::process::id()
}

#[seedbed::main]
async fn main() {
    // A configuration applies to all workers of a context. A worker evaluates its `retire`
    // policies after each job. Limits apply from its start.
    let config = WorkerConfig::new()
        .retire_above_memory(100 * MEGABYTE)
        .memory_limit(500 * MEGABYTE)
        // A worker's last output becomes part of the error, instead of going to this program's
        // standard error.
        .capture_stderr(true);

    open_worker_context(config, async |workers| {
        // Ten jobs leak 400 MB together. Every third job makes its worker exceed 100 MB and
        // retire, so four processes share the leak, one after the other.
        let mut processes = BTreeSet::new();
        for _ in 0..10 {
            processes.insert(
                workers
                    .run_sync(leak, 40)
                    .await
                    .expect("a leak is no error"),
            );
        }
        println!("Ten leaking jobs were done by the processes {processes:?}.");
        assert_eq!(processes.len(), 4);

        // This job needs more memory than a worker may have. It ends its worker, and nothing
        // else.
        let error = workers.run_sync(leak, 1000).await.unwrap_err();
        let exit = error.exit().expect("the worker has ended");
        println!("Process {} was refused its memory and died.", exit.pid());
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert_eq!(exit.cause(), ExitCause::OutOfMemory);

        // The next job is served as usual.
        let process = workers.run_sync(leak, 1).await.expect("the worker is new");
        println!("Process {process} goes on.");
    })
    .await;
}
