//! The arenas of a context, which are freed when no call has used them for a while.
//!
//! The [`ArenaPool`] decides which arenas are kept. This file adds the clock: a background task
//! that trims the pool once per [`UNUSED_MAPPING_KEPT_FOR`] while it holds any. Unmapping a large
//! arena takes milliseconds, so a short-lived thread does that. (The threads of `blocking` would
//! do, but they wake up twice a second once they exist.)

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use async_io::Timer;

use crate::process::background;
use crate::sys::arena::Arena;
use crate::sys::fork_detector::is_forked_copy;
use crate::sys::tuning::UNUSED_MAPPING_KEPT_FOR;
use crate::transport::payload::arena_pool::ArenaPool;

/// A pool of arenas with a background task that trims it.
#[derive(Debug, Default)]
pub(in crate::worker) struct Arenas {
    pool: ArenaPool,
    /// The trimming task runs. Locked while an arena is put back and while the task checks whether
    /// any is left.
    has_trimmer: Mutex<bool>,
}

impl Arenas {
    pub(in crate::worker) fn pool(&self) -> &ArenaPool {
        &self.pool
    }

    /// Puts back an arena that no worker reads any more.
    pub(in crate::worker) fn put(self: &Arc<Self>, arena: Arena) {
        let mut has_trimmer = self.lock();
        let surplus = self.pool.put(arena, Instant::now());
        let is_first = !std::mem::replace(&mut *has_trimmer, true);
        drop(has_trimmer);
        drop_elsewhere(surplus);
        if is_first {
            background::spawn(trim_regularly(Arc::downgrade(self))).detach();
        }
    }

    /// Frees all arenas.
    pub(in crate::worker) fn clear(&self) {
        drop_elsewhere(self.pool.take_all());
    }

    /// Frees arenas that were not used lately. Returns whether any are left.
    fn trim(&self) -> bool {
        let mut has_trimmer = self.lock();
        let old = self.pool.take_old(Instant::now());
        *has_trimmer = !self.pool.is_empty();
        let goes_on = *has_trimmer;
        drop(has_trimmer);
        drop_elsewhere(old);
        goes_on
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        // Each change is a single assignment, so a panic leaves nothing half changed.
        self.has_trimmer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Trims the pool regularly, as long as it holds any arenas.
async fn trim_regularly(arenas: Weak<Arenas>) {
    loop {
        Timer::after(UNUSED_MAPPING_KEPT_FOR).await;
        let goes_on = arenas.upgrade().is_some_and(|arenas| arenas.trim());
        if !goes_on {
            return;
        }
    }
}

/// Unmaps and frees arenas on a thread of their own.
fn drop_elsewhere(arenas: Vec<Arena>) {
    if arenas.is_empty() || is_forked_copy() {
        return; // after a fork, the mappings belong to the original process, and its threads are gone
    }
    let thread = thread::Builder::new().name("seedbed-free".into());
    let _ = thread.spawn(move || drop(arenas)); // if no thread can be spawned, this drops them here
}
