//! How do I keep something running that fails now and then?
//!
//! A supervisor runs a child. When the child fails, it starts a new one: soon after the first
//! failure, later after each further one, and in the end not at all. When it gives up, it returns
//! an error, which propagates up the tree like any other. So supervisors nest, and the failure of
//! one ends the block around it.
//!
//! The child can be anything. Here it is a task that loses its connection, or a function in a
//! worker process, of which one crashes and one panics. A panic in a task of this process is *not*
//! handled by a restart: it means that the program has a bug, and memory that it shares with other
//! tasks may be half changed, so it ends the block. Code that must survive its own bugs runs in a
//! worker.
//!
//! ```text
//! cargo run --example supervisor
//! ```

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use seedbed::time::{current_time, sleep_forever};
use seedbed::worker::WorkerErrorKind;
use seedbed::{checkpoint, open_nursery, run_sync, sleep, try_open_nursery};

/// The policy: when a failed child is started again, and when the supervisor gives up.
#[derive(Clone, Copy, Debug)]
struct Policy {
    /// The pause after the first failure. It doubles after each further one.
    first_pause: Duration,
    longest_pause: Duration,
    /// A child that lived this long was healthy: its failure counts as the first.
    healthy_after: Duration,
    /// The number of failures in a row after which the supervisor gives up.
    limit: u32,
}

const POLICY: Policy = Policy {
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_millis(20),
    healthy_after: Duration::from_secs(60),
    limit: 4,
};

/// The failures so far. All decisions of the supervisor are here, and nothing else.
#[derive(Debug)]
struct Record {
    policy: Policy,
    in_a_row: u32,
}

impl Record {
    fn new(policy: Policy) -> Self {
        Record {
            policy,
            in_a_row: 0,
        }
    }

    /// Records the failure of a child that lived for `lived`. Returns the pause before the next
    /// start, or `None` to give up.
    fn failure(&mut self, lived: Duration) -> Option<Duration> {
        if lived >= self.policy.healthy_after {
            self.in_a_row = 0;
        }
        self.in_a_row += 1;
        if self.in_a_row >= self.policy.limit {
            return None;
        }
        let doubled = 2_u32.saturating_pow(self.in_a_row - 1);
        let pause = self.policy.first_pause.saturating_mul(doubled);
        Some(pause.min(self.policy.longest_pause))
    }
}

/// Runs the children that `make` returns until one succeeds, and starts a new one after each
/// failure, as the policy says.
///
/// Cancelling it drops the child where it waits, or ends the pause between two children.
///
/// # Errors
///
/// Returns [`GaveUp`], with the last error, after too many failures.
async fn supervise<T, E, Fut>(
    name: &'static str,
    policy: Policy,
    mut make: impl FnMut() -> Fut,
) -> Result<T, GaveUp>
where
    E: Error + Send + 'static,
    Fut: Future<Output = Result<T, E>>,
{
    let mut record = Record::new(policy);
    loop {
        let start = current_time();
        let error = match make().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(pause) = record.failure(current_time() - start) else {
            println!("{name}: {}. That was once too often.", brief(&error));
            return Err(GaveUp {
                name,
                failures: record.in_a_row,
                last: Box::new(error),
            });
        };
        println!(
            "{name}: {}. It is started again in {pause:?}.",
            brief(&error)
        );
        sleep(pause).await;
    }
}

/// Returns the first line of a message. A worker's panic may include a backtrace.
fn brief(error: &impl Error) -> String {
    let message = error.to_string();
    message.lines().next().unwrap_or_default().to_owned()
}

/// The error of a supervisor that has given up.
#[derive(Debug)]
struct GaveUp {
    name: &'static str,
    failures: u32,
    last: Box<dyn Error + Send>,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GaveUp { name, failures, .. } = self;
        write!(f, "{name} failed {failures} times in a row")
    }
}

impl Error for GaveUp {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.last)
    }
}

#[seedbed::main]
async fn main() {
    the_pauses_grow_up_to_a_limit();
    what_fails_now_and_then_gets_its_work_done().await;
    what_always_fails_ends_the_block_around_it().await;
}

/// Tests the decisions, without children and without waiting.
fn the_pauses_grow_up_to_a_limit() {
    let mut record = Record::new(Policy { limit: 6, ..POLICY });
    let moment = Duration::from_millis(1);
    let pauses: Vec<Option<u128>> = (0..6)
        .map(|_| record.failure(moment).map(|pause| pause.as_millis()))
        .collect();
    assert_eq!(
        pauses,
        [Some(5), Some(10), Some(20), Some(20), Some(20), None]
    );
    // A long healthy life resets the count.
    let healthy = POLICY.healthy_after;
    assert_eq!(record.failure(healthy), Some(POLICY.first_pause));
}

async fn what_fails_now_and_then_gets_its_work_done() {
    let connections = &AtomicU32::new(0);
    let attempts = &AtomicU32::new(0);
    let (news, thumbnail, largest) = open_nursery(|n| async move {
        // A task of this process.
        let news = n.spawn(supervise("the news feed", POLICY, move || {
            read_news(connections.fetch_add(1, Relaxed))
        }));
        // Functions in worker processes: their crash is an error here.
        let thumbnail = n.spawn(supervise("the thumbnail", POLICY, move || {
            run_sync(draw_thumbnail, attempts.fetch_add(1, Relaxed)).into_future()
        }));
        let mut inputs = [vec![], vec![3, 4]].into_iter();
        let largest = n.spawn(supervise("the comparison", POLICY, move || {
            run_sync(largest, inputs.next().unwrap_or_default()).into_future()
        }));
        (news.await, thumbnail.await, largest.await)
    })
    .await;
    assert_eq!(news.unwrap(), "all quiet");
    assert_eq!(connections.load(Relaxed), 3);
    assert_eq!(thumbnail.unwrap(), "a small picture");
    assert_eq!(attempts.load(Relaxed), 2);
    assert_eq!(largest.unwrap(), 4);
    println!("Everything was done, after some failures.");
}

async fn what_always_fails_ends_the_block_around_it() {
    let put_away = &AtomicU32::new(0);
    let outcome: Result<(), GaveUp> = try_open_nursery(|n| async move {
        n.try_spawn(supervise("the archive", POLICY, || {
            run_sync(read_archive, ()).into_future()
        }));
        // Its sibling has not failed. It is cancelled, not restarted, and has time to end in order.
        n.spawn(seedbed::on_cancel(sleep_forever(), async {
            put_away.fetch_add(1, Relaxed);
        }));
        Ok(())
    })
    .await;
    let error = outcome.unwrap_err();
    let worker = error
        .source()
        .and_then(|last| last.downcast_ref::<seedbed::WorkerError>());
    assert_eq!(
        worker.map(|last| last.kind()),
        Some(WorkerErrorKind::Broken)
    );
    assert_eq!(error.failures, POLICY.limit);
    assert_eq!(put_away.load(Relaxed), 1);
    println!("The block has ended, as {error}.");
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
