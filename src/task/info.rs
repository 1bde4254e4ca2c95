//! Information about tasks and nurseries: numbers, names, parents, children.
//!
//! A task's name and its nursery's opener never change. So a [`TaskInfo`] copies nothing: it is a
//! counted reference to the task, and keeps the task's memory alive, but not its future.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::child_ref::{ChildRef, NurseryState, TaskRef};
use super::current;
use super::ids::TaskId;
use super::registry;
use crate::wait::Wait;

/// Identifies a task: its number, its name and its parent.
///
/// A task is a child of a nursery, or the future that [`run`](crate::run()) was given. A nursery's
/// body is part of the task that opened the nursery.
///
/// A `TaskInfo` may be kept after the task has ended. It keeps a small piece of memory, and nothing
/// that the task owned.
///
/// ```
/// use seedbed::nursery::current_task;
/// use seedbed::{open_nursery, run};
///
/// run(async {
///     let root = current_task().unwrap();
///     open_nursery(|n| async move {
///         let task = n.named("worker 1").spawn(async { current_task().unwrap() });
///         assert_eq!(task.info().name(), "worker 1");
///         assert_eq!(task.info().parent(), Some(root));
///         let info = task.info();
///         assert_eq!(task.await, info);
///     })
///     .await;
/// });
/// ```
#[derive(Clone)]
pub struct TaskInfo {
    task: TaskRef,
}

impl TaskInfo {
    pub(super) fn new(task: TaskRef) -> Self {
        TaskInfo { task }
    }

    pub(super) fn of(child: &ChildRef) -> Self {
        TaskInfo::new(TaskRef::Child(child.clone()))
    }

    /// Returns what the task waits for, as far as that is known.
    pub(super) fn wait(&self) -> Option<&'static Wait> {
        match &self.task {
            TaskRef::Root(root) => registry::wait_of_root(root.id),
            TaskRef::Child(child) => child.wait(),
        }
    }

    /// Returns the task's number.
    ///
    /// ```
    /// use seedbed::nursery::current_task;
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let task = n.spawn(async {}).info();
    ///     assert_ne!(task.id(), current_task().unwrap().id());
    /// }));
    /// ```
    pub fn id(&self) -> TaskId {
        self.task.id()
    }

    /// Returns the task's name: the one that it was [given](crate::Nursery::named), or else the
    /// path of the function whose `async` block the task runs.
    ///
    /// The default name is taken from the type of the task's future. Wrappers such as
    /// [`shield()`](crate::shield()) are left out. A future type without an `async` block keeps its
    /// full name, such as `core::future::ready::Ready<i32>`.
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// async fn work() {}
    ///
    /// run(open_nursery(|n| async move {
    ///     assert!(n.spawn(work()).info().name().ends_with("::work"));
    /// }));
    /// ```
    pub fn name(&self) -> &str {
        match &self.task {
            TaskRef::Root(root) => root.name,
            TaskRef::Child(child) => child.name(),
        }
    }

    /// Returns the task that opened this task's nursery, whether it still runs or not. `None` for
    /// the root task of a run, and for a child of a nursery that was opened outside of any task.
    ///
    /// ```
    /// use seedbed::nursery::current_task;
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     assert_eq!(n.spawn(async {}).info().parent(), current_task());
    /// }));
    /// ```
    pub fn parent(&self) -> Option<TaskInfo> {
        self.nursery()?.opener()
    }

    /// Returns the nursery that the task was spawned in; `None` for the root task of a run.
    ///
    /// ```
    /// use seedbed::nursery::current_task;
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     assert_eq!(n.spawn(async {}).info().nursery(), Some(n.info()));
    ///     assert_eq!(current_task().unwrap().nursery(), None);
    /// }));
    /// ```
    pub fn nursery(&self) -> Option<NurseryInfo> {
        match &self.task {
            TaskRef::Root(_) => None,
            TaskRef::Child(child) => Some(NurseryInfo::new(child.nursery().clone())),
        }
    }

    /// Returns the nurseries that the task has open, in the order of opening, so that an outer one
    /// comes before those in it.
    ///
    /// This goes through all open nurseries of the process, and is meant for debugging.
    ///
    /// ```
    /// use seedbed::nursery::current_task;
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|outer| async move {
    ///     open_nursery(|inner| async move {
    ///         let open = current_task().unwrap().nurseries();
    ///         assert_eq!(open, [outer.info(), inner.info()]);
    ///     })
    ///     .await
    /// }));
    /// ```
    pub fn nurseries(&self) -> Vec<NurseryInfo> {
        registry::blocks()
            .into_iter()
            .map(NurseryInfo::new)
            .filter(|nursery| nursery.opener().as_ref() == Some(self))
            .collect()
    }
}

