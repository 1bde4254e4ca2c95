//! How do I stop a function that does not stop by itself?
//!
//! A thread cannot be stopped from outside, and an `async` task only where it awaits. A process can
//! be killed at any time, so a function that must be stoppable runs in a worker process.
//!
//! ```text
//! cargo run --example cancellation
//! ```

use std::thread;
use std::time::Duration;

use seedbed::time::current_time;
use seedbed::worker::default_context_statistics;
use seedbed::{fail_after, move_on_after, run_sync};

/// Spins forever, like a regular expression that backtracks without end, or a C library with a bug.
fn endless(start: u64) -> u64 {
    let mut n = start;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

/// Takes some time, and then returns.
fn save_file(name: String) -> String {
    thread::sleep(Duration::from_millis(300));
    format!("{name} is saved")
}

/// Returns the id of the process that it runs in.
fn process_id(_: ()) -> u32 {
    std::process::id()
}

#[seedbed::main]
async fn main() {
    // The call runs in a worker process, while this process can do other work. With
    // `kill_on_cancel`, cancelling the call kills the worker. A time limit is one way to cancel
    // a call.
    let start = current_time();
    let endless = run_sync(endless, 0).kill_on_cancel(true);
    let outcome = fail_after(Duration::from_millis(200), endless).await;
    assert!(outcome.is_err());
    println!(
        "The endless loop was stopped after {:?}.",
        current_time() - start
    );

    // When `fail_after` returns, the process has been killed and reaped. It uses no more CPU
    // time, and there is no zombie.
    let workers = default_context_statistics();
    assert_eq!((workers.running_workers, workers.idle_workers), (0, 0));

    // The next call gets a new worker.
    let worker = run_sync(process_id, ())
        .await
        .expect("the worker is healthy");
    println!("The next call is answered by process {worker}.");
    assert_ne!(worker, std::process::id());

    // Killing is not always right: half a file is worse than none. Without `kill_on_cancel`, a
    // call whose job has started runs to its end, and cancelling it waits. The job has then
    // been done, so the caller gets its result although the time is up.
    let start = current_time();
    let saving = run_sync(save_file, "thesis.txt".to_owned());
    let outcome = move_on_after(Duration::from_millis(50), saving).await;
    let saved = outcome
        .expect("it was not cut off")
        .expect("nor did it fail");
    assert_eq!(saved, "thesis.txt is saved");
    assert!(current_time() - start >= Duration::from_millis(300));
    println!("After {:?}, {saved}.", current_time() - start);
}
