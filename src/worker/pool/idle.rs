//! The idle workers of a pool: which one serves the next call. Pure.
//!
//! Last in, first out. The worker that was used last has the warmest processor caches, and a worker
//! that no call needs reaches its idle timeout, so the number of workers falls after a burst.

/// Idle workers, the one used last at the end.
#[derive(Debug)]
pub(in crate::worker) struct IdleWorkers<W> {
    workers: Vec<W>,
}

impl<W> Default for IdleWorkers<W> {
    fn default() -> Self {
        Self {
            workers: Vec::new(),
        }
    }
}

impl<W> IdleWorkers<W> {
    /// Adds a worker that was just used.
    pub(in crate::worker) fn put(&mut self, worker: W) {
        self.workers.push(worker);
    }

    /// Takes out the worker that was used last.
    pub(in crate::worker) fn take_latest(&mut self) -> Option<W> {
        self.workers.pop()
    }

    /// Takes out the workers for which `is_taken` returns true. The others stay in their order.
    pub(in crate::worker) fn take_if(&mut self, is_taken: impl FnMut(&mut W) -> bool) -> Vec<W> {
        self.workers.extract_if(.., is_taken).collect()
    }

    /// Visits all workers, the one used last at the end.
    pub(in crate::worker) fn iter_mut(&mut self) -> impl Iterator<Item = &mut W> {
        self.workers.iter_mut()
    }

    /// Takes out all workers.
    pub(in crate::worker) fn drain(&mut self) -> Vec<W> {
        std::mem::take(&mut self.workers)
    }

    pub(in crate::worker) fn len(&self) -> usize {
        self.workers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_worker_used_last_is_taken_first() {
        let mut idle = IdleWorkers::default();
        idle.put("cold");
        idle.put("warm");
        assert_eq!(idle.take_latest(), Some("warm"));
        idle.put("warm");
        assert_eq!(idle.take_latest(), Some("warm"));
        assert_eq!(idle.take_latest(), Some("cold"));
        assert_eq!(idle.take_latest(), None);
    }

    proptest! {
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn the_chosen_workers_are_taken_and_the_others_keep_their_order(lives: Vec<bool>) {
            let mut idle = IdleWorkers::default();
            lives.iter().enumerate().for_each(|worker| idle.put(worker));
            let taken = idle.take_if(|(_, alive)| !**alive);
            let (alive, ended): (Vec<_>, Vec<_>) = lives.iter().enumerate().partition(|(_, alive)| **alive);
            prop_assert_eq!(taken, ended);
            prop_assert_eq!(idle.len(), alive.len());
            prop_assert_eq!(idle.drain(), alive);
        }
    }
}
