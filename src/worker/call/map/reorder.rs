//! Brings results into the order of their items. Pure.

use std::collections::VecDeque;

/// Results that wait for those before them.
#[derive(Debug)]
pub(super) struct Reorder<T> {
    /// The index of the first slot.
    next: usize,
    slots: VecDeque<Option<T>>,
}

impl<T> Reorder<T> {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            slots: VecDeque::new(),
        }
    }

    /// Lets the result with this index, which has come, pass if it is next and no other waits.
    pub(super) fn passes(&mut self, index: usize) -> bool {
        let passes = index == self.next && self.slots.is_empty();
        self.next += usize::from(passes);
        passes
    }

    /// Adds the result with this index. Each index comes once.
    pub(super) fn insert(&mut self, index: usize, value: T) {
        let at = index.checked_sub(self.next).expect("no index comes twice");
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || None);
        }
        debug_assert!(self.slots[at].is_none(), "no index comes twice");
        self.slots[at] = Some(value);
    }

    /// Removes the result that is next in the order, if it has come. Returns its index, too.
    pub(super) fn pop(&mut self) -> Option<(usize, T)> {
        let value = self.slots.front_mut()?.take()?;
        self.slots.pop_front();
        self.next += 1;
        Some((self.next - 1, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// The model is a map in which one searches for the next index.
        #[test]
        fn results_leave_in_the_order_of_their_items_as_soon_as_they_can(
            order in Just((0..40_usize).collect::<Vec<_>>()).prop_shuffle(),
            pops: Vec<bool>,
        ) {
            let (mut reorder, mut model, mut next) = (Reorder::new(), BTreeMap::new(), 0);
            for (step, index) in order.into_iter().enumerate() {
                if reorder.passes(index) {
                    prop_assert!(model.is_empty() && index == next);
                    next += 1;
                    continue;
                }
                prop_assert!(!model.is_empty() || index != next);
                reorder.insert(index, 7 * index);
                model.insert(index, 7 * index);
                if pops.get(step).copied().unwrap_or(true) {
                    while let Some(expected) = model.remove(&next) {
                        prop_assert_eq!(reorder.pop(), Some((next, expected)));
                        next += 1;
                    }
                    prop_assert_eq!(reorder.pop(), None);
                }
            }
            let rest: Vec<_> = std::iter::from_fn(|| reorder.pop()).collect();
            prop_assert_eq!(rest, (next..40).map(|n| (n, 7 * n)).collect::<Vec<_>>());
        }
    }
}
