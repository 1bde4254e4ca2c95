//! Nurseries: blocks that own the tasks that are spawned in them.
//!
//! The children are polled inside the block's own future, so they may borrow what outlives the
//! block, and dropping the block drops them. They interleave on one thread. A child on an
//! executor's threads is, in the block, a child that waits for it (`remote`).
//!
//! | files | job |
//! |---|---|
//! | `ids`, `name` | numbers and default names of tasks |
//! | `ready`, `children` | the lock-free stack of ready children; the lock that each poll of a block holds |
//! | `child_ref`, `waker`, `child`, `raw_task` | a child's allocation: one for header, future and result |
//! | `polling`, `driver`, `block` | one poll of a block: what it polls, drops and returns |
//! | `outcome`, `raw_handle`, `nursery`, `fallible`, `spawner`, `child_handle`, `start` | the handles |
//! | `current`, `root`, `registry`, `info`, `tree` | which task runs where, for debugging |
//! | `observe` | the hooks that the module `instrument` sets |

mod block;
mod child;
mod child_handle;
mod child_ref;
mod children;
mod current;
mod driver;
mod error;
mod fallible;
mod ids;
mod info;
#[cfg(all(test, loom))]
mod loom_tests;
mod lost;
mod name;
mod nursery;
pub(crate) mod observe;
mod on_executor;
mod open;
mod outcome;
mod polling;
mod raw_handle;
mod raw_task;
mod ready;
mod registry;
mod remote;
mod root;
pub(crate) mod shuffle;
mod spawner;
mod start;
mod tree;
mod tuning;
mod waker;

pub use block::Block;
pub use child_handle::Task;
pub use error::NurseryClosedError;
pub use fallible::TrySpawned;
pub use ids::TaskId;
pub use info::{NurseryInfo, TaskInfo, current_root_task, current_task};
pub use nursery::{LocalNursery, Nursery};
pub use on_executor::{ChildExecutor, OnExecutor, on_executor};
pub use open::{open_local_nursery, open_nursery, try_open_local_nursery, try_open_nursery};
pub use remote::RemoteChild;
pub use spawner::Spawner;
pub use start::{StartError, Started};
pub use tree::{TaskTree, task_tree, task_trees};

pub(crate) use current::in_no_task;
pub(crate) use ids::RunId;
pub(crate) use root::RootTask;
