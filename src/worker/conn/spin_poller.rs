//! A run's looks at the mailboxes of its calls before it sleeps.
//!
//! A call that waits for an answer leaves its mailbox here, if the loop of a run polls on this thread. When nobody else has
//! anything to do, the loop looks for a while at all of them; then it takes leave, and answers come through the reactor. An
//! answer wakes the call's task, as the reactor would.
//!
//! Nothing depends on that look. A loop may be kept from it for long, by a `block_on` inside one of its tasks, for
//! example; then the worker sees that its answer is not taken, and says so through the socket.

use std::cell::RefCell;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use rustix::thread::sched_getcpu;

use crate::sys::mapping::Mapping;
use crate::transport::mailbox::Mailbox;
use crate::transport::mailbox::backoff::{Patience, look_for};

/// How long a loop looks before it sleeps. Waking it takes about as long.
const LOOK: Duration = Duration::from_micros(50);

/// At least one look of so many is taken, however often they were in vain.
const EVERY: u32 = 64;

thread_local! {
    static LOOKOUT: RefCell<Lookout> = const { RefCell::new(Lookout {
        open: false,
        watched: Vec::new(),
        patience: Patience::new(),
    }) };
}

struct Lookout {
    /// The loop of a run is polling.
    open: bool,
    watched: Vec<Arc<Watched>>,
    patience: Patience,
}

/// A mailbox, and who waits for an answer there.
#[derive(Debug)]
pub(in crate::worker) struct Watched {
    pub(in crate::worker) mailbox: Mapping<Mailbox>,
    caller: AtomicWaker,
    /// Where it stands, or stood, in a list.
    place: AtomicUsize,
}

impl Watched {
    pub(in crate::worker) fn new(mailbox: Mapping<Mailbox>) -> Arc<Self> {
        Arc::new(Watched {
            mailbox,
            caller: AtomicWaker::new(),
            place: AtomicUsize::new(usize::MAX),
        })
    }

    /// Whether there is something for its caller, here or in the socket.
    fn is_heard_of(&self) -> bool {
        let answer = &self.mailbox.answer;
        answer.is_full() || answer.is_called()
    }
}

/// A loop's turn on this thread; over when dropped.
#[must_use]
pub(crate) struct Turn {
    outer: bool,
}

/// Enters a turn of a run's loop.
pub(crate) fn turn() -> Turn {
    let outer = LOOKOUT.try_with(|lookout| std::mem::replace(&mut lookout.borrow_mut().open, true));
    Turn {
        outer: outer.unwrap_or(false),
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A thread that is ending polls nobody any more.
        let _ = LOOKOUT.try_with(|lookout| lookout.borrow_mut().open = self.outer);
    }
}

/// Whether a loop on this thread will look.
pub(in crate::worker) fn is_open() -> bool {
    LOOKOUT
        .try_with(|lookout| lookout.borrow().open)
        .unwrap_or(false)
}

/// Leaves a mailbox here, which is being watched. False if no loop will look.
pub(in crate::worker) fn add(watched: &Arc<Watched>, caller: &Waker) -> bool {
    if !is_open() {
        return false;
    }
    watched.caller.register(caller); // outside the borrow: it is foreign code
    wake(Lookout::make_room);
    let add = |lookout: &RefCell<Lookout>| {
        let mut lookout = lookout.borrow_mut();
        let place = watched.place.load(Ordering::Relaxed);
        let is_there = |at: &Arc<Watched>| Arc::ptr_eq(at, watched);
        if !lookout.watched.get(place).is_some_and(is_there) {
            watched
                .place
                .store(lookout.watched.len(), Ordering::Relaxed);
            lookout.watched.push(watched.clone());
        }
        true
    };
    LOOKOUT.try_with(add).unwrap_or(false)
}

/// Wakes those whose answers are there, without any waiting. True if somebody was.
pub(crate) fn glance() -> bool {
    wake(Lookout::take_loud)
}

/// Forgets those who wait, as a run has ended. Their answers come by their workers' own looks.
pub(crate) fn forget() {
    let watched = LOOKOUT.try_with(|lookout| std::mem::take(&mut lookout.borrow_mut().watched));
    drop(watched); // outside the borrow: with it go wakers
}

/// Looks for answers, until there is one, or `interrupted`, or it has been long enough, or `most`. True if somebody was
/// woken.
pub(crate) fn look(most: Duration, interrupted: impl Fn() -> bool) -> bool {
    wake(|lookout| lookout.look(most, interrupted))
}

/// Takes some out, and wakes those among them for whom there is something.
fn wake(take: impl FnOnce(&mut Lookout) -> Vec<Arc<Watched>>) -> bool {
    let taken = LOOKOUT.try_with(|lookout| take(&mut lookout.borrow_mut()));
    // Outside the borrow, for wakers are foreign code, also when they are dropped.
    let taken = taken.unwrap_or_default().into_iter();
    let callers = taken.filter_map(|at| at.is_heard_of().then(|| at.caller.take())?);
    callers.map(Waker::wake).count() > 0
}

impl Lookout {
    /// Where there is no room for another one, takes out those for whom nobody waits any more. Who blocks its thread in the middle
    /// of a run may use many workers before the loop looks again.
    fn make_room(&mut self) -> Vec<Arc<Watched>> {
        if self.watched.len() < self.watched.capacity() {
            return Vec::new();
        }
        let gone = self.take_loud();
        // Then the next search is far off, even if this one found few.
        self.watched.reserve(self.watched.len());
        gone
    }

    fn look(&mut self, most: Duration, interrupted: impl Fn() -> bool) -> Vec<Arc<Watched>> {
        if self.watched.is_empty() {
            return Vec::new();
        }
        // With more of them than processors, somebody else needs this one. They are told to use the socket.
        let looks = self.watched.len() <= processors() && self.patience.is_there();
        let mut cut_short = false;
        if looks {
            let here = sched_getcpu();
            let together = |at: &Arc<Watched>| at.mailbox.job.is_watched_from(here);
            let together = self.watched.iter().any(together);
            look_for(LOOK.min(most), together, || {
                cut_short = interrupted();
                cut_short || self.watched.iter().any(|at| !at.mailbox.answer.is_quiet())
            });
        }
        let mut gone = self.take_loud();
        let heard = gone.iter().any(|at| at.is_heard_of());
        match (looks, heard) {
            (_, true) => self.patience.was_rewarded(),
            (true, false) if !cut_short => self.patience.was_in_vain(EVERY),
            (_, false) => {}
        }
        if !heard && !cut_short {
            for at in &self.watched {
                at.mailbox.answer.leave(); // if that was too late, it is heard of now
            }
            gone.append(&mut self.watched);
        }
        gone
    }

    /// Takes out those whose mailboxes are not quiet any more.
    fn take_loud(&mut self) -> Vec<Arc<Watched>> {
        let is_loud = |at: &mut Arc<Watched>| !at.mailbox.answer.is_quiet();
        let loud: Vec<_> = self.watched.extract_if(.., is_loud).collect();
        for (place, at) in self.watched.iter().enumerate() {
            at.place.store(place, Ordering::Relaxed);
        }
        loud
    }
}

/// How many processors this program may use, as far as was known when it asked first.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}
