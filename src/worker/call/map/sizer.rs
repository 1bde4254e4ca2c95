//! Decides how many items a chunk has, and how many items may be under way. Pure.

use std::time::Duration;

use crate::worker::tuning::{
    MAP_CHUNK_GROWTH, MAP_CHUNK_TARGET, MAP_LARGEST_CHUNK, MAP_LARGEST_WINDOW_PER_WORKER,
    MAP_SMALLEST_WINDOW_PER_WORKER,
};

/// The size of chunks, from the time that items take.
#[derive(Debug)]
pub(super) struct ChunkSizer {
    /// The size that the program has set.
    fixed: Option<usize>,
    /// The estimated nanoseconds of an item; `None` before the first measurement.
    per_item: Option<f64>,
    /// The size of the last chunk that was not shortened for the end.
    last: usize,
}

impl ChunkSizer {
    pub(super) fn new(fixed: Option<usize>) -> Self {
        Self {
            fixed,
            per_item: None,
            last: 0,
        }
    }

    /// Notes that a worker needed this time for some items.
    pub(super) fn observe(&mut self, items: u64, took: Duration) {
        if items == 0 {
            return;
        }
        let per_item = took.as_nanos() as f64 / items as f64;
        // A chunk that is too long delays the end; one that is too short costs little.
        self.per_item = Some(match self.per_item {
            Some(before) if before > per_item => (before + per_item) / 2.0,
            _ => per_item,
        });
    }

    /// Returns the size of the next chunk. `left` is the number of items that are left, if that is
    /// known.
    pub(super) fn next(&mut self, left: Option<usize>, workers: usize) -> usize {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let target = self.per_item.map_or(1, |per_item| {
            let fit = MAP_CHUNK_TARGET.as_nanos() as f64 / per_item.max(1.0);
            fit as usize // saturates
        });
        let most = self.last.saturating_mul(MAP_CHUNK_GROWTH).max(1);
        self.last = target.clamp(1, MAP_LARGEST_CHUNK).min(most);
        // Towards the end, each worker gets a part of a fair share, so that all end together.
        let share = left.map_or(usize::MAX, |left| left.div_ceil(2 * workers));
        self.last.min(share).max(1)
    }

    /// Estimates how long a worker needs for this many items.
    pub(super) fn time_of(&self, items: usize) -> Option<Duration> {
        let nanos = self.per_item? * items as f64;
        Some(Duration::from_nanos(nanos as u64)) // saturates
    }

    /// Returns how many items may have been pulled whose results have not been taken.
    pub(super) fn window(&self, workers: usize) -> usize {
        let chunk = self.fixed.unwrap_or(self.last).max(1);
        let least = workers.saturating_mul(MAP_SMALLEST_WINDOW_PER_WORKER);
        let most = workers.saturating_mul(MAP_LARGEST_WINDOW_PER_WORKER);
        // Two chunks for each worker, and as many results that wait to be taken.
        workers
            .saturating_mul(chunk.saturating_mul(4))
            .clamp(least, most.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs chunks of items that take this long each, until the size is steady.
    fn steady(per_item: Duration) -> usize {
        let mut sizer = ChunkSizer::new(None);
        for _ in 0..30 {
            let size = sizer.next(None, 2);
            sizer.observe(size as u64, per_item * size as u32);
        }
        sizer.next(None, 2)
    }

    #[test]
    fn chunks_take_about_a_millisecond() {
        assert_eq!(steady(Duration::from_millis(20)), 1);
        assert_eq!(steady(Duration::from_millis(1)), 1);
        assert_eq!(steady(Duration::from_micros(10)), 100);
        assert_eq!(steady(Duration::from_nanos(1000)), 1000);
        assert_eq!(steady(Duration::from_nanos(1)), MAP_LARGEST_CHUNK);
    }

    #[test]
    fn times_are_estimated_after_a_measurement() {
        let mut sizer = ChunkSizer::new(None);
        assert_eq!(sizer.time_of(1), None);
        sizer.observe(10, Duration::from_micros(20));
        assert_eq!(sizer.time_of(500), Some(Duration::from_millis(1)));
    }

    #[test]
    fn the_first_chunks_are_small_and_a_slow_one_shrinks_the_next_at_once() {
        let mut sizer = ChunkSizer::new(None);
        assert_eq!(sizer.next(None, 2), 1);
        sizer.observe(1, Duration::from_nanos(100));
        assert_eq!(sizer.next(None, 2), MAP_CHUNK_GROWTH);
        sizer.observe(8, Duration::from_secs(1));
        assert_eq!(sizer.next(None, 2), 1);
    }

    #[test]
    fn chunks_shrink_towards_the_end_and_cover_all_items() {
        let mut sizer = ChunkSizer::new(None);
        for _ in 0..30 {
            sizer.next(None, 4);
            sizer.observe(1000, Duration::from_micros(1000));
        }
        let (mut left, mut sizes) = (10_000, Vec::new());
        while left > 0 {
            let size = sizer.next(Some(left), 4);
            sizes.push(size);
            left -= size;
        }
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
        assert_eq!((sizes[0], sizes[sizes.len() - 1]), (1000, 1));
    }

    proptest! {
        #[test]
        fn a_chunk_has_an_item_and_never_more_than_are_left(
            seen: Vec<(u32, u64)>,
            left in 1_usize..100_000,
            workers in 1_usize..100,
        ) {
            let mut sizer = ChunkSizer::new(None);
            for (items, nanos) in seen {
                sizer.observe(u64::from(items), Duration::from_nanos(nanos));
                let size = sizer.next(Some(left), workers);
                prop_assert!(size >= 1 && size <= left.min(MAP_LARGEST_CHUNK));
                let window = sizer.window(workers);
                prop_assert!(window >= 2 * size.min(MAP_LARGEST_WINDOW_PER_WORKER / 2));
                prop_assert!(window <= workers * MAP_LARGEST_WINDOW_PER_WORKER);
            }
        }

        #[test]
        fn a_size_that_the_program_sets_is_kept(size in 1_usize..100_000, workers in 1_usize..9) {
            let mut sizer = ChunkSizer::new(Some(size));
            sizer.observe(3, Duration::from_secs(3));
            prop_assert_eq!(sizer.next(Some(1), workers), size);
        }
    }
}
