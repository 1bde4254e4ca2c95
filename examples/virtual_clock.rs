//! How do I test an hour of waiting in a millisecond?
//!
//! Give the run a clock that jumps. When every task waits, a [`MockClock::autojump`] clock jumps to
//! the next deadline. Sleeps, time limits and deadlines use the run's clock, so the tested code
//! need not know: [`fetch_with_retries`] takes no clock as an argument.
//!
//! ```text
//! cargo run --example virtual_clock
//! ```

use std::cell::RefCell;
use std::time::{Duration, Instant};

use seedbed::nursery::open_local_nursery;
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::time::{current_time, sleep_forever};
use seedbed::{RunBuilder, fail_after, sleep};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Calls `fetch` until it succeeds. Each call may take ten seconds. Between calls, it waits one
/// second, then two, then four, and so on, but never longer than ten minutes. It gives up after an
/// hour.
async fn fetch_with_retries<T, E>(mut fetch: impl AsyncFnMut() -> Result<T, E>) -> Option<T> {
    let retry = async {
        let mut pause = SECOND;
        loop {
            if let Ok(Ok(value)) = fail_after(10 * SECOND, fetch()).await {
                return value;
            }
            sleep(pause).await;
            pause = (2 * pause).min(10 * MINUTE);
        }
    };
    fail_after(HOUR, retry).await.ok()
}

// In your program, the functions below are `#[test]`s. Here, `main` calls them.
fn main() {
    let real = Instant::now();
    a_server_that_is_down_is_given_up_after_an_hour();
    a_server_that_hangs_is_asked_again();
    time_stands_still_until_the_test_moves_it();
    println!("Two hours and more were tested in {:?}.", real.elapsed());
    assert!(real.elapsed() < MINUTE);
}

fn a_server_that_is_down_is_given_up_after_an_hour() {
    let clock = MockClock::autojump();
    let calls = RefCell::new(Vec::new());
    let value = RunBuilder::new().clock(clock.clone()).run(async {
        let start = current_time();
        fetch_with_retries(async || {
            calls.borrow_mut().push((current_time() - start).as_secs());
            Err::<(), _>("connection refused")
        })
        .await
    });
    assert_eq!(value, None);
    // Virtual time is exact, so a test can check every second.
    assert_eq!(clock.elapsed(), HOUR);
    let calls = calls.into_inner();
    assert_eq!(
        calls,
        [
            0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1623, 2223, 2823, 3423
        ]
    );
    println!(
        "A server that is down was called {} times in an hour.",
        calls.len()
    );
}

fn a_server_that_hangs_is_asked_again() {
    let clock = MockClock::autojump();
    let mut calls = 0;
    let value = RunBuilder::new()
        .clock(clock.clone())
        .run(fetch_with_retries(async || {
            calls += 1;
            if calls < 3 {
                sleep_forever().await; // hangs until the time limit of the call
            }
            Ok::<_, ()>("the answer")
        }));
    assert_eq!(value, Some("the answer"));
    // Two calls of ten seconds, and their pauses.
    assert_eq!(clock.elapsed(), 20 * SECOND + 3 * SECOND);
    println!(
        "A server that hung twice has answered after {:?}.",
        clock.elapsed()
    );
}

/// A test that checks the state between two moments moves the clock by hand.
fn time_stands_still_until_the_test_moves_it() {
    let clock = MockClock::new();
    RunBuilder::new().clock(clock.clone()).run(async {
        open_local_nursery(|n| async move {
            let tea = n.spawn(sleep(5 * MINUTE));

            clock.jump(4 * MINUTE);
            wait_all_tasks_blocked().await; // every task that could run has run
            assert!(!tea.is_finished());

            clock.jump(HOUR);
            wait_all_tasks_blocked().await;
            assert!(tea.is_finished());
            println!("The tea was ready when the clock said so.");
        })
        .await;
    });
}
