//! A clock that stands still until it is told to move, or until nothing else can happen.
//!
//! Its time is a straight line: so much at one moment of real time, and from there on `rate`
//! virtual seconds per real one. Whatever changes the line begins a new one where the old one
//! stands, so the time never leaps unless it is told to, and never goes back. The line is pure
//! ([`Line`]); the clock adds a lock, and the runs that must hear of a change.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::cancel::lock;
use crate::time::Clock;

/// A virtual clock for tests. Clones are handles on the same clock.
///
/// It stands still, until somebody calls [`jump`](MockClock::jump); an
/// [`autojump`](MockClock::autojump) clock moves by itself to the next deadline whenever every task
/// of the run is blocked, so that a test with an hour of timeouts takes a millisecond. Waiting for
/// a worker, a thread or a socket counts as blocked, too. It may also run, at another
/// [`rate`](MockClock::set_rate) than the system's. All of these can be changed at any time, from
/// any thread, and take effect at once.
///
/// Several runs, each in a thread of its own, may share one clock, and all hear of its changes. An
/// autojump goes to the next deadline of the run that is blocked, though, and may thereby pass
/// deadlines of another; so share a clock that you move yourself.
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
pub struct MockClock {
    state: Arc<Mutex<State>>,
}

struct State {
    /// What the clock's time is counted from.
    start: Instant,
    line: Line,
    autojump_threshold: Option<Duration>,
    /// The runs to be told when somebody changes the clock, each once. A run is put here at each of
    /// its turns, and taken out by being told.
    runs: Vec<Waker>,
}

/// Further than this no clock gets, so that adding to an `Instant` cannot fail: some hundred
/// million years.
const END_OF_TIME: Duration = Duration::from_secs(1 << 52);

/// Virtual time as a function of real time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    /// The virtual time that had passed at `since`.
    passed: Duration,
    since: Instant,
    rate: f64,
}

impl Line {
    /// The virtual time that has passed.
    fn at(&self, real: Instant) -> Duration {
        if self.rate == 0.0 {
            return self.passed;
        }
        let real = real.saturating_duration_since(self.since);
        let more = Duration::try_from_secs_f64(real.as_secs_f64() * self.rate);
        self.passed
            .saturating_add(more.unwrap_or(END_OF_TIME))
            .min(END_OF_TIME)
    }

    /// The line that begins where this one stands.
    fn anew(&self, real: Instant) -> Line {
        Line {
            passed: self.at(real),
            // Of two threads, the one that gets the lock later may have looked at the real time
            // earlier.
            since: real.max(self.since),
            rate: self.rate,
        }
    }

    /// How long, in real time, until so much has passed; `None` if that will never be.
    fn real_time_until(&self, passed: Duration, real: Instant) -> Option<Duration> {
        let rest = passed.saturating_sub(self.at(real));
        if rest.is_zero() {
            return Some(Duration::ZERO);
        }
        // Rounded up, so that whoever waits for so long finds that it has passed. A rate of 0 makes
        // it endless.
        let rest = Duration::try_from_secs_f64(rest.as_secs_f64() / self.rate).ok()?;
        rest.checked_add(Duration::from_nanos(1))
    }
}

