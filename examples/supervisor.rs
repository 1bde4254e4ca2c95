//! How do I keep something running that fails now and then?
//!
//! A supervisor runs a child, and when it fails, makes a new one: soon after the first failure, later and later if it
//! goes on failing, and in the end not at all. What it gives up on is an error, and that error goes where all errors go: up
//! the tree. So supervisors nest, and what one cannot mend ends the block around it.
//!
//! It does not matter what the child is. Here are a task that loses its connection, and functions in worker processes, of
//! which one crashes and one panics. What is *not* restarted is a panic in a task of this process: it says that the
//! program is wrong, memory that it shares with others may be half changed, and so it takes down the block. What is to
//! survive its own bugs runs in a worker.
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

/// When a child that has failed is started again, and when no more.
#[derive(Clone, Copy, Debug)]
struct Policy {
    /// How long to wait after the first failure; after each further one, twice as long.
    first_pause: Duration,
    longest_pause: Duration,
    /// A child that lived this long was healthy: the next failure counts as the first.
    healthy_after: Duration,
    /// How many failures in a row are too many.
    limit: u32,
}

const POLICY: Policy = Policy {
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_millis(20),
    healthy_after: Duration::from_secs(60),
    limit: 4,
};

/// The failures so far, and what they mean: all decisions of the supervisor, and nothing else.
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

    /// Takes note of a failure of a child that lived for so long. Returns the pause before the next start; `None` if there
    /// is to be none.
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

/// Runs what `make` makes until it ends well, and starts it anew when it fails, as the policy says.
///
/// To stop it, cancel it: a child is dropped where it waits, and so is the pause between two of them.
///
/// # Errors
///
/// [`GaveUp`], with the last error, when there were too many.
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

/// The first line of a message: a worker's panic brings its backtrace along, if there is one.
fn brief(error: &impl Error) -> String {
    let message = error.to_string();
    message.lines().next().unwrap_or_default().to_owned()
}

/// A supervisor has given up on its child.
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

seedbed::main! {
    async fn main() {
        the_pauses_grow_up_to_a_limit();
        what_fails_now_and_then_gets_its_work_done().await;
        what_always_fails_ends_the_block_around_it().await;
    }
}

/// The decisions need neither children nor time to be looked at.
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
    // Who has been well for long is forgiven what was before.
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
        // Functions in worker processes: whatever they do to themselves, here it is an error.
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
        // Its sibling has no fault, and is not restarted but cancelled. It is given the time to end in order.
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
    checkpoint().await; // here, others have their turns
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

/// Stands for a C library that crashes at some inputs, or at some times.
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

/// Never gets anywhere.
fn read_archive(_: ()) {
    std::process::exit(3);
}
