//! Large payloads: values that travel as memory next to their frame instead of in it.

#[cfg(all(test, not(loom)))]
pub(crate) mod arena_model;
pub(crate) mod attachments;
pub(crate) mod body;
pub(crate) mod inline;
pub(crate) mod pool;
pub(crate) mod shared;
pub(crate) mod store;
