//! The time for a look at what takes longer than expected, for all who wait at once.
//!
//! A call to a worker that was just asked for usually ends before there is anything to look after. But the fork server
//! may be stopped, or the worker may end and its socket live on with what its job has started; so after a while
//! somebody must look. A timer for each call would cost more than the call: each wakes the reactor when it is set. So
//! there is one for the whole process, which goes its rounds as long as anybody waits, and a little longer.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_io::Timer;
use event_listener::{Event, EventListener};

use crate::worker::background;

/// How long a round takes. The first may be over at once.
const ROUND: Duration = Duration::from_millis(100);

/// After so many rounds without anybody who waits, the timer stops.
const QUIET: u32 = 10;

static WATCHMAN: Watchman = Watchman {
    round: Event::new(),
    posted: AtomicBool::new(false),
    quiet: AtomicU32::new(0),
};

/// Listens for the end of the round.
pub(in crate::worker) fn next_round() -> EventListener {
    WATCHMAN.listen()
}

#[derive(Debug)]
struct Watchman {
    round: Event,
    /// The timer runs.
    posted: AtomicBool,
    /// How many rounds have passed since somebody began to wait.
    quiet: AtomicU32,
}

impl Watchman {
    fn listen(&'static self) -> EventListener {
        let listener = self.round.listen(); // before the timer is made sure of, so that no round goes by unheard
        self.quiet.store(0, Ordering::SeqCst);
        if !self.posted.swap(true, Ordering::SeqCst) {
            background::spawn(self.keep()).detach();
        }
        listener
    }

    async fn keep(&self) {
        loop {
            Timer::after(ROUND).await;
            self.round.notify(usize::MAX);
            if self.quiet.fetch_add(1, Ordering::SeqCst) + 1 >= QUIET && self.stops() {
                return;
            }
        }
    }

    /// Stops the timer, unless somebody has come in between and relies upon it.
    fn stops(&self) -> bool {
        self.posted.store(false, Ordering::SeqCst);
        let quiet = self.quiet.load(Ordering::SeqCst) >= QUIET;
        // If it was set again, then by somebody who has set another timer going.
        quiet || self.posted.swap(true, Ordering::SeqCst)
    }
}
