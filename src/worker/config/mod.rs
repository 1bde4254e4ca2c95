//! The configuration of a worker context.

mod closures;
mod environment;
mod limits;
mod surroundings;
mod worker_config;

pub(in crate::worker) use environment::Environment;
pub use worker_config::{WorkerConfig, WorkerType};
