//! Compares the queue with a model that is slow and obviously right: one list of all waiters,
//! searched from the front.
//!
//! Each test runs random operations. After each operation, both must agree on the waiters that were
//! granted a token, on their order, and on every number. The queue's invariants (conservation,
//! hand-off) are checked on the model.

use proptest::prelude::*;

use super::{Full, TokenQueue};
use crate::sync::locked::Deferred;
use crate::sync::wait_list::WaiterKey;

/// One operation. An index selects one of the existing waiters, modulo their number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire,
    /// Bypasses the queue, as the fast path of `TokenPool` does without waiters.
    TakeWithoutTheQueue,
    GiveBackWithoutTheQueue,
    Claim(usize),
    GiveUp(usize),
    GiveBack,
    SetTotal(Option<usize>),
    Create(usize),
    Destroy,
}

fn step() -> impl Strategy<Value = Step> {
    let total = prop_oneof![9 => (0..6usize).prop_map(Some), 1 => Just(None)];
    prop_oneof![
        5 => Just(Step::Acquire),
        2 => Just(Step::TakeWithoutTheQueue),
        1 => Just(Step::GiveBackWithoutTheQueue),
        3 => any::<usize>().prop_map(Step::Claim),
        2 => any::<usize>().prop_map(Step::GiveUp),
        3 => Just(Step::GiveBack),
        1 => total.prop_map(Step::SetTotal),
        2 => (0..8usize).prop_map(Step::Create),
        1 => Just(Step::Destroy),
    ]
}

/// The model: held tokens, and all waiters that have neither claimed nor left, in order of arrival.
#[derive(Debug, Default)]
struct Model {
    total: Option<usize>,
    held: usize,
    /// Name, and whether the waiter was granted a token.
    waiters: Vec<(usize, bool)>,
}

impl Model {
    fn taken(&self) -> usize {
        self.held + self.waiters.iter().filter(|(_, granted)| *granted).count()
    }

    fn waiting(&self) -> usize {
        self.waiters.iter().filter(|(_, granted)| !granted).count()
    }

    fn free(&self) -> bool {
        self.total.is_none_or(|total| self.taken() < total)
    }

    /// Gives free tokens to the longest waiters; returns them in order.
    fn admit(&mut self) -> Vec<usize> {
        let mut admitted = Vec::new();
        while self.free() {
            let Some(first) = self.waiters.iter_mut().find(|(_, granted)| !granted) else {
                break;
            };
            first.1 = true;
            admitted.push(first.0);
        }
        admitted
    }

    /// Removes the waiter; returns whether it was granted a token.
    fn leave(&mut self, name: usize) -> bool {
        let place = self.waiters.iter().position(|(known, _)| *known == name);
        self.waiters
            .remove(place.expect("the model knows every waiter"))
            .1
    }
}

/// The queue, the model, and the keys of all waiters.
struct Pair {
    queue: TokenQueue<usize>,
    model: Model,
    waiters: Vec<(usize, WaiterKey)>,
    /// The name of the next waiter, which is also its payload.
    next_name: usize,
}

impl Pair {
    fn new(total: Option<usize>) -> Self {
        let model = Model {
            total,
            ..Model::default()
        };
        Pair {
            queue: TokenQueue::new(total),
            model,
            waiters: Vec::new(),
            next_name: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Acquire => self.acquire(),
            Step::TakeWithoutTheQueue => self.take_without_the_queue(),
            Step::GiveBackWithoutTheQueue => self.give_back_without_the_queue(),
            Step::Claim(index) => self.claim(index),
            Step::GiveUp(index) => self.give_up(index),
            Step::GiveBack => self.give_back(),
            Step::SetTotal(total) => self.set_total(total),
            Step::Create(max) => self.create(max),
            Step::Destroy => self.destroy(),
        }
        self.compare();
    }

    fn acquire(&mut self) {
        let free = self.model.free() && self.model.waiting() == 0;
        assert_eq!(self.queue.try_take(), free);
        if free {
            self.model.held += 1;
        } else {
            let name = self.next_name;
            self.next_name += 1;
            self.model.waiters.push((name, false));
            self.waiters.push((name, self.queue.push(name)));
        }
    }

