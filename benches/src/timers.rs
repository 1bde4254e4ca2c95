//! Timers: 100,000 of them at one time, per timer.
//!
//! * *fire*: each is made and polled once, then all deadlines pass while the thread sleeps, which is not counted; then
//!   the runtime notices, wakes, and each is polled to its end.
//! * *cancel*: each is made, polled once, and dropped long before its deadline, as the timer of a timeout that is not
//!   reached.
//!
//! All timers are polled by one task, so that it is the timers that are measured and not the tasks. Deadlines are
//! scattered at random, the same for every contender. Every timer is boxed, because tokio's has to be. The clock is the
//! thread's, which stands still while it sleeps.

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
/// From the beginning until the first deadline to be met: more than what setting all timers takes.
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
            // The runtime has to notice by itself.
            if !std::mem::replace(&mut woken, true) {
                return Poll::Pending;
            }
            // One that is ready leaves, one that is not says when to look again.
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
            // Whoever cleans up later does it now.
            smol::future::yield_now().await;
        };
        samples.thread_time(TIMERS as u64, work).await;
    }
}

/// Timers that have been polled once, with deadlines scattered after `first`.
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

/// Marsaglia's xorshift: any scatter will do, as long as it is the same for everybody.
struct Random(u64);

impl Random {
    /// A number from 0 to 1.
    fn part(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as f64 / u64::MAX as f64
    }
}
