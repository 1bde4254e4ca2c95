//! The open blocks of the process, and the root tasks of its runs.
//!
//! A block knows the task that opened it, but a task does not know its blocks. Registering costs a
//! lock when a block begins and when it ends, and nothing for a child.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::child_ref::{NurseryState, Root};
use super::ids::TaskId;
use super::tuning::BLOCK_REGISTRY_SHARDS;
use crate::sys::primitives::lock;
use crate::wait::{Wait, WaitCell};

type Shard = Mutex<Vec<Arc<NurseryState>>>;

/// All open blocks. Each knows its index in its shard.
static BLOCKS: [Shard; BLOCK_REGISTRY_SHARDS] =
    [const { Mutex::new(Vec::new()) }; BLOCK_REGISTRY_SHARDS];

/// The root tasks, and what each waits for. (The wait is not in the `Root`, because a `TaskInfo` is
/// a key of maps, and so has no changing parts.)
static ROOTS: Mutex<Vec<(Arc<Root>, Arc<WaitCell>)>> = Mutex::new(Vec::new());

fn shard(nursery: &NurseryState) -> &'static Shard {
    &BLOCKS[(nursery.id.get() % BLOCK_REGISTRY_SHARDS as u64) as usize]
}

/// An open block, which is registered until this is dropped.
pub(super) struct Registered(Arc<NurseryState>);

impl Registered {
    pub(super) fn new(nursery: Arc<NurseryState>) -> Self {
        let mut blocks = lock(shard(&nursery));
        nursery
            .registry_index
            .store(blocks.len(), Ordering::Relaxed);
        blocks.push(nursery.clone());
        drop(blocks);
        Registered(nursery)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut blocks = lock(shard(&self.0));
        let index = self.0.registry_index.load(Ordering::Relaxed);
        let removed = blocks.swap_remove(index);
        if let Some(moved) = blocks.get(index) {
            moved.registry_index.store(index, Ordering::Relaxed);
        }
        drop(blocks);
        debug_assert!(Arc::ptr_eq(&removed, &self.0));
    }
}

pub(super) fn add_root(root: Arc<Root>, wait: Arc<WaitCell>) {
    lock(&ROOTS).push((root, wait));
}

pub(super) fn remove_root(id: TaskId) {
    lock(&ROOTS).retain(|(root, _)| root.id != id);
}

/// Returns the root tasks of all runs.
pub(super) fn roots() -> Vec<Arc<Root>> {
    let roots = lock(&ROOTS);
    roots.iter().map(|(root, _)| root.clone()).collect()
}

/// Returns what the root task waits for, as far as that is known.
pub(super) fn wait_of_root(id: TaskId) -> Option<&'static Wait> {
    let roots = lock(&ROOTS);
    let (_, wait) = roots.iter().find(|(root, _)| root.id == id)?;
    wait.get()
}

/// Returns all open blocks, in the order in which they were opened.
pub(super) fn blocks() -> Vec<Arc<NurseryState>> {
    let mut blocks: Vec<_> = BLOCKS
        .iter()
        .flat_map(|shard| lock(shard).clone())
        .collect();
    blocks.sort_by_key(|nursery| nursery.id);
    blocks
}
