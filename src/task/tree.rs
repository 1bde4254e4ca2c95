//! The tree of all tasks: what a developer prints when a program hangs.
//!
//! A block knows who opened it, and what its children are, but nobody knows downwards which blocks a task has opened. So
//! all open blocks of the process are [registered](Registered), in several parts so that threads seldom meet there. To be
//! registered costs a lock when a block begins and when it ends, and nothing for a child.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::child::ChildRef;
use super::info::{NurseryInfo, Root, TaskId, TaskInfo, TaskRef};
use super::place;
use super::ready::Core;
use crate::cancel::lock;

const PARTS: usize = 16;

/// All open blocks; each knows its index in its part.
static BLOCKS: [Mutex<Vec<Arc<Core>>>; PARTS] = [const { Mutex::new(Vec::new()) }; PARTS];

/// The roots of all runs.
static ROOTS: Mutex<Vec<Arc<Root>>> = Mutex::new(Vec::new());

fn part(core: &Core) -> &'static Mutex<Vec<Arc<Core>>> {
    &BLOCKS[(core.number.get() % PARTS as u64) as usize]
}

/// An open block, until it is dropped.
pub(super) struct Registered(Arc<Core>);

impl Registered {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let mut blocks = lock(part(&core));
        core.registered.store(blocks.len(), Ordering::Relaxed);
        blocks.push(core.clone());
        drop(blocks);
        Registered(core)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut blocks = lock(part(&self.0));
        let index = self.0.registered.load(Ordering::Relaxed);
        let removed = blocks.swap_remove(index);
        if let Some(moved) = blocks.get(index) {
            moved.registered.store(index, Ordering::Relaxed);
        }
        drop(blocks);
        debug_assert!(Arc::ptr_eq(&removed, &self.0));
    }
}

pub(super) fn add_root(root: Arc<Root>) {
    lock(&ROOTS).push(root);
}

pub(super) fn remove_root(id: TaskId) {
    lock(&ROOTS).retain(|root| root.id != id);
}

/// All open blocks, in the order in which they were opened.
fn blocks() -> Vec<Arc<Core>> {
    let mut blocks: Vec<_> = BLOCKS.iter().flat_map(|part| lock(part).clone()).collect();
    blocks.sort_by_key(|core| core.number);
    blocks
}

/// The nurseries that a task has open.
pub(super) fn nurseries_of(task: &TaskInfo) -> Vec<NurseryInfo> {
    blocks()
        .into_iter()
        .map(NurseryInfo::new)
        .filter(|nursery| nursery.opener().as_ref() == Some(task))
        .collect()
}

/// All tasks below one task, with their names, at one moment; made by [`task_tree`] and [`task_trees`].
///
/// It is meant to be printed:
///
/// ```
/// use seedbed::nursery::task_tree;
/// use seedbed::testing::wait_all_tasks_blocked;
/// use seedbed::time::sleep_forever;
/// use seedbed::{open_nursery, run};
///
/// async fn connection() {
///     open_nursery(|n| async move {
///         n.named("reader").spawn(sleep_forever());
///         n.named("writer").spawn(sleep_forever());
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
///     let names: Vec<&str> = tree.tasks().skip(1).map(|task| task.name()).collect();
///     assert_eq!(names, ["connection 1", "reader", "writer", "connection 2", "reader", "writer"]);
///     n.cancel();
/// }));
/// ```
///
/// ```text
/// app::main #1
/// └─ nursery
///    ├─ connection 1 #2
///    │  └─ nursery
///    │     ├─ reader #4
///    │     └─ writer #5
///    └─ connection 2 #3
///       └─ nursery
///          ├─ reader #6
///          └─ writer #7
/// ```
#[derive(Clone)]
pub struct TaskTree {
    /// Each line before those below it. (A tree of lists of trees would have to be dropped by recursion.)
    lines: Vec<Line>,
}

#[derive(Clone)]
struct Line {
    depth: usize,
    what: What,
}

#[derive(Clone)]
enum What {
    Task(TaskInfo),
    Nursery {
        cancelled: bool,
        /// It was being polled by another thread, so that not all of its children are known.
        busy: bool,
    },
}

