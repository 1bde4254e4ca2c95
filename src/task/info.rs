//! Who is who: the numbers, names and parents of tasks and nurseries, for debugging and for instruments.
//!
//! What a task is called, and who opened its nursery, never changes. So a [`TaskInfo`] need not copy anything: it is a
//! counted reference to the task, whose memory (not its future) it keeps.

use std::any::type_name;
use std::cell::Cell as StdCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::child::ChildRef;
use super::place;
use super::ready::Core;
use super::tree;

/// The number of a task; no two tasks of a process have the same.
///
/// Tasks that were spawned on the same thread are numbered in the order of spawning.
///
/// ```
/// use seedbed::{open_nursery, run};
///
/// run(open_nursery(|n| async move {
///     let (one, two) = (n.spawn(async {}), n.spawn(async {}));
///     assert!(one.info().id() < two.info().id());
/// }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(NonZeroU64);

impl TaskId {
    /// A new one. Each thread takes a block of numbers at a time, so that threads do not wait for each other.
    #[inline]
    pub(super) fn next() -> Self {
        const BLOCK: u64 = 1024;
        static BLOCKS: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            /// The last one that this thread gave out.
            static LAST: StdCell<u64> = const { StdCell::new(0) };
        }
        let mut last = LAST.get();
        if last.is_multiple_of(BLOCK) {
            last = BLOCKS.fetch_add(1, Ordering::Relaxed) * BLOCK;
        }
        LAST.set(last + 1);
        TaskId(NonZeroU64::MIN.saturating_add(last))
    }

    /// Returns the number itself.
    ///
    /// ```
    /// use seedbed::nursery::current_task;
    /// use seedbed::run;
    ///
    /// let id = run(async { current_task().unwrap().id() });
    /// assert!(id.get() > 0);
    /// ```
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that somebody gave.
pub(super) type Name = Arc<str>;

/// The name of a task that was given none, made of the name of its future's type: the path of that, which for an `async`
/// block is the function that it stands in. Futures of this crate's that are made of another are called after that.
pub(super) fn default_name(future: &'static str) -> &'static str {
    /// And which of their parameters that is: the first, if not the last.
    const WRAPPERS: [(&str, bool); 11] = [
        ("seedbed::task::block::Block<", false),
        ("seedbed::cancel::scope::ScopeRun<", true),
        ("seedbed::cancel::shield::Shield<", true),
        ("seedbed::cancel::shield::OnCancel<", true),
        ("seedbed::cancel::timeout::MoveOn<", true),
        ("seedbed::cancel::timeout::Fail<", true),
        ("seedbed::variables::tree_var::TreeVarScope<", true),
        ("seedbed::run::system_task::SystemTask<", true),
        ("seedbed::testing::sequencer::InSequence<", true),
        ("seedbed::testing::checkpoints::AssertCheckpoints<", true),
        ("seedbed::testing::checkpoints::AssertNoCheckpoints<", true),
    ];
    let mut name = future;
    while let Some((parameters, first)) = WRAPPERS.iter().find_map(|(wrapper, first)| {
        let parameters = name.strip_prefix(wrapper)?.strip_suffix('>')?;
        Some((parameters, *first))
    }) {
        name = parameter(parameters, first);
    }
    while let Some(shorter) = name.strip_suffix("::{{closure}}") {
        name = shorter;
    }
    name
}

/// The first or the last of a list of type parameters.
fn parameter(list: &'static str, first: bool) -> &'static str {
    let (mut depth, mut before, mut start) = (0_i32, ' ', 0);
    for (at, c) in list.char_indices() {
        match c {
            '<' | '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            // Not that of an arrow.
            '>' if before != '-' => depth -= 1,
            ',' if depth == 0 && first => return &list[..at],
            ',' if depth == 0 => start = at + 1,
            _ => {}
        }
        before = c;
    }
    list[start..].trim_start()
}

/// The future that a run was given.
pub(super) struct Root {
    pub(super) id: TaskId,
    name: &'static str,
}

/// A task, counted.
#[derive(Clone)]
pub(super) enum TaskRef {
    Root(Arc<Root>),
    Child(ChildRef),
}

impl TaskRef {
    pub(super) fn id(&self) -> TaskId {
        match self {
            TaskRef::Root(root) => root.id,
            TaskRef::Child(child) => child.id(),
        }
    }
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

/// The root task of a run; for the run.
pub(crate) struct RootTask(TaskRef);

impl RootTask {
    /// A root task whose future is an `F`.
    pub(crate) fn new<F>() -> Self {
        let root = Arc::new(Root {
            id: TaskId::next(),
            name: default_name(type_name::<F>()),
        });
        tree::add_root(root.clone());
        RootTask(TaskRef::Root(root))
    }

    pub(crate) fn info(&self) -> TaskInfo {
        TaskInfo::new(self.0.clone())
    }

    /// Polls the root's future, or does anything else in its name.
    pub(crate) fn take_turn<T>(&self, act: impl FnOnce() -> T) -> T {
        place::in_task(&self.0, act)
    }
}

impl Drop for RootTask {
    fn drop(&mut self) {
        tree::remove_root(self.0.id());
    }
}

/// Which task it is: a number, a name and a parent.
///
/// A task is what polls on its own: a child of a nursery, or the future that [`run`](crate::run()) was given. What a
/// nursery's body does, the task does that opened the nursery.
///
/// This may be kept, also when the task has ended; what is kept of it then is its memory, and nothing that it owned.
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

    /// Returns the task's name: the one that it was [given](crate::Nursery::named), else the path of its future's type,
    /// which for an `async` block is the function that it stands in.
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

    /// Returns the task that opened the nursery which this one was spawned in, whether it still runs or not. `None` for
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
            TaskRef::Child(child) => Some(NurseryInfo::new(child.core().clone())),
        }
    }

    /// Returns the nurseries that the task has open, in the order of opening: of nested ones the outer one first.
    ///
    /// This asks every open nursery of the process, and is meant for debugging.
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
        tree::nurseries_of(self)
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

/// The name and the number: `worker 1 #17`.
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

/// Which nursery it is: who opened it, and who its children are.
///
/// Unlike a handle this says nothing to the nursery, and it may be kept when the nursery has ended. Made by
/// [`Nursery::info`](crate::Nursery::info), [`TaskInfo::nursery`] and [`TaskInfo::nurseries`].
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
    core: Arc<Core>,
}

