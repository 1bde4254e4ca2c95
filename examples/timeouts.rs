//! How do I limit the time that something takes?
//!
//! Any future can have a time limit, and so can a whole block of code. This program shows nested
//! limits, work that must not be interrupted, and a limit that is moved while the work is in
//! progress. It runs on a virtual clock, so its seconds take no time. In your program, use
//! `seedbed::run` in place of `RunBuilder`. The last part limits jobs in worker processes, whose
//! time is always real.
//!
//! ```text
//! cargo run --example timeouts
//! ```

use std::time::Duration;

use seedbed::cancel::{TooSlowError, current_effective_deadline};
use seedbed::testing::MockClock;
use seedbed::time::current_time;
use seedbed::worker::WorkerErrorKind;
use seedbed::{
    CancelScope, CapacityLimiter, RunBuilder, fail_after, move_on_after, open_nursery, run_sync,
    shield, sleep,
};

const SECOND: Duration = Duration::from_secs(1);

fn main() {
    RunBuilder::new().clock(MockClock::autojump()).run(async {
        a_limit_is_part_of_the_plan().await;
        a_limit_is_an_error().await;
        the_tightest_limit_counts().await;
        the_last_words_are_shielded().await;
        a_deadline_is_moved().await;
        a_job_has_a_limit_of_its_own().await;
    });
}

/// Use `move_on_after` for optional work: `None` means that the time was up.
async fn a_limit_is_part_of_the_plan() {
    let start = current_time();
    let suggestions = move_on_after(2 * SECOND, look_up(5 * SECOND)).await;
    assert_eq!(suggestions, None);
    assert_eq!(current_time() - start, 2 * SECOND);
    println!("After two seconds we go on without the suggestions.");

    // Work that finishes in time keeps its value, whatever its limit was.
    assert_eq!(
        move_on_after(2 * SECOND, look_up(SECOND)).await,
        Some("found")
    );
}

/// Use `fail_after` for required work: exceeding the limit is an error, and `?` passes it on.
async fn a_limit_is_an_error() {
    async fn page() -> Result<&'static str, TooSlowError> {
        let text = fail_after(2 * SECOND, look_up(SECOND)).await?;
        fail_after(2 * SECOND, look_up(5 * SECOND)).await?;
        Ok(text)
    }
    let error = page().await.unwrap_err();
    println!("The page cannot be shown: {error}.");
}

/// Nested limits do not add up: an inner limit can only be tighter. Functions need not pass on the
/// remaining time; any of them can query it.
async fn the_tightest_limit_counts() {
    let start = current_time();
    let outcome = move_on_after(3 * SECOND, async {
        let generous = move_on_after(60 * SECOND, async {
            assert_eq!(current_effective_deadline(), Some(start + 3 * SECOND));
            look_up(30 * SECOND).await
        });
        generous.await;
        unreachable!(
            "the outer limit ends this code, too, not only what is inside of the inner one"
        );
    });
    assert_eq!(outcome.await, None::<()>);
    assert_eq!(current_time() - start, 3 * SECOND);
    println!("A minute inside of three seconds is three seconds.");
}

/// A shield defers limits around it. Limits inside it still apply. Put one there, because a shield
/// around work that never ends would never end either.
async fn the_last_words_are_shielded() {
    let start = current_time();
    let outcome = move_on_after(SECOND, async {
        look_up(SECOND / 2).await;
        let last_words = shield(move_on_after(5 * SECOND, announce_exit(2 * SECOND)));
        last_words.await.expect("two seconds are within the five")
    });
    // The limit passed while the shield was active. The shielded work was finished, so its value is
    // not lost.
    assert_eq!(outcome.await, Some("announced"));
    assert_eq!(current_time() - start, SECOND / 2 + 2 * SECOND);
    println!("The exit announcement was finished after the limit.");

    let start = current_time();
    let stuck = move_on_after(
        SECOND,
        shield(move_on_after(5 * SECOND, announce_exit(3600 * SECOND))),
    );
    assert_eq!(stuck.await, Some(None));
    assert_eq!(current_time() - start, 5 * SECOND);
    println!(
        "An exit announcement that takes an hour is cut off by the limit inside of the shield."
    );
}

/// A limit is a setting of a scope, and any handle on the scope can change it. Here, a watchdog
/// barks if there was no progress for two seconds.
async fn a_deadline_is_moved() {
    let watchdog = CancelScope::new();
    watchdog.set_timeout(2 * SECOND); // counted from the first poll
    let collar = watchdog.clone();
    let mut steps = 0;
    let start = current_time();
    let outcome = watchdog.run(async {
        for pause in [1, 1, 1, 1, 3] {
            sleep(pause * SECOND).await;
            steps += 1;
            collar.set_timeout(2 * SECOND); // counted from now
        }
    });
    assert_eq!(outcome.await, None);
    assert_eq!((steps, current_time() - start), (4, 6 * SECOND));
    println!("After four steps in time, the fifth was too slow, and the watchdog barked.");
}

/// A scope around a call would count the time in the queue of the limiter too. The limit of the
/// call counts from the beginning of the job. When it is reached, the worker is killed and reaped.
async fn a_job_has_a_limit_of_its_own() {
    let one_at_a_time = &CapacityLimiter::new(1);
    let (short, forever) = (Duration::from_millis(20), 3600 * SECOND);
    let outcomes = open_nursery(async |n| {
        let calls = [forever, short, short].map(|time| {
            n.spawn(
                run_sync(std::thread::sleep, time)
                    .limiter(one_at_a_time)
                    .time_limit(SECOND),
            )
        });
        let mut outcomes = Vec::new();
        for call in calls {
            outcomes.push(call.await.map_err(|error| error.kind()));
        }
        outcomes
    });
    let timed_out = Err(WorkerErrorKind::TimedOut);
    assert_eq!(outcomes.await, [timed_out, Ok(()), Ok(())]);
    println!("The endless job was killed; those behind it had their own time.");
}

async fn look_up(takes: Duration) -> &'static str {
    sleep(takes).await;
    "found"
}

async fn announce_exit(takes: Duration) -> &'static str {
    sleep(takes).await;
    "announced"
}
