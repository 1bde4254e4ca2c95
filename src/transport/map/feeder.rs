//! The parent's end of a session.

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::memory::{
    ABANDONED, CLOSED, CONDEMNED, LIMIT_SHIFT, SessionMemory, WAITS_FOR_NOTHING, WAITS_FOR_ROOM,
    record_words,
};
use crate::sys::mapping::Mapping;

/// Hands items to a worker and takes their results.
#[derive(Debug)]
pub(crate) struct Feeder<M = Mapping<SessionMemory>> {
    memory: M,
    /// Number of items that the worker may begin.
    handed: u64,
    /// The position behind the last item that was written.
    written: u64,
    /// Number of words of items that have ended, which may be written again.
    freed: u64,
    /// The position of the next result.
    read: u64,
    flags: u64,
    /// The worker has violated the protocol, so nothing that it wrote counts any more.
    is_distrusted: bool,
}

/// The worker has written a value that the protocol does not allow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ForgedProgress;

/// The progress of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Number of items that have ended, and whose results are in the ring.
    pub(crate) ended: u64,
    /// The item with that number is in progress.
    pub(crate) is_in_item: bool,
}

impl Feeder {
    /// Makes a session's memory, and returns the descriptor for the worker.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (memory, file) = Mapping::make("seedbed-map")?;
        Ok((Self::of(memory), file))
    }
}

impl<const WORDS: usize, M: Deref<Target = SessionMemory<WORDS>>> Feeder<M> {
    /// Begins a session in memory that has had none.
    pub(super) fn of(memory: M) -> Self {
        Self {
            memory,
            handed: 0,
            written: 0,
            freed: 0,
            read: 0,
            flags: 0,
            is_distrusted: false,
        }
    }

    /// Prepares the memory for another session, after the worker has answered the last one.
    pub(crate) fn restart(&mut self) {
        let SessionMemory {
            parent,
            worker,
            wait,
            ..
        } = &*self.memory;
        for word in [&parent.limit, &parent.taken] {
            word.store(0, SeqCst);
        }
        for word in [
            &worker.progress,
            &worker.began,
            &worker.busy,
            &worker.measured,
        ] {
            word.store(0, SeqCst);
        }
        wait.waiting.store(WAITS_FOR_NOTHING, SeqCst);
        wait.parked.store(0, SeqCst);
        (self.handed, self.written, self.freed) = (0, 0, 0);
        (self.read, self.flags) = (0, 0);
    }

    /// Returns how many words of items there is room for.
    pub(crate) fn room(&self) -> u64 {
        WORDS as u64 - (self.written - self.freed)
    }

    /// Writes an item, for which there must be room. The worker sees it after
    /// [`publish`](Self::publish).
    pub(crate) fn put(&mut self, item: &[u8]) {
        debug_assert!(record_words(item.len()) <= self.room());
        self.written = self.memory.items.put(self.written, 0, item);
        self.handed += 1;
    }

    /// Lets the worker begin the items that were written.
    pub(crate) fn publish(&self) {
        let limit = self.handed << LIMIT_SHIFT | self.flags;
        self.memory.parent.limit.store(limit, SeqCst);
        self.wake_worker();
    }

    /// Lets the session end after the items that were handed over.
    pub(crate) fn close(&mut self) {
        self.flags |= CLOSED;
        self.publish();
    }

    /// Lets the session end although its results are not read.
    pub(crate) fn abandon(&mut self) {
        self.flags |= CLOSED | ABANDONED;
        self.publish();
    }

    /// Takes back the items from number `from` on that have not begun. Returns the number of the
    /// first one. The caller then calls [`take_back`](Self::take_back) with their words.
    pub(crate) fn withdraw(&mut self, from: u64) -> Result<u64, ForgedProgress> {
        let from = from.min(self.handed);
        let lower = from << LIMIT_SHIFT | self.flags;
        self.memory.parent.limit.store(lower, SeqCst);
        let progress = self.progress();
        let Ok(Progress { ended, is_in_item }) = progress else {
            return Err(ForgedProgress);
        };
        let begun = ended + u64::from(is_in_item);
        self.handed = from.max(begun);
        if self.handed > from {
            self.publish();
        }
        Ok(self.handed)
    }

