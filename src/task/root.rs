//! The root task of a run.

use std::any::type_name;
use std::sync::Arc;
use std::task::Poll;

use super::child_ref::{Root, TaskRef};
use super::current::in_task;
use super::ids::TaskId;
use super::info::TaskInfo;
use super::name::default_name;
use super::registry;
use crate::wait::WaitCell;

/// The root task of a run, which owns this.
pub(crate) struct RootTask {
    task: TaskRef,
    wait: Arc<WaitCell>,
}

impl RootTask {
    /// Makes the root task for a future of type `F`.
    pub(crate) fn new<F>() -> Self {
        let root = Arc::new(Root {
            id: TaskId::next(),
            name: default_name(type_name::<F>()),
        });
        let wait = Arc::new(WaitCell::new());
        registry::add_root(root.clone(), wait.clone());
        RootTask {
            task: TaskRef::Root(root),
            wait,
        }
    }

    pub(crate) fn info(&self) -> TaskInfo {
        TaskInfo::new(self.task.clone())
    }

    /// Runs a poll of the root task's future, and keeps what that waits for.
    pub(crate) fn noting_wait<T>(&self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        self.wait.during(poll)
    }

    /// Polls the root task's future, or does something else as that task.
    pub(crate) fn with_current<T>(&self, act: impl FnOnce() -> T) -> T {
        in_task(&self.task, act)
    }
}

impl Drop for RootTask {
    fn drop(&mut self) {
        registry::remove_root(self.task.id());
    }
}
