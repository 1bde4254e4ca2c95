//! Which idle worker is used next, and which are dropped: the cache's decisions, without any process in them.
//!
//! Last in, first out. The worker that was used last has the warmest caches, and the one that nobody needed reaches its
//! idle timeout, so that after a burst the number of workers falls to what is in use. The old end is where the dead
//! gather; [`prune`](Cache::prune) looks there and stops at the first that lives, so it costs nothing in the usual case.
//!
//! What a worker is, and whether it lives, is the caller's to say.

/// Idle workers, the one used last on top.
#[derive(Debug)]
pub(in crate::worker) struct Cache<W> {
    /// Oldest first.
    idle: Vec<W>,
}

impl<W> Default for Cache<W> {
    fn default() -> Self {
        Self { idle: Vec::new() }
    }
}

impl<W> Cache<W> {
    /// Puts in a worker that was just used.
    pub(in crate::worker) fn put(&mut self, worker: W) {
        self.idle.push(worker);
    }

    /// Takes out the worker that was used last.
    pub(in crate::worker) fn draw(&mut self) -> Option<W> {
        self.idle.pop()
    }

    /// Takes out those workers at the old end that are `spent`, up to the first that is not.
    pub(in crate::worker) fn prune(&mut self, spent: impl FnMut(&mut W) -> bool) -> Vec<W> {
        let mut spent = spent;
        let live = self
            .idle
            .iter_mut()
            .position(|worker| !spent(worker))
            .unwrap_or(self.idle.len());
        self.idle.drain(..live).collect()
    }

    /// Takes all workers out.
    pub(in crate::worker) fn empty(&mut self) -> Vec<W> {
        std::mem::take(&mut self.idle)
    }

    pub(in crate::worker) fn len(&self) -> usize {
        self.idle.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_worker_used_last_is_drawn_first() {
        let mut cache = Cache::default();
        cache.put("cold");
        cache.put("warm");
        assert_eq!(cache.draw(), Some("warm"));
        cache.put("warm");
        assert_eq!(cache.draw(), Some("warm"));
        assert_eq!(cache.draw(), Some("cold"));
        assert_eq!(cache.draw(), None);
    }

    proptest! {
        #[test]
        fn pruning_takes_the_dead_before_the_first_living_and_asks_no_further(lives: Vec<bool>) {
            let mut cache = Cache::default();
            lives.iter().enumerate().for_each(|worker| cache.put(worker));
            let mut asked = 0;
            let pruned = cache.prune(|(_, alive)| { asked += 1; !**alive });
            let dead = lives.iter().take_while(|alive| !**alive).count();
            prop_assert_eq!(pruned.len(), dead);
            prop_assert_eq!(asked, (dead + 1).min(lives.len()));
            prop_assert_eq!(cache.len(), lives.len() - dead);
            let rest: Vec<usize> = cache.empty().into_iter().map(|(at, _)| at).collect();
            prop_assert_eq!(rest, (dead..lives.len()).collect::<Vec<_>>());
        }
    }
}
