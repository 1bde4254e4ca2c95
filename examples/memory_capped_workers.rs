//! How do I keep a function that leaks, or explodes, from eating the memory of the machine?
//!
//! There are two caps, for two kinds of greed. A slow leak is met between jobs: a worker that has grown too large
//! retires, and a new one takes its place. An explosion in the middle of a job is met by the kernel: the process is
//! refused the memory and aborts, and the caller gets an error. Nobody else notices either of them.
//!
//! ```text
//! cargo run --example memory_capped_workers
//! ```

use std::collections::BTreeSet;

use seedbed::worker::WorkerErrorKind;
use seedbed::{WorkerConfig, open_worker_context};

const MEGABYTE: u64 = 1 << 20;

/// Leaks so many megabytes, and tells in which process.
fn leak(megabytes: u64) -> u32 {
    // Memory that was never written is not there yet, hence the ones.
    vec![1_u8; (megabytes * MEGABYTE) as usize].leak();
    std::process::id()
}

seedbed::main! {
    async fn main() {
        // A configuration is for all workers of a context. `retire` policies are asked in the worker after each job; limits
        // hold from its beginning.
        let config = WorkerConfig::new()
            .retire_above_memory(100 * MEGABYTE)
            .memory_limit(500 * MEGABYTE)
            // What a dying worker has to say becomes part of the error, instead of going to this program's stderr.
            .capture_stderr(true);

        open_worker_context(config, async |workers| {
            // Ten jobs leak 400 MB together. Every third one makes its worker cross the line of 100 MB and retire, so
            // the leak is spread over four processes, of which there was one at a time.
            let mut processes = BTreeSet::new();
            for _ in 0..10 {
                processes.insert(workers.run_sync(leak, 40).await.expect("a leak is no error"));
            }
            println!("Ten leaking jobs were done by the processes {processes:?}.");
            assert_eq!(processes.len(), 4);

            // This one wants more than a worker may have at all. It takes down its worker, and nothing else.
            let error = workers.run_sync(leak, 1000).await.unwrap_err();
            let exit = error.exit().expect("the worker has ended");
            println!("Process {} was refused its memory and died.", exit.pid());
            assert_eq!(error.kind(), WorkerErrorKind::Broken);
            assert_eq!(exit.signal_name(), Some("SIGABRT"));

            // The next job is served as if nothing had happened.
            let process = workers.run_sync(leak, 1).await.expect("the worker is new");
            println!("Process {process} goes on.");
        })
        .await;
    }
}
