//! Channels into and out of jobs: typed messages over a ring in shared memory.
//!
//! The ring ([`crate::transport::ring`]) carries bytes and descriptors. Here, values are encoded
//! and decoded as arguments and results of jobs are, and a task waits through the reactor.

mod error;
mod open;
mod reactor;
mod receiver;
mod sender;

pub use error::{RecvError, RecvErrorKind, SendError, SendErrorKind};
pub use open::channel;
pub use receiver::{Receiver, ReceiverIter};
pub use sender::Sender;
