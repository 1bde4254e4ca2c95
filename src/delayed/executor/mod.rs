//! The place where the calls of a block are executed.
//!
//! | files | job |
//! |---|---|
//! | `interface` | the trait of executors |
//! | `call` | a call without its types, and one attempt to run it |
//! | `local` | the workers of this process |
//! | `in_worker` | what a worker does with an allocation |
//!
//! All decisions about a job are made before this: when it starts, which resources it gets, how
//! often it runs, and what is learned and shown of it. An [`Executor`] says what there is to
//! distribute, and runs one attempt of a call on the allocation that the attempt was granted. It
//! gets the call as the offset of its code and a way to encode its argument, and returns the
//! encoding of the result and of what the attempt has cost. So the attempt can be made wherever
//! this program's image runs.

mod call;
mod in_worker;
mod interface;
mod local;

pub use in_worker::allocation;

pub(in crate::delayed) use call::{Attempt, Call, Called};
pub(in crate::delayed) use interface::Executor;
pub(in crate::delayed) use local::Local;
#[cfg(all(test, not(loom)))]
pub(in crate::delayed) use {in_worker::Surroundings, interface::Executing};
