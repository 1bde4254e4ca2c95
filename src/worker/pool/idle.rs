//! The idle workers of a pool: which one serves the next call, and which ones are pruned. Pure.
//!
//! Last in, first out. The worker that was used last has the warmest processor caches, and a worker
//! that no call needs reaches its idle timeout, so the number of workers falls after a burst.
//! Workers that have ended therefore stand at the front, and [`prune`](IdleWorkers::prune) stops at
//! the first one that lives.

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

    /// Takes out the longest idle workers that have ended, up to the first that has not.
    pub(in crate::worker) fn prune(&mut self, mut has_ended: impl FnMut(&mut W) -> bool) -> Vec<W> {
        let ended = self
            .workers
            .iter_mut()
            .position(|worker| !has_ended(worker))
            .unwrap_or(self.workers.len());
        self.workers.drain(..ended).collect()
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
        fn pruning_takes_ended_workers_up_to_the_first_living_and_asks_no_further(lives: Vec<bool>) {
            let mut idle = IdleWorkers::default();
            lives.iter().enumerate().for_each(|worker| idle.put(worker));
            let mut asked = 0;
            let pruned = idle.prune(|(_, alive)| { asked += 1; !**alive });
            let ended = lives.iter().take_while(|alive| !**alive).count();
            prop_assert_eq!(pruned.len(), ended);
            prop_assert_eq!(asked, (ended + 1).min(lives.len()));
            prop_assert_eq!(idle.len(), lives.len() - ended);
            let rest: Vec<usize> = idle.drain().into_iter().map(|(at, _)| at).collect();
            prop_assert_eq!(rest, (ended..lives.len()).collect::<Vec<_>>());
        }
    }
}
