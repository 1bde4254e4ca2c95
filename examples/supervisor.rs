//! How do I keep something running that fails now and then?
//!
//! `supervise` runs a child. When the child fails, it starts a new one: soon after the first
//! failure, later after each further one, and in the end not at all. When it gives up, it returns
//! an error, which propagates up the tree like any other. So supervisors nest, and the failure of
//! one ends the block around it.
//!
//! The child can be anything. Here it is a task that loses its connection, or a function in a
//! worker process, of which one crashes and one panics. A panic in a task of this process is *not*
//! followed by a restart, unless `restart_on_panic` is set: it means that the program has a bug,
//! and memory that it shares with other tasks may be half changed, so it ends the block. Code that
//! must survive its own bugs runs in a worker.
//!
//! ```text
//! cargo run --example supervisor
//! ```

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use seedbed::service::{Supervise, SuperviseError, supervise};
use seedbed::time::sleep_forever;
use seedbed::worker::WorkerErrorKind;
use seedbed::{WorkerError, checkpoint, on_cancel, open_nursery, run_sync, try_open_nursery};

/// The number of failures in a row after which a supervisor gives up.
const LIMIT: u32 = 4;

/// The policy of all supervisors in this program.
fn patient<F, E>(supervisor: Supervise<F, E>) -> Supervise<F, E> {
    let (first, longest) = (Duration::from_millis(5), Duration::from_millis(20));
    supervisor.backoff(first, longest).limit(LIMIT)
}

#[seedbed::main]
async fn main() {
    what_fails_now_and_then_gets_its_work_done().await;
    what_always_fails_ends_the_block_around_it().await;
}

async fn what_fails_now_and_then_gets_its_work_done() {
    let connections = &AtomicU32::new(0);
    let attempts = &AtomicU32::new(0);
    let (news, thumbnail, largest) = open_nursery(|n| async move {
        // A task of this process.
        let news = supervise(|| read_news(connections.fetch_add(1, Relaxed)));
        let news = n.spawn(patient(news).name("the news feed"));
        // Functions in worker processes: their crash is an error here.
        let thumbnail = supervise(|| run_sync(draw_thumbnail, attempts.fetch_add(1, Relaxed)));
        let thumbnail = n.spawn(patient(thumbnail).name("the thumbnail"));
        let mut inputs = [vec![], vec![3, 4]].into_iter();
        let largest = supervise(move || run_sync(largest, inputs.next().unwrap_or_default()));
        let largest = n.spawn(patient(largest).name("the comparison"));
        (news.await, thumbnail.await, largest.await)
    })
    .await;
    assert_eq!(news.unwrap(), "all quiet");
    assert_eq!(connections.load(Relaxed), 3);
    println!("The news feed lost two connections, and is up.");
    assert_eq!(thumbnail.unwrap(), "a small picture");
    assert_eq!(attempts.load(Relaxed), 2);
    println!("The thumbnail is drawn, after a crash.");
    assert_eq!(largest.unwrap(), 4);
    println!("The largest number is found, after a panic in a worker.");
}

async fn what_always_fails_ends_the_block_around_it() {
    let put_away = &AtomicU32::new(0);
    let outcome: Result<(), SuperviseError<WorkerError>> = try_open_nursery(|n| async move {
        n.try_spawn(patient(supervise(|| run_sync(read_archive, ()))));
        // Its sibling has not failed. It is cancelled, not restarted, and has time to end in order.
        n.spawn(on_cancel(sleep_forever(), async {
            put_away.fetch_add(1, Relaxed);
        }));
        Ok(())
    })
    .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.last().kind(), WorkerErrorKind::Broken);
    assert_eq!(error.failures(), LIMIT);
    assert_eq!(put_away.load(Relaxed), 1);
    println!("The archive ends the block: it {error}.");
}

/// Loses its first two connections.
async fn read_news(connection: u32) -> Result<&'static str, ConnectionLost> {
    checkpoint().await; // here, other tasks get their turns
    match connection {
        0 | 1 => Err(ConnectionLost),
        _ => Ok("all quiet"),
    }
}

#[derive(Debug)]
struct ConnectionLost;

impl fmt::Display for ConnectionLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was lost")
    }
}

impl Error for ConnectionLost {}

/// Crashes, like a C library that crashes on some inputs.
fn draw_thumbnail(attempt: u32) -> String {
    if attempt == 0 {
        std::process::abort();
    }
    "a small picture".into()
}

/// Panics if there is no number.
fn largest(numbers: Vec<u32>) -> u32 {
    *numbers.iter().max().expect("there is a number")
}

/// Never succeeds.
fn read_archive(_: ()) {
    std::process::exit(3);
}
