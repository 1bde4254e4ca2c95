//! Workers that are being started ahead, as their pool sees it.

use std::sync::Arc;

use super::worker_pool::WorkerPool;
use crate::worker::conn::worker::Worker;
use crate::worker::error::WorkerError;

/// A start of workers ahead of calls. A shutdown waits until it is dropped.
#[derive(Debug)]
pub(in crate::worker) struct StartGuard {
    pool: Arc<WorkerPool>,
    idle_workers: usize,
}

impl StartGuard {
    /// Fails if the pool is closed.
    pub(in crate::worker) fn begin(pool: Arc<WorkerPool>) -> Result<Self, WorkerError> {
        pool.reap_idle();
        let idle_workers = pool.begin_starts()?;
        Ok(Self { pool, idle_workers })
    }

    /// Returns the number of workers that were idle at the beginning.
    pub(in crate::worker) fn idle_workers(&self) -> usize {
        self.idle_workers
    }

    pub(in crate::worker) fn pool(&self) -> &Arc<WorkerPool> {
        &self.pool
    }

    /// Adds a worker that is ready for jobs to the idle ones.
    pub(in crate::worker) fn put(&self, mut worker: Box<Worker>) {
        worker.resolve_fork();
        self.pool.put(worker);
    }
}

impl Drop for StartGuard {
    fn drop(&mut self) {
        self.pool.end_starts();
    }
}
