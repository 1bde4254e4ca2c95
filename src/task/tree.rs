//! The tree of all tasks, as text: for a developer whose program hangs.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::child_ref::{ChildRef, NurseryState, TaskRef};
use super::current::{current, current_nursery};
use super::ids::TaskId;
use super::info::TaskInfo;
use super::registry;
use crate::wait::Wait;

/// All tasks below one task, with their names, at one moment. Returned by [`task_tree`] and
/// [`task_trees`].
///
/// It is meant to be printed:
///
/// ```
/// use std::time::Duration;
/// use seedbed::nursery::task_tree;
/// use seedbed::sync::channel;
/// use seedbed::testing::wait_all_tasks_blocked;
/// use seedbed::time::sleep_forever;
/// use seedbed::{open_nursery, run, sleep};
///
/// async fn connection() {
///     open_nursery(|n| async move {
///         let (_sender, receiver) = channel::<String>(1);
///         n.named("reader").spawn(async move { while receiver.recv().await.is_ok() {} });
///         n.named("writer").spawn(sleep(Duration::from_secs(60)));
///         sleep_forever().await
///     })
///     .await
/// }
///
/// run(open_nursery(|n| async move {
///     n.named("connection 1").spawn(connection());
///     n.named("connection 2").spawn(connection());
///     wait_all_tasks_blocked().await;
///     let tree = task_tree().unwrap();
///     println!("{tree}");
///     assert!(tree.to_string().contains(", waits for a value in a channel"));
///     let names: Vec<&str> = tree.tasks().skip(1).map(|task| task.name()).collect();
///     assert_eq!(names, ["connection 1", "reader", "writer", "connection 2", "reader", "writer"]);
///     n.cancel();
/// }));
/// ```
///
/// ```text
/// app::main #1
/// └─ nursery, its body waits for all tasks to be blocked
///    ├─ connection 1 #2
///    │  └─ nursery
///    │     ├─ reader #4, waits for a value in a channel
///    │     └─ writer #5, waits for a point in time
///    └─ connection 2 #3
///       └─ nursery
///          ├─ reader #6, waits for a value in a channel
///          └─ writer #7, waits for a point in time
/// ```
///
/// # Waits
///
/// A line tells what the task, or the nursery's body, waits for, if that is a future of this crate:
/// a job (`` waits for job `app::parse` ``), a thread, a process, a primitive of
/// [`sync`](crate::sync), time, a signal, another task. A task that was spawned from nothing but a
/// call has the name of the job or function: `` job `app::parse` #3 ``. A task that is about to run
/// has no wait.
///
/// The wait is the last one in the task's last turn; a call goes before the others. So of a task
/// that waits for several things, the line names one, and after a wait that a `select!` has
/// dropped, it may name that one. The waits of other libraries' futures are not known.
#[derive(Clone)]
pub struct TaskTree {
    /// In depth-first order. (A tree of lists of trees would have to be dropped by recursion.)
    lines: Vec<Line>,
}

#[derive(Clone)]
struct Line {
    depth: usize,
    node: Node,
}

#[derive(Clone)]
enum Node {
    Task {
        info: TaskInfo,
        wait: Option<&'static Wait>,
    },
    Nursery {
        cancelled: bool,
        wait_of_body: Option<&'static Wait>,
        /// Another thread was polling the nursery, so not all of its children are known.
        busy: bool,
    },
}

impl TaskTree {
    /// Iterates over the tasks in depth-first order. Siblings come in the order of spawning.
    ///
    /// ```
    /// use seedbed::nursery::{current_task, task_tree};
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let task = n.spawn(async {});
    ///     let tree = task_tree().unwrap();
    ///     assert!(tree.tasks().eq(&[current_task().unwrap(), task.info()]));
    /// }));
    /// ```
    pub fn tasks(&self) -> impl Iterator<Item = &TaskInfo> {
        self.lines.iter().filter_map(|line| match &line.node {
            Node::Task { info, .. } => Some(info),
            Node::Nursery { .. } => None,
        })
    }

    /// Tells for each line whether it is the last of its siblings.
    fn are_last(&self) -> Vec<bool> {
        // The lines are read from the bottom up. For each depth, this tells whether a sibling
        // follows.
        let mut followed = Vec::new();
        let mut last = vec![false; self.lines.len()];
        for (at, line) in self.lines.iter().enumerate().rev() {
            followed.resize(line.depth + 1, false);
            last[at] = !std::mem::replace(&mut followed[line.depth], true);
        }
        last
    }
}

impl fmt::Display for TaskTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.are_last();
        // For each line on the path to this one: whether a sibling of it follows.
        let mut open = Vec::new();
        for (at, (line, last)) in self.lines.iter().zip(last).enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            open.truncate(line.depth.saturating_sub(1));
            for &open in &open {
                f.write_str(if open { "│  " } else { "   " })?;
            }
            if line.depth > 0 {
                f.write_str(if last { "└─ " } else { "├─ " })?;
                open.push(!last);
            }
            line.node.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cancelled, wait_of_body, busy) = match self {
            Node::Task { info, wait } => return write_task(info, *wait, f),
            Node::Nursery {
                cancelled,
                wait_of_body,
                busy,
            } => (cancelled, wait_of_body, busy),
        };
        f.write_str("nursery")?;
        if *cancelled {
            f.write_str(", cancelled")?;
        }
        if let Some(wait) = wait_of_body {
            write!(f, ", its body waits for {wait}")?;
        }
        if *busy {
            f.write_str(
                ", being polled: only those of its children are known that have nurseries",
            )?;
        }
        Ok(())
    }
}

