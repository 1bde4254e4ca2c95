//! Worker contexts: configuration, idle workers, draining ones, shutdown, statistics.

pub(crate) mod arenas;
pub(crate) mod context;
pub(crate) mod current;
pub(crate) mod draining;
pub(crate) mod idle;
pub(crate) mod shutdown;
pub(crate) mod statistics;