impl PartialEq for TaskInfo {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for TaskInfo {}

impl Hash for TaskInfo {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// Writes the name and the number: `worker 1 #17`.
impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.name(), self.id())
    }
}

impl fmt::Debug for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskInfo")
            .field("id", &self.id().get())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Identifies a nursery: the task that opened it, and its children.
///
/// Returned by [`Nursery::info`](crate::Nursery::info), [`TaskInfo::nursery`] and
/// [`TaskInfo::nurseries`]. Unlike a handle, it cannot change the nursery. It may be kept after the
/// nursery has ended.
///
/// ```
/// use seedbed::nursery::current_task;
/// use seedbed::{open_nursery, run};
///
/// run(open_nursery(|n| async move {
///     assert_eq!(n.info().opener(), current_task());
///     assert!(n.info().children().is_empty());
/// }));
/// ```
#[derive(Clone)]
pub struct NurseryInfo {
    nursery: Arc<NurseryState>,
}

impl NurseryInfo {
    pub(super) fn new(nursery: Arc<NurseryState>) -> Self {
        NurseryInfo { nursery }
    }

    /// Returns the task that opened the nursery, or `None` if it was opened outside of any task.
    ///
    /// ```
    /// use seedbed::nursery::current_task;
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     assert_eq!(n.info().opener(), current_task());
    /// }));
    /// ```
    pub fn opener(&self) -> Option<TaskInfo> {
        self.nursery.opener.clone().map(TaskInfo::new)
    }

    /// Returns the children that have not ended, in the order of spawning, including those that
    /// were not polled yet.
    ///
    /// If another thread is polling the nursery, this call blocks until that poll is over. So a
    /// task of the nursery must not block on the thread that makes this call. Two tasks on two
    /// threads that ask about each other's nurseries can deadlock.
    /// [`task_trees`](crate::nursery::task_trees) never blocks.
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let (one, two) = (n.spawn(async {}), n.spawn(async {}));
    ///     assert_eq!(n.info().children(), [one.info(), two.info()]);
    /// }));
    /// ```
    pub fn children(&self) -> Vec<TaskInfo> {
        self.nursery
            .children(true)
            .expect("a read that waits succeeds")
            .into_iter()
            .map(|child| TaskInfo::new(TaskRef::Child(child)))
            .collect()
    }
}

impl PartialEq for NurseryInfo {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.nursery, &other.nursery)
    }
}

impl Eq for NurseryInfo {}

impl fmt::Debug for NurseryInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NurseryInfo")
            .field("opener", &self.opener())
            .field("ended", &self.nursery.children.is_closed())
            .finish_non_exhaustive()
    }
}

/// Returns the task that is running.
///
/// `None` outside of any task: in code that no run or nursery polls, on the threads of
/// [`thread::run_sync`](crate::thread::run_sync), and in the body of a nursery that was opened
/// outside of a task.
///
/// ```
/// use seedbed::nursery::current_task;
/// use seedbed::run;
///
/// assert!(current_task().is_none());
/// assert!(run(async { current_task() }).is_some());
/// ```
pub fn current_task() -> Option<TaskInfo> {
    current::current().map(TaskInfo::new)
}

/// Returns the topmost ancestor of the [current task](current_task). In a run, this is the run's
/// root task. (Trio's `current_root_task`.)
///
/// ```
/// use seedbed::nursery::{current_root_task, current_task};
/// use seedbed::{open_nursery, run};
///
/// run(async {
///     let root = current_task();
///     let found = open_nursery(|n| async move { n.spawn(async { current_root_task() }).await });
///     assert_eq!(found.await, root);
/// });
/// ```
pub fn current_root_task() -> Option<TaskInfo> {
    let mut task = current_task()?;
    while let Some(parent) = task.parent() {
        task = parent;
    }
    Some(task)
}
