//! Opens channels.

use std::io;

use super::receiver::Receiver;
use super::sender::Sender;
use crate::sys::role::refuse_unless_hooked;
use crate::transport::ring;
use crate::worker::data::Argument;

/// Opens a channel into or out of a job, or between two jobs.
///
/// Both sides are values that serde encodes: put one into the argument of a job, and use it there.
/// A side that was sent works only where it has arrived. Both sides may go to two workers, which
/// then talk to each other without this process. A result may contain a side, and so may a message
/// of another channel. Items and results of a [`map_sync`](crate::map_sync) may, too; such an item
/// is not [retried](crate::worker::MapSync::retry).
///
/// A job that blocks uses [`send_blocking`](Sender::send_blocking),
/// [`recv_blocking`](Receiver::recv_blocking), or iterates over the receiver. A task uses
/// [`send`](Sender::send) and [`recv`](Receiver::recv), or the receiver as a `Stream`.
///
/// ```
/// use seedbed::worker::{Receiver, Sender, channel};
/// use seedbed::{open_nursery, run_sync};
///
/// fn square((numbers, squares): (Receiver<u64>, Sender<u64>)) {
///     let mut squares = squares;
///     for number in numbers {
///         let number = number.expect("the parent sends whole numbers");
///         squares.send_blocking(number * number).expect("the parent receives");
///     }
/// }
///
/// #[seedbed::main]
/// async fn main() -> std::io::Result<()> {
///     let (mut numbers, job_numbers) = channel(16)?;
///     let (job_squares, mut squares) = channel(16)?;
///     open_nursery(async |n| {
///         let job = n.spawn(run_sync(square, (job_numbers, job_squares)));
///         for number in [3, 4] {
///             numbers.send(number).await.unwrap();
///         }
///         assert_eq!(squares.recv().await.unwrap(), 9);
///         drop(numbers); // the job's loop ends
///         assert_eq!(squares.recv().await.unwrap(), 16);
///         assert!(squares.recv().await.unwrap_err().is_end());
///         job.await.unwrap();
///     })
///     .await;
///     Ok(())
/// }
/// ```
///
/// # Capacity
///
/// A sender waits while `capacity` messages are on their way, so a fast sender does not run ahead
/// of a slow receiver. It also waits while 256 KiB of messages are, however many they are. A
/// message whose encoding is longer than 128 KiB has memory of its own, as a large argument of a
/// job; of messages with such memory, [shared memory](crate::worker::SharedBytes) or sides of
/// channels, at most 4 are on their way.
///
/// # What a message costs
///
/// Messages go through memory that both processes have mapped. While both sides are awake, a small
/// one takes well below a microsecond. A side that has nothing to do spins for some microseconds
/// and then sleeps; waking it takes as long as waking a worker does.
///
/// A channel has 256 KiB of memory and three descriptors.
///
/// # Closing, and processes that end
///
/// Dropping the sender ends the channel: the receiver gets what was sent, and then
/// [`EndOfChannel`]. Dropping the receiver discards what it has not received, and sending returns
/// [`Closed`].
///
/// If the process of the sender is killed, the receiver gets all messages whose `send` had
/// returned, and perhaps the one that was being sent, and then [`PeerGone`]: never a part of a
/// message. The call of the killed job returns its own error first, because this process holds what
/// it has sent to a job until the job has ended.
///
/// A side that is lost on its way, for example because a call is cancelled before a worker has its
/// argument, is reported to the other side as `PeerGone`, too.
///
/// # Errors
///
/// The error of the kernel, if there is no memory or no descriptor left.
///
/// # Panics
///
/// If `capacity` is 0.
///
/// [`EndOfChannel`]: crate::worker::RecvErrorKind::EndOfChannel
/// [`PeerGone`]: crate::worker::RecvErrorKind::PeerGone
/// [`Closed`]: crate::worker::SendErrorKind::Closed
#[doc(alias = "ipc")]
#[doc(alias = "pipe")]
#[doc(alias = "queue")]
#[track_caller]
pub fn channel<T: Argument>(capacity: usize) -> io::Result<(Sender<T>, Receiver<T>)> {
    assert!(
        capacity > 0,
        "a channel between processes needs a capacity of at least 1"
    );
    refuse_unless_hooked("seedbed::worker::channel");
    let (sender, receiver) = ring::pair(capacity)?;
    Ok((Sender::new(sender), Receiver::new(receiver)))
}
