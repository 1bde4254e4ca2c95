//! Which of several pending signals is next. Pure.

/// Takes turns: whoever was served last is asked last.
#[derive(Debug)]
pub(super) struct Order {
    count: usize,
    /// Who is asked first.
    first: usize,
}

impl Order {
    pub(super) fn new(count: usize) -> Self {
        Order { count, first: 0 }
    }

    /// Serves the first in turn of whom `pending` holds.
    pub(super) fn serve(&mut self, pending: impl FnMut(&usize) -> bool) -> Option<usize> {
        let served = self.turns().find(pending)?;
        self.first = served + 1;
        Some(served)
    }

    /// All, in the order in which they are asked.
    pub(super) fn turns(&self) -> impl Iterator<Item = usize> + use<> {
        let (count, first) = (self.count, self.first);
        (0..count).map(move |turn| (first + turn) % count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_always_pending_take_turns() {
        let mut order = Order::new(3);
        let served: Vec<_> = (0..7).map(|_| order.serve(|_| true).unwrap()).collect();
        assert_eq!(served, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(order.serve(|_| false), None);
        assert_eq!(order.serve(|&who| who == 0), Some(0));
        assert_eq!(order.serve(|&who| who != 1), Some(2));
    }
}
