//! The root task of a run.

use std::any::type_name;
use std::sync::Arc;

use super::child_ref::{Root, TaskRef};
use super::current::in_task;
use super::ids::TaskId;
use super::info::TaskInfo;
use super::name::default_name;
use super::registry;

/// The root task of a run, which owns this.
pub(crate) struct RootTask(TaskRef);

impl RootTask {
    /// Makes the root task for a future of type `F`.
    pub(crate) fn new<F>() -> Self {
        let root = Arc::new(Root {
            id: TaskId::next(),
            name: default_name(type_name::<F>()),
        });
        registry::add_root(root.clone());
        RootTask(TaskRef::Root(root))
    }

    pub(crate) fn info(&self) -> TaskInfo {
        TaskInfo::new(self.0.clone())
    }

    /// Polls the root task's future, or does something else as that task.
    pub(crate) fn with_current<T>(&self, act: impl FnOnce() -> T) -> T {
        in_task(&self.0, act)
    }
}

impl Drop for RootTask {
    fn drop(&mut self) {
        registry::remove_root(self.0.id());
    }
}
