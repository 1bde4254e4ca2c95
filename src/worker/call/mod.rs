//! `run_sync`: a function call that happens in another process.

pub(in crate::worker) mod attempt;
mod cancel_policy;
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
mod value;

pub use flatten::FlatRunSync;
pub use future::RunSyncFuture;
pub use limiter::current_default_worker_limiter;
pub use map::{
    MapItems, MapIterator, MapOrder, MapOrdered, MapResults, MapSource, MapStream, MapSync,
    MapUnordered, map_sync,
};
pub use run_sync::{RunSync, run_sync};
pub use value::{Argument, JobResult, OwnedData};
