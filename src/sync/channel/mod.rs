//! `channel`: passes values from senders to receivers, first come, first served on both sides.

mod core;
mod error;
mod handle;
mod open;
mod receiver;
mod sender;
mod statistics;

#[cfg(test)]
mod tests;

pub use error::{RecvError, SendError, TryRecvError, TrySendError};
pub use open::{channel, unbounded};
pub use receiver::{Receiver, Recv};
pub use sender::{Send, Sender};
pub use statistics::ChannelStatistics;
