//! The workers of a context: idle, draining, shut down, and counted.

pub(in crate::worker) mod arenas;
pub(in crate::worker) mod call_guard;
pub(crate) mod context;
pub(crate) mod context_set;
pub(crate) mod current;
pub(in crate::worker) mod draining;
pub(in crate::worker) mod idle;
pub(in crate::worker) mod shutdown;
pub(in crate::worker) mod start_guard;
pub(crate) mod statistics;
pub(in crate::worker) mod worker_pool;
