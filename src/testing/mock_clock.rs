//! A clock that stands still until it is told to move, or until nothing else can happen.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::cancel::lock;
use crate::time::Clock;

/// A virtual clock for tests. Clones are handles on the same clock. A clock is for one run at a time.
///
/// It stands still, until somebody calls [`jump`](MockClock::jump); an [`autojump`](MockClock::autojump) clock moves by
/// itself to the next deadline whenever every task of the run is blocked, so that a test with an hour of timeouts takes
/// a millisecond. Waiting for a worker, a thread or a socket counts as blocked, too.
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
#[derive(Clone, Debug)]
pub struct MockClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    start: Instant,
    elapsed: Duration,
    autojump_threshold: Option<Duration>,
    /// The run to be told when somebody changes the clock.
    run: Option<Waker>,
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
        MockClock {
            state: Arc::new(Mutex::new(State {
                start: Instant::now(),
                elapsed: Duration::ZERO,
                autojump_threshold: None,
                run: None,
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

    /// Sets for how long, in real time, every task has to be blocked before the clock jumps; `None`: it never does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{sleep, testing::MockClock, RunBuilder};
    ///
    /// let clock = MockClock::new();
    /// clock.set_autojump_threshold(Some(Duration::from_millis(1)));
    /// RunBuilder::new().clock(clock.clone()).run(sleep(Duration::from_secs(3600)));
    /// assert_eq!(clock.elapsed(), Duration::from_secs(3600));
    /// ```
    pub fn set_autojump_threshold(&self, threshold: Option<Duration>) {
        lock(&self.state).autojump_threshold = threshold;
        self.tell_run();
    }

    /// Moves the clock forward. Whose deadline has passed by that wakes up when the run next looks.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{current_time, testing::MockClock, RunBuilder};
    ///
    /// let clock = MockClock::new();
    /// RunBuilder::new().clock(clock.clone()).run(async {
    ///     let start = current_time();
    ///     clock.jump(Duration::from_secs(60));
    ///     assert_eq!(current_time() - start, Duration::from_secs(60));
    /// });
    /// ```
    pub fn jump(&self, by: Duration) {
        lock(&self.state).elapsed += by;
        self.tell_run();
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
        lock(&self.state).elapsed
    }

    fn tell_run(&self) {
        let run = lock(&self.state).run.clone();
        if let Some(run) = run {
            run.wake();
        }
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
        state.start + state.elapsed
    }

    fn real_time_until(&self, _: Instant) -> Option<Duration> {
        None
    }

    fn autojump_threshold(&self) -> Option<Duration> {
        lock(&self.state).autojump_threshold
    }

    fn jump_to(&self, deadline: Instant) {
        let mut state = lock(&self.state);
        state.elapsed = state
            .elapsed
            .max(deadline.saturating_duration_since(state.start));
    }

    fn wake_on_change(&self, run: &Waker) {
        lock(&self.state).run = Some(run.clone());
    }
}
