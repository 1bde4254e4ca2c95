//! What travels between a parent and one of its workers.
//!
//! From the bottom up: [`frame`] cuts the byte stream into messages and is pure; [`receive`] feeds it from a socket;
//! [`codec`] is the one place that knows how values become bytes, and `watch` sees to it that none of a value's fields
//! is missing; [`message`] says what the messages of the two sides mean. [`mailbox`] is another way for small frames,
//! where both sides are awake, and [`patience`] how long they stay so.
//!
//! Large values have a [`body`] beside their frame, which is written to a `store`: a file of its own, or an arena of the
//! [`pool`]. Shared memory within a value is its [`enclosure`], or, where it is the sender's alone, a [`region`] of the body.
//!
//! The conversation is strict. The parent sends a *prelude* (with the real standard output beside it, if need be) and a
//! *set-up*; the worker answers *hello*, and *ready* once its init closures have run. Then each *job* is answered by one
//! of five outcomes. Instead of an answer, or unasked between two jobs, the worker may say *bye*: it has closed its
//! receiving end before saying so, hence a job that the parent has not had an answer to was not and will not be run.
//!
//! A worker that a fork server forks has its set-up from there, and is found in a table that the server shares with the
//! parent ([`births`]). It says neither hello nor, where it has no init closures, ready: its first word is its first
//! job's outcome.

pub(crate) mod backoff;
pub(crate) mod codec;
pub(crate) mod endpoint;
pub(crate) mod frame;
pub(crate) mod job;
pub(crate) mod mailbox;
pub(crate) mod message;
pub(crate) mod out_message;
pub(crate) mod payload;
pub(crate) mod pid_table;
pub(crate) mod receive;
mod strict_serializer;
pub(crate) mod tuning;
