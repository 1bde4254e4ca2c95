//! Decides which receiver gets which value, and which futures wait.
//!
//! The core is pure: a waiter carries a payload `W` that is stored and returned, and values are
//! moved but never inspected or dropped here. The driver puts a `Core` behind a mutex, and wakes
//! and drops the returned payloads and values after unlocking.
//!
//! Decision: values are handed over directly, as in Trio. A send gives the value to the longest
//! waiting receiver in the same step. A receive that makes room moves the value of the longest
//! waiting sender into the buffer. So no other task can take a value or a buffer slot that is
//! assigned already.
//!
//! A receiver may be dropped with a value that it has not seen. Then the value goes back to *its
//! old position*: every value gets a number when it enters the channel, and the buffer is sorted by
//! it. (Putting it at the front would reverse the order when several receivers are dropped
//! together.) So the buffer can hold more than the capacity for a while.
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

/// The number of a handle, unique among the senders and receivers of a channel.
pub(super) type HandleId = u64;

/// A value in the channel.
#[derive(Debug)]
pub(super) struct Item<T> {
    /// The number of its arrival: the order of the channel.
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

/// The result of a send that had to wait.
pub(super) type Sent<T> = Result<(), SendError<T>>;

/// The result of a receive that had to wait.
pub(super) type Received<T> = Result<Item<T>, RecvError>;

/// The values and the waiters of both sides.
#[derive(Debug)]
pub(super) struct Core<T, W> {
    /// The number of values that are buffered before senders wait; `None` for no limit.
    capacity: Option<usize>,
    buffer: VecDeque<Item<T>>,
    /// The largest number of values that was ever in the buffer.
    peak: usize,
    senders: WaitList<WaitingSender<T, W>, Sent<T>>,
    receivers: WaitList<WaitingReceiver<W>, Received<T>>,
    open_senders: usize,
    open_receivers: usize,
    /// The number of the next item.
    items: u64,
    /// The id of the latest handle.
    handles: HandleId,
}

impl<T, W> Core<T, W> {
    /// Creates a channel without handles.
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

    /// Opens a sender.
    pub(super) fn open_sender(&mut self) -> HandleId {
        self.open_senders += 1;
        self.next_handle()
    }

    /// Opens a receiver.
    pub(super) fn open_receiver(&mut self) -> HandleId {
        self.open_receivers += 1;
        self.next_handle()
    }

    /// Returns an unused id, also for a handle that is closed from the start.
    pub(super) fn next_handle(&mut self) -> HandleId {
        self.handles += 1;
        self.handles
    }

    /// Sends if that is possible without waiting; returns the receiver to wake.
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

    /// Adds a sender at the end of its queue, after [`try_send`](Self::try_send) has returned
    /// `WouldBlock`.
    pub(super) fn push_sender(&mut self, handle: HandleId, value: T, payload: W) -> WaiterKey {
        self.senders.push(WaitingSender {
            handle,
            value,
            payload,
        })
    }

    /// Returns the payload of a waiting sender; `None` once its result is known.
    pub(super) fn sender_payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        Some(&mut self.senders.payload_mut(key)?.payload)
    }

    /// Removes a sender whose result is known, and returns the result.
    pub(super) fn claim_sent(&mut self, key: WaiterKey) -> Sent<T> {
        match self.senders.remove(key) {
            Removed::Granted(sent) => sent,
            Removed::Waiting(_) => unreachable!("only a sender with a result may claim it"),
        }
    }

    /// Removes a sender. If it still waited, its value was not sent. This makes no room, so it
    /// wakes no waiter. The caller drops the result after unlocking.
    pub(super) fn give_up_sender(
        &mut self,
        key: WaiterKey,
    ) -> Removed<WaitingSender<T, W>, Sent<T>> {
        self.senders.remove(key)
    }

    /// Receives if that is possible without waiting; returns the value and the sender to wake.
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

    /// Adds a receiver at the end of its queue, after [`try_recv`](Self::try_recv) has returned
    /// `WouldBlock`.
    pub(super) fn push_receiver(&mut self, handle: HandleId, payload: W) -> WaiterKey {
        self.receivers.push(WaitingReceiver { handle, payload })
    }

