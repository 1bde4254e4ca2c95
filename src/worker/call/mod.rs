//! `run_sync`: a function call that happens in another process.

pub(in crate::worker) mod attempt;
mod cancel_policy;
mod encode_argument;
mod flatten;
mod future;
mod hand_over;
mod limiter;
mod map;
mod prestart;
pub(in crate::worker) mod reply;
mod request;
mod run_sync;
mod time_limit;
mod untyped;

pub(crate) use encode_argument::EncodeArgument;
pub use flatten::FlatRunSync;
pub(crate) use future::Answer;
pub use future::RunSyncFuture;
pub use limiter::current_default_worker_limiter;
pub use map::{
    MapItems, MapIterator, MapOrder, MapOrdered, MapResults, MapSource, MapStream, MapSync,
    MapUnordered, map_sync,
};
pub(crate) use run_sync::waits_of;
pub use run_sync::{RunSync, run_sync};
pub(crate) use untyped::UntypedCall;
