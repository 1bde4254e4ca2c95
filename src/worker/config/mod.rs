//! The configuration of a worker context.

mod closures;
mod environment;
mod launched;
mod launcher;
mod limits;
mod surroundings;
mod timeouts;
mod worker_config;
mod worker_type;

pub(in crate::worker) use environment::Environment;
pub use launcher::Launcher;
pub use worker_config::WorkerConfig;
pub use worker_type::WorkerType;
