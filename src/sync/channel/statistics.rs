//! How a channel is used.

/// How a channel was used at one moment; from
/// [`Sender::statistics`](crate::sync::Sender::statistics) and
/// [`Receiver::statistics`](crate::sync::Receiver::statistics).
///
/// ```
/// let (sender, receiver) = seedbed::sync::channel(2);
/// sender.try_send("a value").unwrap();
/// let statistics = receiver.statistics();
/// assert_eq!((statistics.buffered, statistics.capacity), (1, Some(2)));
/// assert_eq!((statistics.open_senders, statistics.open_receivers), (1, 1));
/// assert_eq!((statistics.waiting_senders, statistics.waiting_receivers), (0, 0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStatistics {
    /// Number of values in the buffer. More than the capacity for a while, after receivers were
    /// dropped with values that they had not seen.
    pub buffered: usize,
    /// Number of values that are buffered before senders wait; `None` if they never do.
    pub capacity: Option<usize>,
    /// The largest number of values that was ever in the buffer.
    pub peak_buffered: usize,
    /// Number of [`Sender`](crate::sync::Sender)s that are not closed.
    pub open_senders: usize,
    /// Number of [`Receiver`](crate::sync::Receiver)s that are not closed.
    pub open_receivers: usize,
    /// Number of [`Send`](crate::sync::Send) futures in the queue, of all senders.
    pub waiting_senders: usize,
    /// Number of [`Recv`](crate::sync::Recv) futures and of streams in the queue, of all receivers.
    pub waiting_receivers: usize,
}
