//! Selects the next of several pending signals.

/// Round robin: the index that was selected last is checked last.
#[derive(Debug)]
pub(super) struct RoundRobin {
    count: usize,
    /// The index that is checked first.
    first: usize,
}

impl RoundRobin {
    pub(super) fn new(count: usize) -> Self {
        RoundRobin { count, first: 0 }
    }

    /// Selects the first pending index in turn.
    pub(super) fn next(&mut self, pending: impl FnMut(&usize) -> bool) -> Option<usize> {
        let served = self.indices().find(pending)?;
        self.first = served + 1;
        Some(served)
    }

    /// Returns all indices in the order in which they are checked.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> + use<> {
        let (count, first) = (self.count, self.first);
        (0..count).map(move |turn| (first + turn) % count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_always_pending_take_turns() {
        let mut order = RoundRobin::new(3);
        let served: Vec<_> = (0..7).map(|_| order.next(|_| true).unwrap()).collect();
        assert_eq!(served, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(order.next(|_| false), None);
        assert_eq!(order.next(|&index| index == 0), Some(0));
        assert_eq!(order.next(|&index| index != 1), Some(2));
    }
}
