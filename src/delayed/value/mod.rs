//! Delayed values, without jobs: nodes, operations, and their evaluation.
//!
//! | files | job |
//! |---|---|
//! | `node`, `operation`, `promise` | a node as such; one that is computed; one whose result comes from elsewhere |
//! | `watcher`, `evaluation` | waiting for nodes; the walk through a graph |
//! | `awaiter` | the job that awaits a value |
//! | `sources` | the jobs that a value comes from, for traces |
//! | `discard` | drops chains without recursion |
//! | `dot` | the graph as text |
//! | `handle`, `awaiting` | `Delayed`; its futures |
//! | `work`, `combine`, `each`, `operators` | the operations: their shapes, methods and operators |

pub(in crate::delayed) mod awaiter;
mod awaiting;
mod combine;
mod discard;
mod dot;
mod each;
mod evaluation;
mod handle;
mod node;
mod operation;
mod operators;
pub(in crate::delayed) mod promise;
pub(in crate::delayed) mod sources;
pub(in crate::delayed) mod watcher;
mod work;

#[cfg(test)]
mod tests;

pub use awaiting::{DelayedFuture, Shared};
pub use each::{Each, each};
pub use handle::{Delayed, delayed_val};