impl NurseryInfo {
    pub(super) fn new(core: Arc<Core>) -> Self {
        NurseryInfo { core }
    }

    /// Returns the task that opened the nursery; `None` if that was done outside of any task.
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
        self.core.opener.clone().map(TaskInfo::new)
    }

    /// Returns the children that have not ended at this moment, in the order of spawning; also those that were never
    /// polled.
    ///
    /// On another thread than the one that polls the nursery, this waits while it is being polled. So no task of the
    /// nursery may wait for it without awaiting; and two tasks on two threads that ask about each other's nurseries may
    /// wait for each other for ever. [`task_trees`](crate::nursery::task_trees) never waits.
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
        self.core
            .children(true)
            .expect("who is patient is told")
            .into_iter()
            .map(|child| TaskInfo::new(TaskRef::Child(child)))
            .collect()
    }
}

impl PartialEq for NurseryInfo {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl Eq for NurseryInfo {}

impl fmt::Debug for NurseryInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NurseryInfo")
            .field("opener", &self.opener())
            .field("ended", &self.core.is_closed())
            .finish_non_exhaustive()
    }
}

/// Returns the task that is running. `None` outside of any: in code that no run or nursery polls, on the threads of
/// [`thread::run_sync`](crate::thread::run_sync), and in the body of a nursery that was opened outside of a task.
///
/// ```
/// use seedbed::nursery::current_task;
/// use seedbed::run;
///
/// assert!(current_task().is_none());
/// assert!(run(async { current_task() }).is_some());
/// ```
pub fn current_task() -> Option<TaskInfo> {
    place::current().map(TaskInfo::new)
}

/// Returns the task at the top of the [current](current_task) one's ancestors: in a run, its root task.
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

#[cfg(test)]
mod tests {
    use super::default_name;

    #[test]
    fn a_default_name_is_the_path_of_the_function_also_through_what_is_wrapped_around_its_future() {
        let block = "seedbed::task::block::Block<seedbed::task::handle::Nursery<'_>, (), a::f::{{closure}}, \
                     a::f::{{closure}}::{{closure}}>";
        assert_eq!(default_name(block), "a::f");
        assert_eq!(default_name("a::b::{{closure}}"), "a::b");
        assert_eq!(
            default_name("core::future::ready::Ready<i32>"),
            "core::future::ready::Ready<i32>"
        );
        let shield =
            "seedbed::cancel::shield::Shield<seedbed::cancel::timeout::MoveOn<a::g::{{closure}}>>";
        assert_eq!(default_name(shield), "a::g");
        let on_cancel =
            "seedbed::cancel::shield::OnCancel<a::g<fn(u8) -> (u8, u8)>::{{closure}}, a::Cleanup>";
        assert_eq!(default_name(on_cancel), "a::g<fn(u8) -> (u8, u8)>");
    }

    #[test]
    fn the_futures_that_are_looked_through_have_the_names_that_are_looked_for() {
        fn name<F>(_: &F) -> &'static str {
            default_name(std::any::type_name::<F>())
        }
        let here = "seedbed::task::info::tests::the_futures_that_are_looked_through_have_the_names_that_are_looked_for";
        let moment = std::time::Duration::ZERO;
        assert_eq!(name(&async {}), here);
        assert_eq!(
            name(&crate::open_nursery(|_: crate::Nursery<'_>| async {})),
            here
        );
        assert_eq!(name(&crate::CancelScope::new().run(async {})), here);
        assert_eq!(name(&crate::shield(async {})), here);
        assert_eq!(
            name(&crate::on_cancel(async {}, std::future::ready(()))),
            here
        );
        assert_eq!(name(&crate::move_on_after(moment, async {})), here);
        assert_eq!(name(&crate::fail_after(moment, async {})), here);
        static VARIABLE: crate::TreeVar<u8> = crate::TreeVar::new();
        assert_eq!(name(&VARIABLE.scope(5, async {})), here);
    }
}
