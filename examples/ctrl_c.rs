//! What happens at Ctrl-C?
//!
//! ```text
//! cargo run --example ctrl_c; echo $?     # prints 130
//! ```
//!
//! Ctrl-C cancels all tasks inside `run`, and cancelled tasks can clean up. Then the process kills
//! itself *with the signal*, as Unix shells expect: a shell script around it stops
//! too, and `$?` is 130, which is 128 plus the number of the signal. A second Ctrl-C ends the
//! process at once.
//!
//! This program sends itself the signal that the keys would send, so that it runs unattended.

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use seedbed::time::sleep_forever;
use seedbed::worker::default_context_statistics;
use seedbed::{on_cancel, open_nursery, run_sync, sleep};

/// A job that never ends. Workers ignore Ctrl-C, although the terminal sends it to them too: the
/// program decides whether the job is stopped.
fn endless(_: ()) {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[seedbed::main]
async fn main() {
    let work = open_nursery(async |n| {
        n.spawn(async { run_sync(endless, ()).kill_on_cancel(true).await });

        // Code between two awaits is never interrupted, and destructors run wherever a task is
        // cancelled.
        n.spawn(async {
            let _notes = Notes;
            sleep_forever().await;
        });

        // This stands for pressing Ctrl-C.
        sleep(Duration::from_millis(300)).await;
        println!("Ctrl-C!");
        kill_process(getpid(), Signal::INT).expect("everybody may send signals to themselves");
        sleep(Duration::from_secs(5)).await;
        n.cancel();
    });

    // The second future runs if the first one is cancelled, after all of its tasks have ended.
    // Unlike a destructor it may await, and it is itself shielded from cancellation.
    on_cancel(work, async {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(default_context_statistics().running_workers, 0);
        println!("The worker is gone, and this is the last line.");
    })
    .await;
    // A program that `nohup`, or a script with `&`, has started ignores Ctrl-C.
    println!("This program has inherited that SIGINT is ignored, and was not interrupted.");
}

/// A resource that must be put away in every case.
struct Notes;

impl Drop for Notes {
    fn drop(&mut self) {
        println!("The notes are put away.");
    }
}
