//! Decides which value goes to whom.
//!
//! Pure: a waiter carries a payload `W` that is stored and handed back; values are moved and never looked at or dropped
//! here. The driver guards a `Core` with a mutex, and wakes and drops what comes back after unlocking.
//!
//! Choice: values are handed over directly, as in Trio. Whoever sends while somebody waits to receive gives the value
//! to the longest waiter, in that step; whoever makes room moves the value of the longest waiting sender in. Nobody can
//! take a value or a place that was meant for another.
//!
//! A receiver may be dropped with a value that it has not seen. The value goes back to *where it was*: every value gets
//! a number when it enters the channel, and the buffer is sorted by it. (Putting it at the front would turn the order
//! around when several receivers are dropped at once.) So the buffer can hold more than the capacity for a while.
//!
//! Invariants, after every call:
//!
//! * If a receiver waits, the buffer is empty, no sender waits, and a sender is open.
//! * If a sender waits, the buffer is full, and a receiver is open.
//! * If no receiver is open, the buffer is empty.

use std::collections::VecDeque;
use std::mem;

use super::error::{RecvError, SendError, TryRecvError, TrySendError};
use super::statistics::ChannelStatistics;
use crate::sync::locked::Deferred;
use crate::sync::wait_list::{Removed, WaitList, WaiterKey};

/// Names a handle among all of its channel, of both sides.
pub(super) type HandleId = u64;

/// A value in the channel.
#[derive(Debug)]
pub(super) struct Item<T> {
    /// When it entered; the order of the channel.
    number: u64,
    value: T,
}

impl<T> Item<T> {
    pub(super) fn into_value(self) -> T {
        self.value
    }
}

/// A sender that waits, with its value.
#[derive(Debug)]
pub(super) struct WaitingSender<T, W> {
    handle: HandleId,
    value: T,
    payload: W,
}

/// A receiver that waits.
#[derive(Debug)]
pub(super) struct WaitingReceiver<W> {
    handle: HandleId,
    payload: W,
}

/// What became of a send that had to wait.
pub(super) type Sent<T> = Result<(), SendError<T>>;

/// What became of a receive that had to wait.
pub(super) type Received<T> = Result<Item<T>, RecvError>;

/// The values, and those who wait on both sides.
#[derive(Debug)]
pub(super) struct Core<T, W> {
    /// How many values are buffered before senders wait; `None` for no limit.
    capacity: Option<usize>,
    buffer: VecDeque<Item<T>>,
    /// The most that was ever buffered.
    peak: usize,
    senders: WaitList<WaitingSender<T, W>, Sent<T>>,
    receivers: WaitList<WaitingReceiver<W>, Received<T>>,
    open_senders: usize,
    open_receivers: usize,
    /// Number of the next item.
    items: u64,
    /// Id of the next handle.
    handles: HandleId,
}

impl<T, W> Core<T, W> {
    /// A channel without handles.
    pub(super) const fn new(capacity: Option<usize>) -> Self {
        Core {
            capacity,
            buffer: VecDeque::new(),
            peak: 0,
            senders: WaitList::new(),
            receivers: WaitList::new(),
            open_senders: 0,
            open_receivers: 0,
            items: 0,
            handles: 0,
        }
    }

    /// One more handle to send with.
    pub(super) fn open_sender(&mut self) -> HandleId {
        self.open_senders += 1;
        self.next_handle()
    }

    /// One more handle to receive with.
    pub(super) fn open_receiver(&mut self) -> HandleId {
        self.open_receivers += 1;
        self.next_handle()
    }

    /// The id of a handle that is not open.
    pub(super) fn next_handle(&mut self) -> HandleId {
        self.handles += 1;
        self.handles
    }

    /// Sends if that is possible at once; whom to wake.
    pub(super) fn try_send(&mut self, value: T) -> Result<Option<W>, TrySendError<T>> {
        if self.open_receivers == 0 {
            return Err(TrySendError::Broken(value));
        }
        if self.receivers.waiting() > 0 {
            let item = self.number(value);
            return Ok(self.deliver(item));
        }
        if !self.has_room() {
            return Err(TrySendError::WouldBlock(value));
        }
        self.store(value);
        Ok(None)
    }

    /// Waits at the end of the senders' queue, after [`try_send`](Self::try_send) said that it would block.
    pub(super) fn push_sender(&mut self, handle: HandleId, value: T, payload: W) -> WaiterKey {
        self.senders.push(WaitingSender {
            handle,
            value,
            payload,
        })
    }