fn write_task(task: &TaskInfo, wait: Option<&Wait>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match wait {
        None => write!(f, "{task}"),
        // A task that was spawned from nothing but a call is named after the function that it
        // calls, which the type of its future does not name.
        Some(Wait::Call { call, is_queued }) if task.name().starts_with("seedbed::") => {
            write!(f, "{call} #{}", task.id())?;
            let queued = ", waits for a limiter token";
            f.write_str(if *is_queued { queued } else { "" })
        }
        Some(wait) => write!(f, "{task}, waits for {wait}"),
    }
}

impl fmt::Debug for TaskTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All open blocks, by the task that opened them.
struct Forest {
    opened_by: HashMap<Option<TaskId>, Vec<Arc<NurseryState>>>,
}

impl Forest {
    fn new() -> Self {
        let mut opened_by = HashMap::<_, Vec<_>>::new();
        for nursery in registry::blocks() {
            let opener = nursery.opener.as_ref().map(TaskRef::id);
            opened_by.entry(opener).or_default().push(nursery);
        }
        Forest { opened_by }
    }

    /// Lists all tasks and nurseries below a task, or below a block that no task has opened.
    fn list(&self, top: Subtree) -> TaskTree {
        let mut lines = Vec::new();
        // The subtrees that are still to be listed, in reverse order.
        let mut rest = vec![(0, top)];
        while let Some((depth, next)) = rest.pop() {
            let (node, mut below): (Node, Vec<Subtree>) = match next {
                Subtree::Task(task) => {
                    let blocks = self.opened_by.get(&Some(task.id()));
                    let below = blocks.into_iter().flatten().cloned().map(Subtree::Block);
                    let wait = task.wait();
                    (Node::Task { info: task, wait }, below.collect())
                }
                Subtree::Block(nursery) => {
                    let children = nursery.children(false);
                    let node = Node::Nursery {
                        cancelled: nursery.scope.is_cancelled(),
                        wait_of_body: nursery.wait_of_body(),
                        busy: children.is_none(),
                    };
                    let children = children.unwrap_or_else(|| self.openers_in(&nursery));
                    let tasks = children.into_iter().map(TaskRef::Child).map(TaskInfo::new);
                    (node, tasks.map(Subtree::Task).collect())
                }
            };
            lines.push(Line { depth, node });
            below.reverse();
            rest.extend(below.into_iter().map(|below| (depth + 1, below)));
        }
        TaskTree { lines }
    }
}

enum Subtree {
    Task(TaskInfo),
    Block(Arc<NurseryState>),
}

impl Forest {
    /// Returns the children of a block that have opened blocks themselves, in the order of
    /// spawning.
    fn openers_in(&self, nursery: &Arc<NurseryState>) -> Vec<ChildRef> {
        let openers = self.opened_by.values().filter_map(|blocks| blocks.first());
        let mut children: Vec<_> = openers
            .filter_map(|block| match block.opener.as_ref()? {
                TaskRef::Child(child) if Arc::ptr_eq(child.nursery(), nursery) => {
                    Some(child.clone())
                }
                TaskRef::Child(_) | TaskRef::Root(_) => None,
            })
            .collect();
        children.sort_by_key(|child| child.id());
        children
    }
}

/// Returns the tree of the current task, from the root task down to the last child, or `None`
/// outside of any task.
///
/// In a nursery that was opened outside of any task, that nursery is the top.
///
/// This goes through all open nurseries of the process, and is meant for debugging.
///
/// ```
/// use seedbed::nursery::task_tree;
/// use seedbed::{open_nursery, run};
///
/// run(open_nursery(|n| async move {
///     n.named("child").spawn(async {});
///     assert!(task_tree().unwrap().to_string().contains("└─ child #"));
/// }));
/// ```
#[doc(alias = "dump")]
pub fn task_tree() -> Option<TaskTree> {
    let (mut block, mut task) = (current_nursery(), current());
    let top = loop {
        match (task, block) {
            (Some(TaskRef::Child(child)), _) => block = Some(child.nursery().clone()),
            (Some(root @ TaskRef::Root(_)), _) => break Subtree::Task(TaskInfo::new(root)),
            (None, block) => break Subtree::Block(block?),
        }
        task = block.as_ref().and_then(|block| block.opener.clone());
    };
    Some(Forest::new().list(top))
}

/// Returns the trees of all runs of the process, and of all nurseries that were opened outside of
/// any task.
///
/// May be called on any thread, such as one that waits for a signal. Never waits for a task. If
/// another thread is polling a nursery at this moment, only those of its children are listed that
/// have nurseries themselves.
///
/// ```
/// use seedbed::nursery::task_trees;
/// use seedbed::time::sleep_forever;
/// use seedbed::{open_nursery, run, thread};
///
/// run(open_nursery(|n| async move {
///     n.named("hangs").spawn(sleep_forever());
///     let trees = thread::run_sync(task_trees).await;
///     assert!(!trees.is_empty());
///     for tree in trees {
///         println!("{tree}");
///     }
///     n.cancel();
/// }));
/// ```
pub fn task_trees() -> Vec<TaskTree> {
    let forest = Forest::new();
    let roots = registry::roots().into_iter().map(TaskRef::Root);
    let blocks = forest.opened_by.get(&None).into_iter().flatten().cloned();
    roots
        .map(|root| Subtree::Task(TaskInfo::new(root)))
        .chain(blocks.map(Subtree::Block))
        .map(|top| forest.list(top))
        .collect()
}