    /// Returns the payload of a waiting receiver; `None` once its result is known.
    pub(super) fn receiver_payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        Some(&mut self.receivers.payload_mut(key)?.payload)
    }

    /// Removes a receiver, with its result if that is known.
    pub(super) fn leave(&mut self, key: WaiterKey) -> Removed<WaitingReceiver<W>, Received<T>> {
        self.receivers.remove(key)
    }

    /// Removes a receiver without its result. A value that was assigned to it goes to the next
    /// receiver, or back to its old position. If no receiver is open, the value is returned, to be
    /// dropped.
    pub(super) fn give_up_receiver(&mut self, key: WaiterKey) -> (Deferred<W>, Option<T>) {
        match self.receivers.remove(key) {
            Removed::Waiting(receiving) => (Deferred::Drop(receiving.payload), None),
            Removed::Granted(Err(_closed_or_end)) => (Deferred::Nothing, None),
            Removed::Granted(Ok(item)) => self.put_back(item),
        }
    }

    /// Closes an open sender and returns the waiters to wake. If `blocked`, the sends that wait on
    /// this handle get an error. If it was the last sender, all waiting receivers have reached the
    /// end.
    pub(super) fn close_sender(&mut self, handle: HandleId, blocked: bool) -> Vec<W> {
        let mut woken = Vec::new();
        if blocked {
            let notify = |sending: WaitingSender<T, W>| {
                let closed = Err(SendError::Closed(sending.value));
                (closed, sending.payload)
            };
            woken = self
                .senders
                .grant_where(|waiter| waiter.handle == handle, notify);
        }
        self.open_senders -= 1;
        if self.open_senders == 0 {
            let notify_end = |receiving: WaitingReceiver<W>| {
                let end = Err(RecvError::EndOfChannel);
                (end, receiving.payload)
            };
            woken.extend(self.receivers.grant_where(|_| true, notify_end));
        }
        woken
    }

    /// Closes an open receiver and returns the waiters to wake. If `blocked`, the receives that
    /// wait on this handle get an error. If it was the last receiver, all waiting senders get an
    /// error, and the buffer is returned, to be dropped.
    pub(super) fn close_receiver(
        &mut self,
        handle: HandleId,
        blocked: bool,
    ) -> (Vec<W>, VecDeque<Item<T>>) {
        let mut woken = Vec::new();
        if blocked {
            let notify =
                |receiving: WaitingReceiver<W>| (Err(RecvError::Closed), receiving.payload);
            woken = self
                .receivers
                .grant_where(|waiter| waiter.handle == handle, notify);
        }
        self.open_receivers -= 1;
        if self.open_receivers > 0 {
            return (woken, VecDeque::new());
        }
        let notify = |sending: WaitingSender<T, W>| {
            let broken = Err(SendError::Broken(sending.value));
            (broken, sending.payload)
        };
        woken.extend(self.senders.grant_where(|_| true, notify));
        (woken, mem::take(&mut self.buffer))
    }

    /// Returns how the channel is used.
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

    /// Numbers a value that enters the channel.
    fn number(&mut self, value: T) -> Item<T> {
        let number = self.items;
        self.items += 1;
        Item { number, value }
    }

    /// Adds a value at the end of the buffer.
    fn store(&mut self, value: T) {
        let item = self.number(value);
        self.buffer.push_back(item);
        self.peak = self.peak.max(self.buffer.len());
    }

    /// Gives an item to the longest waiting receiver and returns that one, to be woken. There must
    /// be one.
    fn deliver(&mut self, item: Item<T>) -> Option<W> {
        self.receivers
            .grant_first_with(|receiving| (Ok(item), receiving.payload))
    }

    /// Takes the value of the longest waiting sender, which is sent by that; returns both.
    fn take_first(&mut self) -> Option<(T, W)> {
        self.senders
            .grant_first_with(|sending| (Ok(()), (sending.value, sending.payload)))
    }

    /// After an item has left the buffer: moves the value of the longest waiting sender in, if
    /// there is room. One value is enough, because there was no room before.
    fn refill(&mut self) -> Option<W> {
        if !self.has_room() {
            return None;
        }
        let (value, payload) = self.take_first()?;
        self.store(value);
        Some(payload)
    }

    /// Takes back an item that was assigned to a receiver but not seen.
    fn put_back(&mut self, item: Item<T>) -> (Deferred<W>, Option<T>) {
        if self.open_receivers == 0 {
            return (Deferred::Nothing, Some(item.value));
        }
        if self.receivers.waiting() > 0 {
            return (Deferred::wake(self.deliver(item)), None);
        }
        let position = self
            .buffer
            .partition_point(|other| other.number < item.number);
        self.buffer.insert(position, item);
        self.peak = self.peak.max(self.buffer.len());
        (Deferred::Nothing, None)
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
