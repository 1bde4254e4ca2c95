//! The time for a look at a fork server, for all who wait for a worker of one at once.
//!
//! A fork server that is stopped, or otherwise out of its mind, must not be waited for in vain. But a timer for each wait costs
//! more than the wait: each wakes the reactor when it is set. So there is one for the whole process, which runs as long as
//! anybody waits, and a little longer.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_io::Timer;
use event_listener::{Event, EventListener};

/// How much time passes between two looks. The first may be due at once.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// After so many turns without anybody who waits, the timer stops.
const QUIET: u32 = 10;

static LOOKOUT: Lookout = Lookout {
    look: Event::new(),
    posted: AtomicBool::new(false),
    quiet: AtomicU32::new(0),
};

/// Listens for the next look.
pub(super) fn next_look() -> EventListener {
    LOOKOUT.listen()
}

#[derive(Debug)]
struct Lookout {
    look: Event,
    /// The timer runs.
    posted: AtomicBool,
    /// How many turns have passed since somebody began to wait.
    quiet: AtomicU32,
}

impl Lookout {
    fn listen(&'static self) -> EventListener {
        let listener = self.look.listen(); // before the timer is made sure of, so that no turn goes by unheard
        self.quiet.store(0, Ordering::SeqCst);
        if !self.posted.swap(true, Ordering::SeqCst) {
            smol::spawn(self.keep()).detach();
        }
        listener
    }

    async fn keep(&self) {
        loop {
            Timer::after(LOOK).await;
            self.look.notify(usize::MAX);
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