impl TaskTree {
    /// Iterates over the tasks: each before those below it, siblings in the order of spawning.
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
        self.lines.iter().filter_map(|line| match &line.what {
            What::Task(task) => Some(task),
            What::Nursery { .. } => None,
        })
    }

    /// Whether each line is the last of its siblings.
    fn last(&self) -> Vec<bool> {
        // Read from below: at each depth, whether there is a sibling further down.
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
        let last = self.last();
        // Of the lines that lead to this one, which have siblings further down.
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
            line.what.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cancelled, busy) = match self {
            What::Task(task) => return task.fmt(f),
            What::Nursery { cancelled, busy } => (cancelled, busy),
        };
        f.write_str("nursery")?;
        if *cancelled {
            f.write_str(", cancelled")?;
        }
        if *busy {
            f.write_str(
                ", being polled: only those of its children are known that have nurseries",
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for TaskTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All open blocks by who opened them.
struct Forest {
    opened_by: HashMap<Option<TaskId>, Vec<Arc<Core>>>,
}

impl Forest {
    fn new() -> Self {
        let mut opened_by = HashMap::<_, Vec<_>>::new();
        for core in blocks() {
            let opener = core.opener.as_ref().map(TaskRef::id);
            opened_by.entry(opener).or_default().push(core);
        }
        Forest { opened_by }
    }

    /// Draws what is below a task, or below a block that no task has opened.
    fn draw(&self, top: Top) -> TaskTree {
        let mut lines = Vec::new();
        // What is still to be drawn, the next at the end.
        let mut todo = vec![(0, top)];
        while let Some((depth, next)) = todo.pop() {
            let (what, mut below): (What, Vec<Top>) = match next {
                Top::Task(task) => {
                    let blocks = self.opened_by.get(&Some(task.id()));
                    let below = blocks.into_iter().flatten().cloned().map(Top::Block);
                    (What::Task(task), below.collect())
                }
                Top::Block(core) => {
                    let children = core.children(false);
                    let what = What::Nursery {
                        cancelled: core.scope.is_cancelled(),
                        busy: children.is_none(),
                    };
                    let children = children.unwrap_or_else(|| self.openers_in(&core));
                    let tasks = children.into_iter().map(TaskRef::Child).map(TaskInfo::new);
                    (what, tasks.map(Top::Task).collect())
                }
            };
            lines.push(Line { depth, what });
            below.reverse();
            todo.extend(below.into_iter().map(|below| (depth + 1, below)));
        }
        TaskTree { lines }
    }
}

enum Top {
    Task(TaskInfo),
    Block(Arc<Core>),
}

impl Forest {
    /// Those children of a block that have opened blocks, in the order of spawning.
    fn openers_in(&self, core: &Arc<Core>) -> Vec<ChildRef> {
        let openers = self.opened_by.values().filter_map(|blocks| blocks.first());
        let mut children: Vec<_> = openers
            .filter_map(|block| match block.opener.as_ref()? {
                TaskRef::Child(child) if Arc::ptr_eq(child.core(), core) => Some(child.clone()),
                TaskRef::Child(_) | TaskRef::Root(_) => None,
            })
            .collect();
        children.sort_by_key(|child| child.id());
        children
    }
}

/// Returns the tree that the caller is in, from its root task down to the last child; `None` outside of any task. In a
/// nursery that was opened outside of any task, that nursery is the top.
///
/// This asks every open nursery of the process, and is meant for debugging.
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
pub fn task_tree() -> Option<TaskTree> {
    let (mut block, mut task) = (place::current_block(), place::current());
    let top = loop {
        match (task, block) {
            (Some(TaskRef::Child(child)), _) => block = Some(child.core().clone()),
            (Some(root @ TaskRef::Root(_)), _) => break Top::Task(TaskInfo::new(root)),
            (None, block) => break Top::Block(block?),
        }
        task = block.as_ref().and_then(|block| block.opener.clone());
    };
    Some(Forest::new().draw(top))
}

/// Returns the trees of all runs of the process, and of all nurseries that were opened outside of any task.
///
/// This may be called on any thread, a debugger's or one that waits for a signal, and never waits for a task. Of a nursery
/// that another thread is polling at this moment, only those children are known that have nurseries themselves.
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
    let roots = lock(&ROOTS).clone().into_iter().map(TaskRef::Root);
    let blocks = forest.opened_by.get(&None).into_iter().flatten().cloned();
    roots
        .map(|root| Top::Task(TaskInfo::new(root)))
        .chain(blocks.map(Top::Block))
        .map(|top| forest.draw(top))
        .collect()
}
