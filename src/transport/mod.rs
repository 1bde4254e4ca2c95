//! The transport: how a parent and a worker exchange messages.
//!
//! * [`frame`] cuts the byte stream of the socket into frames, [`receive`] reads them, and
//!   [`mailbox`] carries small frames through shared memory. [`endpoint`] is one end of a
//!   connection, for both sides; [`backoff`] decides when an end spins.
//! * [`codec`] encodes values, through `strict`, which refuses what would arrive as another value.
//!   [`described`] is the wrapper for types that need a format which describes itself. Large values
//!   and shared memory are in [`payload`]. An [`out_message`] is a frame with its attachments.
//! * A [`ring`] carries the messages of a channel through shared memory.
//! * A [`relay`] carries frames to a worker that a launcher has started elsewhere.
//! * [`traced`] is what a worker tells of the `tracing` events of its jobs.
//! * [`message`] and [`job`] define the contents, and [`pid_table`] is where a parent finds forked
//!   workers.
//!
//! # The protocol
//!
//! The parent sends a *prelude*, with the real standard output attached if necessary, and a
//! *set-up*. The worker answers *hello*, and *ready* once its init closures have run. Then it
//! answers each *job* with one of five outcomes, and may send *traced* events before that. Instead
//! of an answer, or between two jobs, the worker may send *bye*. It has closed its receiving end
//! before, so a job without an answer has not run and will not.
//!
//! A worker that a fork server forks inherits the set-up. It sends no hello, and *ready* only if it
//! has init closures: its first frame is usually the outcome of its first job.

pub(crate) mod backoff;
pub(crate) mod codec;
pub(crate) mod codec_error;
pub(crate) mod described;
pub(crate) mod endpoint;
pub(crate) mod frame;
pub(crate) mod job;
pub(crate) mod mailbox;
pub(crate) mod map;
pub(crate) mod message;
pub(crate) mod out_message;
pub(crate) mod payload;
pub(crate) mod pid_table;
pub(crate) mod receive;
pub(crate) mod relay;
pub(crate) mod ring;
mod strict;
pub(crate) mod traced;
pub(crate) mod tuning;