impl MockClock {
    /// Makes a clock that moves only by [`jump`](MockClock::jump).
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
                line: Line {
                    passed: Duration::ZERO,
                    since: start,
                    rate: 0.0,
                },
                autojump_threshold: None,
                runs: Vec::new(),
            })),
        }
    }

    /// Makes a clock that jumps to the next deadline as soon as every task is blocked.
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

    /// Sets for how long, in real time, every task has to be blocked before the clock jumps;
    /// `None`: it never does.
    ///
    /// Takes effect at once: a run that is blocked for longer than the new threshold jumps now.
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

    /// Moves the clock forward. Whose deadline has passed by that wakes up when the run next looks.
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
            let line = &mut state.line;
            line.passed = line.passed.saturating_add(by).min(END_OF_TIME);
        });
    }

    /// Lets the clock run: so many virtual seconds per real second; 0 stops it.
    ///
    /// The time goes on from where it is. Takes effect at once, also for those who sleep.
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
            state.line = Line {
                rate,
                ..state.line.anew(Instant::now())
            };
        });
    }

    /// How many virtual seconds pass per real second; 0 for a clock that does not run.
    ///
    /// ```
    /// assert_eq!(seedbed::testing::MockClock::new().rate(), 0.0);
    /// ```
    pub fn rate(&self) -> f64 {
        lock(&self.state).line.rate
    }

    /// How far the clock has moved since it was made.
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
        lock(&self.state).line.at(Instant::now())
    }

    /// Changes the clock and tells every run that has it.
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
            .field("elapsed", &state.line.at(Instant::now()))
            .field("rate", &state.line.rate)
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
        state.start + state.line.at(Instant::now())
    }

    fn real_time_until(&self, deadline: Instant) -> Option<Duration> {
        let state = lock(&self.state);
        let passed = deadline.saturating_duration_since(state.start);
        state.line.real_time_until(passed, Instant::now())
    }

    fn autojump_threshold(&self) -> Option<Duration> {
        lock(&self.state).autojump_threshold
    }

    fn jump_to(&self, deadline: Instant) {
        self.change(|state| {
            let line = state.line.anew(Instant::now());
            let passed = deadline.saturating_duration_since(state.start);
            state.line = Line {
                passed: passed.max(line.passed).min(END_OF_TIME),
                ..line
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
        let mut line = Line {
            passed: SECOND,
            since: start,
            rate: 2.0,
        };
        assert_eq!(line.at(start + SECOND), 3 * SECOND);
        line = line.anew(start + SECOND);
        line.rate = 10.0;
        assert_eq!(line.at(start + SECOND), 3 * SECOND);
        assert_eq!(line.at(start + 2 * SECOND), 13 * SECOND);
        line = line.anew(start + 2 * SECOND);
        line.rate = 0.0;
        assert_eq!(line.at(start + 9 * SECOND), 13 * SECOND);
    }

    #[test]
    fn a_clock_that_stands_still_never_gets_there_by_itself() {
        let start = Instant::now();
        let line = Line {
            passed: SECOND,
            since: start,
            rate: 0.0,
        };
        assert_eq!(line.real_time_until(2 * SECOND, start), None);
        assert_eq!(line.real_time_until(SECOND, start), Some(Duration::ZERO));
    }

    #[test]
    fn no_clock_gets_past_the_end_of_time() {
        let clock = MockClock::new();
        clock.jump(Duration::MAX);
        clock.jump(Duration::MAX);
        assert_eq!(clock.elapsed(), END_OF_TIME);
        clock.set_rate(f64::MAX);
        assert_eq!(clock.now(), clock.now());
        assert_eq!(clock.elapsed(), END_OF_TIME);
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

        /// Whatever is done to it, and in whatever order the threads looked at the real time.
        #[test]
        fn the_time_never_goes_back_and_whoever_waits_long_enough_has_waited_enough(
            steps in proptest::collection::vec((0_u8..3, 0_u64..5_000_000, 0.0_f64..1000.0), 1..40)
        ) {
            let start = Instant::now();
            let mut line = Line { passed: Duration::ZERO, since: start, rate: 1.0 };
            let (mut real, mut last) = (start, Duration::ZERO);
            for (what, nanos, number) in steps {
                match what {
                    0 => real += Duration::from_nanos(nanos),
                    1 => line = Line { rate: number, ..line.anew(real) },
                    _ => line.passed += Duration::from_nanos(nanos),
                }
                prop_assert!(line.at(real) >= last);
                last = line.at(real);
                let goal = last + Duration::from_nanos(nanos);
                if let Some(wait) = line.real_time_until(goal, real) {
                    // A nanosecond of virtual time may be lost to rounding; then the run looks
                    // again.
                    prop_assert!(line.at(real + wait) + Duration::from_nanos(1) >= goal);
                }
            }
        }
    }
}
