//! `MockClock`: a virtual clock that stands still until it is moved, or until all tasks wait.
//!
//! Virtual time is a linear function of real time: an offset at one moment, plus `rate` virtual
//! seconds for each real one. A change starts a new function at the current virtual time, so time
//! jumps only on request and never goes back. The function is pure ([`VirtualTime`]); the clock
//! adds a mutex, and wakes the runs that use it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::sys::primitives::lock;
use crate::time::Clock;

/// A virtual clock for tests. Clones are handles of the same clock.
///
/// It stands still until [`jump`](MockClock::jump) is called. An [`autojump`](MockClock::autojump)
/// clock moves by itself to the next deadline whenever every task of the run is blocked, so a test
/// with an hour of timeouts takes a millisecond. Waiting for a worker, a thread or a socket counts
/// as blocked, too. A run that waits without a deadline, and that nothing can wake, panics; see the
/// [page on testing](crate::guide::testing#tests-that-wait). The clock may also run at another
/// [`rate`](MockClock::set_rate) than the system's. All of these can be changed at any time, from
/// any thread, and take effect immediately.
///
/// Several runs, each in a thread of its own, may share one clock, and its changes wake all of
/// them. But an autojump goes to the next deadline of the run that is blocked, and may pass
/// deadlines of another run. So share only a clock that the test moves itself.
///
/// ```
/// use std::time::Duration;
/// use seedbed::{fail_after, sleep, testing::MockClock, RunBuilder};
///
/// RunBuilder::new().clock(MockClock::autojump()).run(async {
///     let work = sleep(Duration::from_secs(1800));
///     assert!(fail_after(Duration::from_secs(1799), work).await.is_err());
/// });
/// ```
#[derive(Clone)]
#[doc(alias = "autojump_clock")]
#[doc(alias = "pause")]
pub struct MockClock {
    state: Arc<Mutex<State>>,
}

struct State {
    /// The start of the clock's time.
    start: Instant,
    time: VirtualTime,
    autojump_threshold: Option<Duration>,
    /// The runs to wake when the clock changes. A run is added at each of its ticks, and removed
    /// when it is woken.
    runs: Vec<Waker>,
}

/// The latest virtual time, so that adding to an `Instant` cannot fail: some hundred million years.
const LATEST_VIRTUAL_TIME: Duration = Duration::from_secs(1 << 52);

/// Virtual time as a function of real time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct VirtualTime {
    /// The virtual time at `since`.
    passed: Duration,
    since: Instant,
    rate: f64,
}

impl VirtualTime {
    /// Returns the virtual time at this real time.
    fn at(&self, real: Instant) -> Duration {
        if self.rate == 0.0 {
            return self.passed;
        }
        let real = real.saturating_duration_since(self.since);
        let more = Duration::try_from_secs_f64(real.as_secs_f64() * self.rate);
        self.passed
            .saturating_add(more.unwrap_or(LATEST_VIRTUAL_TIME))
            .min(LATEST_VIRTUAL_TIME)
    }

    /// Returns the function that starts at this real time with the same virtual time and rate.
    fn rebased(&self, real: Instant) -> VirtualTime {
        VirtualTime {
            passed: self.at(real),
            // The thread that locks the mutex later may have read the real time earlier.
            since: real.max(self.since),
            rate: self.rate,
        }
    }

    /// Returns the real time until this virtual time; `None` if the clock never gets there.
    fn real_time_until(&self, passed: Duration, real: Instant) -> Option<Duration> {
        let rest = passed.saturating_sub(self.at(real));
        if rest.is_zero() {
            return Some(Duration::ZERO);
        }
        // Rounded up, so that the virtual time has passed after a wait of this duration. With a
        // rate of 0, it is infinite.
        let rest = Duration::try_from_secs_f64(rest.as_secs_f64() / self.rate).ok()?;
        rest.checked_add(Duration::from_nanos(1))
    }
}

impl MockClock {
    /// Creates a clock that moves only by [`jump`](MockClock::jump).
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::testing::MockClock;
    ///
    /// let clock = MockClock::new();
    /// clock.jump(Duration::from_secs(3));
    /// assert_eq!(clock.elapsed(), Duration::from_secs(3));
    /// ```
    pub fn new() -> Self {
        let start = Instant::now();
        MockClock {
            state: Arc::new(Mutex::new(State {
                start,
                time: VirtualTime {
                    passed: Duration::ZERO,
                    since: start,
                    rate: 0.0,
                },
                autojump_threshold: None,
                runs: Vec::new(),
            })),
        }
    }

