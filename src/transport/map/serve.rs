//! The worker's end of a session.
//!
//! `unsafe` is needed to end a process that a job has forked.
#![allow(unsafe_code)]

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use rustix::io::Errno;
use rustix::process::{Pid, getppid};

use super::memory::{
    ABANDONED, CLOSED, SessionMemory, WAITS_FOR_ITEMS, WAITS_FOR_NOTHING, WAITS_FOR_ROOM,
    record_words,
};
use crate::sys::clock::monotonic_time;
use crate::sys::fork_detector::ProcessMark;
use crate::sys::mapping::Mapping;
use crate::sys::primitives::{Instant, sleep};
use crate::transport::backoff::{Backoff, spin_until};
use crate::transport::tuning::{
    MAP_MEASURED_LONGEST, MAP_MEASURED_SHORTEST, MAP_SPIN, MAP_SPIN_INTERVAL, PARENT_CHECK_INTERVAL,
};

/// The exit code of a process whose session cannot go on.
const EXIT_BROKEN: i32 = 1;

/// The end of an item; the tag of its record in the ring of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemEnd {
    /// The encoded result.
    Value = 0,
    /// A text that says why the item could not be decoded.
    BadArgument = 1,
    /// A text that says why the result could not be encoded.
    BadResult = 2,
    /// A `PanicReport`.
    Panicked = 3,
    /// The result does not fit into the ring. It is the result of the session, which ends with it.
    Large = 4,
}

impl ItemEnd {
    /// Returns the end with this tag, if a record can have it.
    pub(crate) fn of_tag(tag: u8) -> Option<Self> {
        [
            Self::Value,
            Self::BadArgument,
            Self::BadResult,
            Self::Panicked,
        ]
        .into_iter()
        .find(|end| *end as u8 == tag)
    }
}

/// Wakes a parent that waits for an item to end.
pub(crate) trait ParentWaker {
    /// Returns `false` if that is not possible.
    fn wake(&self) -> bool;
}