    /// Makes room for other items in place of those withdrawn, which took this many words.
    pub(crate) fn take_back(&mut self, words: u64) {
        self.written -= words;
    }

    /// Returns the number of items that the worker may begin.
    pub(crate) fn handed(&self) -> u64 {
        self.handed
    }

    /// Refuses all that the worker writes from now on.
    pub(crate) fn distrust(&mut self) {
        self.is_distrusted = true;
    }

    /// Reads the progress of the worker.
    pub(crate) fn progress(&self) -> Result<Progress, ForgedProgress> {
        let progress = self.memory.worker.progress.load(SeqCst) & !CONDEMNED;
        let ended = progress >> 1;
        let is_in_item = progress & 1 == 1;
        if self.is_distrusted || ended > self.handed {
            return Err(ForgedProgress);
        }
        // A worker that finds its item withdrawn changes back.
        let is_in_item = is_in_item && ended < self.handed;
        Ok(Progress { ended, is_in_item })
    }

    /// Reads the next result, of an item that has ended and that took this many bytes. Returns its
    /// tag.
    pub(crate) fn take(
        &mut self,
        item_bytes: usize,
        result: &mut Vec<u8>,
    ) -> Result<u8, ForgedProgress> {
        let Some((tag, next)) = self.memory.results.get(self.read, result) else {
            return Err(ForgedProgress);
        };
        self.read = next;
        self.free(item_bytes);
        Ok(tag)
    }

    /// Notes that an item of this many bytes has ended.
    pub(crate) fn free(&mut self, item_bytes: usize) {
        self.freed += record_words(item_bytes);
    }

    /// Lets the worker write over the results that were read.
    pub(crate) fn release(&self) {
        self.memory.parent.taken.store(self.read, SeqCst);
        if self.memory.wait.waiting.load(SeqCst) == WAITS_FOR_ROOM {
            self.wake_worker();
        }
    }

    /// Wants to be woken when the next item ends. The caller then checks the progress once more.
    pub(crate) fn park(&self) {
        self.memory.wait.parked.store(1, SeqCst);
    }

    /// No longer wants to be woken.
    pub(crate) fn unpark(&self) {
        self.memory.wait.parked.store(0, SeqCst);
    }

    /// Returns the time that the worker has spent on items, and their number.
    pub(crate) fn measured(&self) -> (Duration, u64) {
        let worker = &self.memory.worker;
        let busy = Duration::from_nanos(worker.busy.load(Relaxed));
        (busy, worker.measured.load(Relaxed))
    }

    /// Returns when the item in progress began, as a time of the monotonic clock.
    pub(crate) fn began(&self) -> Duration {
        Duration::from_nanos(self.memory.worker.began.load(SeqCst))
    }

    /// Forbids the item with this number to end, if it is in progress and its job has not returned.
    /// Returns whether it was so; then the worker must be killed.
    pub(crate) fn condemn(&self, item: u64) -> bool {
        if self.memory.wait.waiting.load(SeqCst) == WAITS_FOR_ROOM {
            return false; // the job has returned
        }
        let now = item << 1 | 1;
        let progress = &self.memory.worker.progress;
        progress
            .compare_exchange(now, now | CONDEMNED, SeqCst, SeqCst)
            .is_ok()
    }

    fn wake_worker(&self) {
        let wait = &self.memory.wait;
        if wait.waiting.load(SeqCst) != WAITS_FOR_NOTHING {
            wait.bell.wake();
        }
    }
}

#[cfg(all(test, not(loom)))]
impl Feeder {
    /// Overwrites the progress, as a worker or a faulty job may.
    pub(super) fn set_progress(&self, progress: u64) {
        self.memory.worker.progress.store(progress, SeqCst);
    }
}