    /// Creates a clock that jumps to the next deadline as soon as every task is blocked.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{sleep, testing::MockClock, RunBuilder};
    ///
    /// let clock = MockClock::autojump();
    /// RunBuilder::new().clock(clock.clone()).run(sleep(Duration::from_secs(86_400)));
    /// assert_eq!(clock.elapsed(), Duration::from_secs(86_400));
    /// ```
    pub fn autojump() -> Self {
        let clock = MockClock::new();
        clock.set_autojump_threshold(Some(Duration::ZERO));
        clock
    }

    /// Sets the real time for which every task must be blocked before the clock jumps. With `None`,
    /// it never jumps.
    ///
    /// Takes effect immediately: a run that has been blocked for longer than the new threshold
    /// jumps now.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::testing::MockClock;
    /// use seedbed::time::current_time;
    /// use seedbed::{RunBuilder, sleep};
    ///
    /// let clock = MockClock::new();
    /// RunBuilder::new().clock(clock.clone()).run(async {
    ///     clock.set_autojump_threshold(Some(Duration::ZERO));
    ///     sleep(Duration::from_secs(60)).await;
    /// });
    /// assert_eq!(clock.elapsed(), Duration::from_secs(60));
    /// ```
    pub fn set_autojump_threshold(&self, threshold: Option<Duration>) {
        self.change(|state| state.autojump_threshold = threshold);
    }

    /// Moves the clock forward. Tasks whose deadline has passed wake up at the run's next tick.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{open_nursery, sleep, testing::MockClock, RunBuilder};
    ///
    /// let (clock, day) = (MockClock::new(), Duration::from_secs(86_400));
    /// RunBuilder::new().clock(clock.clone()).run(open_nursery(async |n| {
    ///     let sleeper = n.spawn(sleep(day));
    ///     seedbed::testing::wait_all_tasks_blocked().await;
    ///     clock.jump(day);
    ///     assert!(!sleeper.is_finished());
    ///     sleeper.await;
    /// }));
    /// ```
    pub fn jump(&self, by: Duration) {
        self.change(|state| {
            let time = &mut state.time;
            time.passed = time.passed.saturating_add(by).min(LATEST_VIRTUAL_TIME);
        });
    }

    /// Sets the rate in virtual seconds per real second; 0 stops the clock.
    ///
    /// The virtual time continues from its current value. Takes effect immediately, also for
    /// sleeping tasks.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use seedbed::{sleep, testing::MockClock, RunBuilder};
    ///
    /// let clock = MockClock::new();
    /// clock.set_rate(3600.0);
    /// RunBuilder::new().clock(clock.clone()).run(sleep(Duration::from_secs(2))); // takes half a millisecond
    /// clock.set_rate(0.0);
    /// assert!(clock.elapsed() >= Duration::from_secs(2));
    /// ```
    ///
    /// # Panics
    ///
    /// If the rate is negative, infinite or not a number.
    #[track_caller]
    pub fn set_rate(&self, rate: f64) {
        assert!(
            rate.is_finite() && rate >= 0.0,
            "a MockClock runs at 0 or more virtual seconds per real second, not at {rate}"
        );
        self.change(|state| {
            state.time = VirtualTime {
                rate,
                ..state.time.rebased(Instant::now())
            };
        });
    }

    /// Returns the rate in virtual seconds per real second; 0 for a clock that stands still.
    ///
    /// ```
    /// assert_eq!(seedbed::testing::MockClock::new().rate(), 0.0);
    /// ```
    pub fn rate(&self) -> f64 {
        lock(&self.state).time.rate
    }

    /// Returns the virtual time since the clock was created.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::testing::MockClock;
    ///
    /// let clock = MockClock::new();
    /// assert_eq!(clock.elapsed(), Duration::ZERO);
    /// clock.jump(Duration::from_secs(3));
    /// assert_eq!(clock.elapsed(), Duration::from_secs(3));
    /// ```
    pub fn elapsed(&self) -> Duration {
        lock(&self.state).time.at(Instant::now())
    }

