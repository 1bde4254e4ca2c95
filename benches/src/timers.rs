//! 100,000 timers at one time; nanoseconds per timer.
//!
//! * *fire*: each timer is made and polled once. Then all deadlines pass while the thread sleeps,
//!   which is not counted. Then the runtime detects this and wakes, and each timer is polled to its
//!   end.
//! * *cancel*: each timer is made, polled once, and dropped long before its deadline, like the
//!   timer of a timeout that is not reached.
//!
//! One task polls all timers, so that only the timers are measured. Deadlines are random, and the
//! same for every contender. Every timer is boxed, because tokio's has to be. The clock is the
//! thread's CPU clock, which stands still while the thread sleeps.

use std::{
    cell::LazyCell,
    future::poll_fn,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use crate::{
    measure::{Comparison, Samples, thread_time},
    options::Options,
};

const ROUNDS: (usize, usize) = (10, 1);
const TIMERS: usize = 100_000;
/// The time from the start until the first deadline: more than setting all timers takes.
const LEAD: Duration = Duration::from_millis(500);
const SPREAD_TO_FIRE: Duration = Duration::from_millis(50);
const SPREAD_TO_CANCEL: Duration = Duration::from_secs(60);

/// Prints the sections.
pub fn compare(options: &Options) {
    let tokio = LazyCell::new(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("tokio starts")
    });
    Comparison::new("timers/100000-fire", ROUNDS, "seedbed sleep_until", |s| {
        seedbed::run(fire(s, seedbed::time::sleep_until))
    })
    .beside_within(1.0, "smol Timer", |s| {
        smol::block_on(fire(s, smol::Timer::at))
    })
    .beside_within(1.0, "tokio sleep_until", |s| {
        tokio.block_on(tokio::task::coop::unconstrained(fire(s, tokio_sleep)))
    })
    .run(options);

    Comparison::new("timers/100000-cancel", ROUNDS, "seedbed sleep_until", |s| {
        seedbed::run(cancel(s, seedbed::time::sleep_until))
    })
    .beside_within(1.0, "smol Timer", |s| {
        smol::block_on(cancel(s, smol::Timer::at))
    })
    .beside_within(1.0, "tokio sleep_until", |s| {
        tokio.block_on(tokio::task::coop::unconstrained(cancel(s, tokio_sleep)))
    })
    .run(options);
}

fn tokio_sleep(deadline: Instant) -> tokio::time::Sleep {
    tokio::time::sleep_until(deadline.into())
}

async fn fire<F: Future>(samples: &mut Samples, sleep_until: impl Fn(Instant) -> F) {
    for _ in 0..samples.wanted() {
        let (start, first) = (thread_time(), Instant::now() + LEAD);
        let mut timers = set(&sleep_until, first, SPREAD_TO_FIRE).await;
        assert!(
            Instant::now() < first,
            "no deadline passes while timers are set"
        );
        let last = first + SPREAD_TO_FIRE + Duration::from_millis(2);
        std::thread::sleep(last.saturating_duration_since(Instant::now()));
        let mut woken = false;
        poll_fn(|cx| {
            // The runtime has to detect this by itself.
            if !std::mem::replace(&mut woken, true) {
                return Poll::Pending;
            }
            // A ready timer is removed; a pending one has registered its waker.
            while let Some(timer) = timers.last_mut() {
                match timer.as_mut().poll(cx) {
                    Poll::Ready(_) => _ = timers.pop(),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        })
        .await;
        samples.record(thread_time() - start, TIMERS as u64);
    }
}

async fn cancel<F: Future>(samples: &mut Samples, sleep_until: impl Fn(Instant) -> F) {
    for _ in 0..samples.wanted() {
        let work = async {
            drop(set(&sleep_until, Instant::now() + LEAD, SPREAD_TO_CANCEL).await);
            // Contenders that clean up lazily do it now.
            smol::future::yield_now().await;
        };
        samples.thread_time(TIMERS as u64, work).await;
    }
}

/// Returns timers that have been polled once, with deadlines spread after `first`.
async fn set<F: Future>(
    sleep_until: &impl Fn(Instant) -> F,
    first: Instant,
    spread: Duration,
) -> Vec<Pin<Box<F>>> {
    let mut timers = Vec::with_capacity(TIMERS);
    let mut random = Random(1);
    poll_fn(|cx| {
        for _ in 0..TIMERS {
            let mut timer = Box::pin(sleep_until(first + spread.mul_f64(random.part())));
            assert!(timer.as_mut().poll(cx).is_pending());
            timers.push(timer);
        }
        Poll::Ready(())
    })
    .await;
    timers
}

/// Marsaglia's xorshift. Any generator will do, if all contenders get the same numbers.
struct Random(u64);

impl Random {
    /// Returns a number from 0 to 1.
    fn part(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as f64 / u64::MAX as f64
    }
}
