//! The arenas of a context, which go when they were not used for a while.
//!
//! What is kept is decided by the [`Pool`]. Here is the clock: a task that looks once a second, as long as there is
//! something to be looked at (so what is not used goes after two seconds at the latest), and a thread that exists for
//! as long as it takes to unmap and free what goes. (The executor's thread has better things to do for ten
//! milliseconds, and those of `blocking`, once they are there, may wake up twice a second for ever.)

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use async_io::Timer;

use crate::process::background;
use crate::sys::arena::{Arena, LINGER};
use crate::sys::copy::is_copy;
use crate::transport::payload::pool::Pool;

/// A pool with somebody who looks after it.
#[derive(Debug, Default)]
pub(in crate::worker) struct Arenas {
    pool: Pool,
    /// There is a task that looks after it. Held while something is put there or while one looks whether anything is
    /// left.
    watched: Mutex<bool>,
}

impl Arenas {
    pub(in crate::worker) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Puts back what nobody reads any more.
    pub(in crate::worker) fn put(self: &Arc<Self>, arena: Arena) {
        let mut watched = self.watched();
        let superfluous = self.pool.put(arena, Instant::now());
        let is_first = !std::mem::replace(&mut *watched, true);
        drop(watched);
        drop_elsewhere(superfluous);
        if is_first {
            background::spawn(look_after(Arc::downgrade(self))).detach();
        }
    }

    /// Lets all go.
    pub(in crate::worker) fn empty(&self) {
        drop_elsewhere(self.pool.empty());
    }

    /// Lets go of what is old. Whether somebody has to look again.
    fn trim(&self) -> bool {
        let mut watched = self.watched();
        let old = self.pool.trim(Instant::now());
        *watched = !self.pool.is_empty();
        let goes_on = *watched;
        drop(watched);
        drop_elsewhere(old);
        goes_on
    }

    fn watched(&self) -> MutexGuard<'_, bool> {
        // Each change is one step.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets arenas go that were not used for a while, as long as there are any.
async fn look_after(arenas: Weak<Arenas>) {
    loop {
        Timer::after(LINGER).await;
        let goes_on = arenas.upgrade().is_some_and(|arenas| arenas.trim());
        if !goes_on {
            return;
        }
    }
}

/// Unmaps and frees arenas where nobody waits for that.
fn drop_elsewhere(arenas: Vec<Arena>) {
    if arenas.is_empty() || is_copy() {
        return; // a copy has nothing to unmap, and no thread of ours
    }
    let thread = thread::Builder::new().name("seedbed-free".into());
    let _ = thread.spawn(move || drop(arenas)); // without another thread, they have been dropped here, with the closure
}