    /// The payload of a sender that waits; `None` once it is decided.
    pub(super) fn sender_payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        Some(&mut self.senders.payload_mut(key)?.payload)
    }

    /// What became of a sender that is decided.
    pub(super) fn claim_sent(&mut self, key: WaiterKey) -> Sent<T> {
        match self.senders.remove(key) {
            Removed::Granted(sent) => sent,
            Removed::Waiting(_) => unreachable!("only who is decided may claim"),
        }
    }

    /// A sender leaves. If it still waited, its value was not sent. Nobody is better off for it: there is no more room
    /// than before. What comes back is to be dropped.
    pub(super) fn give_up_sender(
        &mut self,
        key: WaiterKey,
    ) -> Removed<WaitingSender<T, W>, Sent<T>> {
        self.senders.remove(key)
    }

    /// Receives if that is possible at once; the value, and whom to wake.
    pub(super) fn try_recv(&mut self) -> Result<(T, Option<W>), TryRecvError> {
        if let Some(item) = self.buffer.pop_front() {
            return Ok((item.value, self.refill()));
        }
        if let Some((value, payload)) = self.take_first() {
            return Ok((value, Some(payload)));
        }
        Err(if self.open_senders == 0 {
            TryRecvError::EndOfChannel
        } else {
            TryRecvError::WouldBlock
        })
    }

    /// Waits at the end of the receivers' queue, after [`try_recv`](Self::try_recv) said that it would block.
    pub(super) fn push_receiver(&mut self, handle: HandleId, payload: W) -> WaiterKey {
        self.receivers.push(WaitingReceiver { handle, payload })
    }

    /// The payload of a receiver that waits; `None` once it is decided.
    pub(super) fn receiver_payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        Some(&mut self.receivers.payload_mut(key)?.payload)
    }

    /// A receiver leaves the queue with what it got, if that was decided.
    pub(super) fn leave(&mut self, key: WaiterKey) -> Removed<WaitingReceiver<W>, Received<T>> {
        self.receivers.remove(key)
    }

    /// A receiver leaves and wants nothing. A value that was its own already goes to the next receiver, or back to
    /// where it was; if no receiver is open, it comes back to be dropped.
    pub(super) fn give_up_receiver(&mut self, key: WaiterKey) -> (Deferred<W>, Option<T>) {
        match self.receivers.remove(key) {
            Removed::Waiting(receiving) => (Deferred::Drop(receiving.payload), None),
            Removed::Granted(Err(_told)) => (Deferred::Nothing, None),
            Removed::Granted(Ok(item)) => self.put_back(item),
        }
    }

    /// Closes an open handle. Those who wait on it are told so, if `blocked` says that there may be any; if it was the
    /// last sender, all who wait to receive have reached the end. Whom to wake.
    pub(super) fn close_sender(&mut self, handle: HandleId, blocked: bool) -> Vec<W> {
        let mut woken = Vec::new();
        if blocked {
            let tell = |sending: WaitingSender<T, W>| {
                let closed = Err(SendError::Closed(sending.value));
                (closed, sending.payload)
            };
            woken = self.senders.grant_where(|who| who.handle == handle, tell);
        }
        self.open_senders -= 1;
        if self.open_senders == 0 {
            let end = |receiving: WaitingReceiver<W>| {
                let end = Err(RecvError::EndOfChannel);
                (end, receiving.payload)
            };
            woken.extend(self.receivers.grant_where(|_| true, end));
        }
        woken
    }

    /// Closes an open handle. Those who wait on it are told so, if `blocked` says that there may be any; if it was the
    /// last receiver, all who wait to send have nobody left, and the buffer comes back to be dropped. Whom to wake.
    pub(super) fn close_receiver(
        &mut self,
        handle: HandleId,
        blocked: bool,
    ) -> (Vec<W>, VecDeque<Item<T>>) {
        let mut woken = Vec::new();
        if blocked {
            let tell = |receiving: WaitingReceiver<W>| (Err(RecvError::Closed), receiving.payload);
            woken = self.receivers.grant_where(|who| who.handle == handle, tell);
        }
        self.open_receivers -= 1;
        if self.open_receivers > 0 {
            return (woken, VecDeque::new());
        }
        let tell = |sending: WaitingSender<T, W>| {
            let broken = Err(SendError::Broken(sending.value));
            (broken, sending.payload)
        };
        woken.extend(self.senders.grant_where(|_| true, tell));
        (woken, mem::take(&mut self.buffer))
    }

    /// How it is used.
    pub(super) fn statistics(&self) -> ChannelStatistics {
        ChannelStatistics {
            buffered: self.buffer.len(),
            capacity: self.capacity,
            peak_buffered: self.peak,
            open_senders: self.open_senders,
            open_receivers: self.open_receivers,
            waiting_senders: self.senders.waiting(),
            waiting_receivers: self.receivers.waiting(),
        }
    }

    fn has_room(&self) -> bool {
        self.capacity
            .is_none_or(|capacity| self.buffer.len() < capacity)
    }

    /// A value enters the channel.
    fn number(&mut self, value: T) -> Item<T> {
        let number = self.items;
        self.items += 1;
        Item { number, value }
    }

    /// A value enters the buffer at its end.
    fn store(&mut self, value: T) {
        let item = self.number(value);
        self.buffer.push_back(item);
        self.peak = self.peak.max(self.buffer.len());
    }

    /// Gives an item to the longest waiting receiver, of whom there is one, and who is to be woken.
    fn deliver(&mut self, item: Item<T>) -> Option<W> {
        self.receivers
            .grant_first_with(|receiving| (Ok(item), receiving.payload))
    }

    /// The value of the longest waiting sender, which counts as sent now; and whom to wake.
    fn take_first(&mut self) -> Option<(T, W)> {
        self.senders
            .grant_first_with(|sending| (Ok(()), (sending.value, sending.payload)))
    }

    /// After an item has left the buffer: moves the value of the longest waiting sender in, if there is room. One is
    /// enough, as there was no room before.
    fn refill(&mut self) -> Option<W> {
        if !self.has_room() {
            return None;
        }
        let (value, payload) = self.take_first()?;
        self.store(value);
        Some(payload)
    }

    /// An item that was delivered and not seen.
    fn put_back(&mut self, item: Item<T>) -> (Deferred<W>, Option<T>) {
        if self.open_receivers == 0 {
            return (Deferred::Nothing, Some(item.value));
        }
        if self.receivers.waiting() > 0 {
            return (Deferred::wake(self.deliver(item)), None);
        }
        let place = self
            .buffer
            .partition_point(|other| other.number < item.number);
        self.buffer.insert(place, item);
        self.peak = self.peak.max(self.buffer.len());
        (Deferred::Nothing, None)
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