    fn take_without_the_queue(&mut self) {
        if let Some(less) = self
            .queue
            .free_for_all()
            .and_then(|free| free.checked_sub(1))
        {
            assert!(self.model.free() && self.model.waiting() == 0);
            self.model.held += 1;
            self.queue.set_free(less);
        }
    }

    fn give_back_without_the_queue(&mut self) {
        if let Some(free) = self.queue.free_for_all()
            && self.model.held > 0
        {
            self.model.held -= 1;
            assert!(self.model.admit().is_empty());
            self.queue.set_free(free + 1);
        }
    }

    /// A granted waiter claims its token.
    fn claim(&mut self, index: usize) {
        let granted = |(name, _): &(usize, WaiterKey)| self.model.waiters.contains(&(*name, true));
        let granted: Vec<_> = (0..self.waiters.len())
            .filter(|at| granted(&self.waiters[*at]))
            .collect();
        if !granted.is_empty() {
            let (name, key) = self.waiters.remove(granted[index % granted.len()]);
            self.queue.claim(key);
            assert!(self.model.leave(name));
            self.model.held += 1;
        }
    }

    /// Any waiter leaves.
    fn give_up(&mut self, index: usize) {
        if self.waiters.is_empty() {
            return;
        }
        let (name, key) = self.waiters.remove(index % self.waiters.len());
        let expected = if self.model.leave(name) {
            Deferred::wake(self.model.admit().pop())
        } else {
            Deferred::Drop(name)
        };
        assert_eq!(self.queue.give_up(key), expected);
    }

    fn give_back(&mut self) {
        if self.model.held > 0 {
            self.model.held -= 1;
            assert_eq!(Vec::from_iter(self.queue.give_back()), self.model.admit());
        }
    }

    fn create(&mut self, max: usize) {
        if self.model.total.is_some_and(|total| total >= max) {
            assert_eq!(self.queue.create(max), Err(Full));
        } else {
            self.model.total = self.model.total.map(|total| total + 1);
            let granted = self.queue.create(max).expect("there is room");
            assert_eq!(Vec::from_iter(granted), self.model.admit());
        }
    }

    fn destroy(&mut self) {
        // A limiter's total may have been lowered below the number of taken tokens; a semaphore's
        // never is.
        if self.model.held > 0 && self.model.total != Some(0) {
            self.model.held -= 1;
            self.model.total = self.model.total.map(|total| total - 1);
            self.queue.destroy();
        }
    }

    fn set_total(&mut self, total: Option<usize>) {
        self.model.total = total;
        assert_eq!(self.queue.set_total(total), self.model.admit());
    }

    /// Compares every number, and the state of each waiter.
    fn compare(&mut self) {
        assert_eq!(self.queue.total(), self.model.total);
        assert_eq!(self.queue.taken(), self.model.taken(), "conservation");
        assert_eq!(self.queue.waiting(), self.model.waiting());
        assert!(!self.model.free() || self.queue.waiting() == 0, "hand-off");
        let free = match self.model.total {
            _ if self.model.waiting() > 0 => None,
            Some(total) => total.checked_sub(self.model.taken()),
            None => Some(usize::MAX - 1 - self.model.taken()),
        };
        assert_eq!(self.queue.free_for_all(), free);
        for (name, key) in &self.waiters {
            let waits = self.model.waiters.contains(&(*name, false));
            assert_eq!(self.queue.payload_mut(key).copied(), waits.then_some(*name));
        }
    }

    /// All waiters leave and return their tokens; then the queue must be empty.
    fn finish(mut self) {
        while !self.waiters.is_empty() {
            self.give_up(0);
            self.compare();
        }
        while self.model.held > 0 {
            self.give_back();
        }
        assert_eq!((self.queue.taken(), self.queue.waiting()), (0, 0));
    }
}

proptest! {
    // No regression files next to the sources: a failure prints its steps anyway.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn the_queue_does_what_the_model_does(
        total in 0..4usize,
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut pair = Pair::new(Some(total));
        for step in steps {
            pair.take(step);
        }
        pair.finish();
    }
}