    /// Changes the clock and wakes every run that uses it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let runs = {
            let mut state = lock(&self.state);
            change(&mut state);
            std::mem::take(&mut state.runs)
        };
        runs.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for MockClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("MockClock")
            .field("elapsed", &state.time.at(Instant::now()))
            .field("rate", &state.time.rate)
            .field("autojump_threshold", &state.autojump_threshold)
            .finish_non_exhaustive()
    }
}

impl Default for MockClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MockClock {
    fn now(&self) -> Instant {
        let state = lock(&self.state);
        state.start + state.time.at(Instant::now())
    }

    fn real_time_until(&self, deadline: Instant) -> Option<Duration> {
        let state = lock(&self.state);
        let passed = deadline.saturating_duration_since(state.start);
        state.time.real_time_until(passed, Instant::now())
    }

    fn autojump_threshold(&self) -> Option<Duration> {
        lock(&self.state).autojump_threshold
    }

    fn jump_to(&self, deadline: Instant) {
        self.change(|state| {
            let time = state.time.rebased(Instant::now());
            let passed = deadline.saturating_duration_since(state.start);
            state.time = VirtualTime {
                passed: passed.max(time.passed).min(LATEST_VIRTUAL_TIME),
                ..time
            };
        });
    }

    fn wake_on_change(&self, run: &Waker) {
        let run = run.clone();
        let mut state = lock(&self.state);
        if !state.runs.iter().any(|known| known.will_wake(&run)) {
            state.runs.push(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn changing_the_rate_is_continuous() {
        let start = Instant::now();
        let mut time = VirtualTime {
            passed: SECOND,
            since: start,
            rate: 2.0,
        };
        assert_eq!(time.at(start + SECOND), 3 * SECOND);
        time = time.rebased(start + SECOND);
        time.rate = 10.0;
        assert_eq!(time.at(start + SECOND), 3 * SECOND);
        assert_eq!(time.at(start + 2 * SECOND), 13 * SECOND);
        time = time.rebased(start + 2 * SECOND);
        time.rate = 0.0;
        assert_eq!(time.at(start + 9 * SECOND), 13 * SECOND);
    }

    #[test]
    fn a_clock_that_stands_still_never_gets_there_by_itself() {
        let start = Instant::now();
        let time = VirtualTime {
            passed: SECOND,
            since: start,
            rate: 0.0,
        };
        assert_eq!(time.real_time_until(2 * SECOND, start), None);
        assert_eq!(time.real_time_until(SECOND, start), Some(Duration::ZERO));
    }

    #[test]
    fn no_clock_gets_past_the_end_of_time() {
        let clock = MockClock::new();
        clock.jump(Duration::MAX);
        clock.jump(Duration::MAX);
        assert_eq!(clock.elapsed(), LATEST_VIRTUAL_TIME);
        clock.set_rate(f64::MAX);
        assert_eq!(clock.now(), clock.now());
        assert_eq!(clock.elapsed(), LATEST_VIRTUAL_TIME);
    }

    #[test]
    fn a_run_that_registers_twice_is_woken_once() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let (clock, waker) = (MockClock::new(), Waker::from(count.clone()));
        clock.wake_on_change(&waker);
        clock.wake_on_change(&waker);
        clock.jump(SECOND);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        clock.jump(SECOND);
        assert_eq!(
            count.0.load(Ordering::SeqCst),
            1,
            "it registers anew at each turn"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// For any sequence of changes, and any order in which threads read the real time.
        #[test]
        fn the_time_never_goes_back_and_whoever_waits_long_enough_has_waited_enough(
            steps in proptest::collection::vec((0_u8..3, 0_u64..5_000_000, 0.0_f64..1000.0), 1..40)
        ) {
            let start = Instant::now();
            let mut time = VirtualTime { passed: Duration::ZERO, since: start, rate: 1.0 };
            let (mut real, mut last) = (start, Duration::ZERO);
            for (what, nanos, number) in steps {
                match what {
                    0 => real += Duration::from_nanos(nanos),
                    1 => time = VirtualTime { rate: number, ..time.rebased(real) },
                    _ => time.passed += Duration::from_nanos(nanos),
                }
                prop_assert!(time.at(real) >= last);
                last = time.at(real);
                let goal = last + Duration::from_nanos(nanos);
                if let Some(wait) = time.real_time_until(goal, real) {
                    // A nanosecond of virtual time may be lost to rounding; then the run looks
                    // again.
                    prop_assert!(time.at(real + wait) + Duration::from_nanos(1) >= goal);
                }
            }
        }
    }
}