/// The parent's eventfd.
impl ParentWaker for OwnedFd {
    fn wake(&self) -> bool {
        loop {
            match rustix::io::write(self, &1_u64.to_ne_bytes()) {
                // A counter that is full wakes the parent, too.
                Ok(_) | Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// A session, in the worker.
pub(crate) struct Server<M = Mapping<SessionMemory>, P = OwnedFd> {
    memory: M,
    parent_waker: P,
    /// Whether the parent needs to know when an item began.
    is_timed: bool,
    /// Distinguishes this process from those that a job forks.
    mark: ProcessMark,
    parent: Option<Pid>,
    backoff: Backoff,
    /// The position of the next item.
    read: u64,
    /// The position of the next result.
    written: u64,
    stopwatch: Stopwatch,
}

impl Server {
    /// Takes part in the session whose memory and eventfd the parent has sent.
    pub(crate) fn new(memory: OwnedFd, parent_waker: OwnedFd, is_timed: bool) -> io::Result<Self> {
        let memory = Mapping::<SessionMemory>::find(memory)?;
        memory.keep_from_forks()?;
        Self::of(memory, parent_waker, is_timed)
    }
}

impl<const WORDS: usize, M, P> Server<M, P>
where
    M: Deref<Target = SessionMemory<WORDS>>,
    P: ParentWaker,
{
    /// Takes part in the session in this memory.
    pub(super) fn of(memory: M, parent_waker: P, is_timed: bool) -> io::Result<Self> {
        Ok(Self {
            memory,
            parent_waker,
            is_timed,
            mark: ProcessMark::of_this_process()?,
            parent: getppid(),
            backoff: Backoff::new(),
            read: 0,
            written: 0,
            stopwatch: Stopwatch::new(),
        })
    }

    /// Works on items until the session ends. `work` gets an encoded item and an empty buffer for
    /// what becomes of it. Returns after an item that ended as [`ItemEnd::Large`], or when the
    /// parent has closed the session and all items have ended.
    pub(crate) fn serve(mut self, mut work: impl FnMut(&[u8], &mut Vec<u8>) -> ItemEnd) {
        let (mut item, mut result) = (Vec::new(), Vec::new());
        let mut number = 0;
        while self.begin_first(number) {
            loop {
                let Some((_, next)) = self.memory.items.get(self.read, &mut item) else {
                    exit_broken();
                };
                self.read = next;
                result.clear();
                let end = work(&item, &mut result);
                if !self.mark.is_of_this_process() {
                    leave_as_a_copy();
                }
                if end == ItemEnd::Large {
                    return;
                }
                self.write(end, &result);
                number += 1;
                if !self.end(number) {
                    break;
                }
            }
        }
    }

    /// Waits for the item with this number and begins it. Returns `false` if the session ends.
    fn begin_first(&mut self, number: u64) -> bool {
        loop {
            if !self.await_item(number) {
                return false;
            }
            self.stopwatch.restart();
            self.note_begin();
            self.change_progress(number << 1, number << 1 | 1);
            if self.memory.limit().0 > number {
                return true;
            }
            self.change_progress(number << 1 | 1, number << 1);
        }
    }

    /// Ends the item before `number`, and begins that one, if it is there. Returns whether it did.
    fn end(&mut self, number: u64) -> bool {
        let goes_on = self.memory.limit().0 > number;
        if goes_on {
            self.note_begin();
        }
        let before = number << 1 | 1;
        self.change_progress(before - 2, number << 1 | u64::from(goes_on));
        if let Some((busy, items)) = self.stopwatch.lap(!goes_on) {
            let worker = &self.memory.worker;
            // Read apart by the parent, to which the numbers are estimates.
            let busy = worker.busy.load(Relaxed) + busy;
            worker.busy.store(busy, Relaxed);
            let items = worker.measured.load(Relaxed) + items;
            worker.measured.store(items, Relaxed);
        }
        self.wake_parent();
        if goes_on && self.memory.limit().0 <= number {
            self.change_progress(before, number << 1);
            return false;
        }
        goes_on
    }

    /// Changes the progress. Waits for the end of this process if the item in progress is
    /// condemned.
    fn change_progress(&self, from: u64, to: u64) {
        let progress = &self.memory.worker.progress;
        if progress.compare_exchange(from, to, SeqCst, SeqCst).is_err() {
            // The parent kills this process. If it does not, because it has ended, this does.
            sleep(PARENT_CHECK_INTERVAL);
            exit_broken();
        }
    }

    fn note_begin(&self) {
        if self.is_timed {
            let now = monotonic_time().as_nanos() as u64; // enough for centuries
            self.memory.worker.began.store(now, SeqCst);
        }
    }

    /// Writes what became of an item, after a wait for room if necessary.
    fn write(&mut self, end: ItemEnd, result: &[u8]) {
        let words = record_words(result.len());
        let behind = self.written + words;
        let has_room = |memory: &SessionMemory<WORDS>| {
            let free_until = memory.parent.taken.load(SeqCst) + WORDS as u64;
            behind <= free_until || memory.limit().1 & ABANDONED != 0
        };
        if !has_room(&self.memory) {
            self.wake_parent();
            self.wait(WAITS_FOR_ROOM, has_room);
        }
        self.written = self.memory.results.put(self.written, end as u8, result);
    }

    /// Waits until the item with this number is there. Returns `false` if the session ends instead.
    fn await_item(&mut self, number: u64) -> bool {
        let is_decided = |memory: &SessionMemory<WORDS>| {
            let (count, flags) = memory.limit();
            count > number || flags & CLOSED != 0
        };
        loop {
            let (count, flags) = self.memory.limit();
            if count > number {
                return true;
            }
            if flags & CLOSED != 0 {
                return false;
            }
            // An item that ends the wait may be withdrawn before it is seen here.
            self.wait(WAITS_FOR_ITEMS, is_decided);
        }
    }

    /// Waits until `is_over`: spins first, unless spins have failed lately.
    fn wait(&mut self, what: u32, is_over: impl Fn(&SessionMemory<WORDS>) -> bool) {
        if self.backoff.next_wait_spins() {
            if spin_until(MAP_SPIN, false, || is_over(&self.memory)) {
                self.backoff.succeeded();
                return;
            }
            self.backoff.failed(MAP_SPIN_INTERVAL);
        }
        let wait = &self.memory.wait;
        loop {
            wait.waiting.store(what, SeqCst);
            let wake_ups = wait.bell.wake_ups();
            if is_over(&self.memory) {
                break;
            }
            wait.bell.wait(wake_ups, PARENT_CHECK_INTERVAL);
            if getppid() != self.parent {
                exit_broken(); // the kernel forgets to kill the worker of a job that changed its user
            }
        }
        wait.waiting.store(WAITS_FOR_NOTHING, SeqCst);
    }

    /// Wakes the parent, if it waits for an item to end.
    fn wake_parent(&self) {
        let parked = &self.memory.wait.parked;
        if parked.load(SeqCst) == 0 || parked.swap(0, SeqCst) == 0 {
            return;
        }
        if !self.parent_waker.wake() {
            exit_broken(); // a job has closed the descriptor, and the parent would wait indefinitely
        }
    }
}

/// Measures how long items take, without reading the clock for each quick one.
#[derive(Debug)]
struct Stopwatch {
    since: Instant,
    /// Items since then.
    items: u64,
    /// The number of items after which the clock is read.
    interval: u64,
}

impl Stopwatch {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            items: 0,
            interval: 1,
        }
    }

    /// Starts anew, after a wait.
    fn restart(&mut self) {
        self.since = Instant::now();
        self.items = 0;
    }

    /// Counts an item. Returns the nanoseconds of the last items and their number, if it is time
    /// for that, or if it must be `now`.
    #[inline]
    fn lap(&mut self, now: bool) -> Option<(u64, u64)> {
        self.items += 1;
        if self.items < self.interval && !now {
            return None;
        }
        let instant = Instant::now();
        let took = instant - self.since;
        if took < MAP_MEASURED_SHORTEST {
            self.interval = (self.items * 2).max(self.interval);
        } else if took > MAP_MEASURED_LONGEST {
            self.interval = (self.items / 2).max(1);
        }
        let items = std::mem::take(&mut self.items);
        self.since = instant;
        Some((u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), items))
    }
}

/// Ends this process, whose session cannot go on. The parent finds which items have ended.
#[cfg(not(all(test, loom)))]
fn exit_broken() -> ! {
    std::process::exit(EXIT_BROKEN)
}

#[cfg(all(test, loom))]
use crate::sys::model::end_process as exit_broken;

/// Ends a process that a job has forked, and that returned from it like the worker.
fn leave_as_a_copy() -> ! {
    // SAFETY: any process may call `_exit` at any moment. The worker itself does what a full exit
    // would do, such as flushing buffers.
    unsafe { libc::_exit(EXIT_BROKEN) }
}
