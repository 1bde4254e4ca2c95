//! The queue against a model that is slow and obviously right: one list of everybody who had to wait, in order of
//! arrival, and a count of what exists.

use proptest::prelude::*;

use super::{Full, Queue};
use crate::sync::guarded::Then;
use crate::sync::wait_list::Ticket;

/// One operation; an index picks one of those that exist, modulo their number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire,
    Claim(usize),
    GiveUp(usize),
    GiveBack,
    Forget,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => Just(Step::Acquire),
        3 => any::<usize>().prop_map(Step::Claim),
        2 => any::<usize>().prop_map(Step::GiveUp),
        3 => Just(Step::GiveBack),
        1 => Just(Step::Forget),
        2 => Just(Step::Release),
    ]
}

/// The model.
#[derive(Debug)]
struct Model {
    /// Permits that exist: free, held by a guard, or granted.
    exist: usize,
    max: usize,
    /// Held by guards.
    held: usize,
    /// Name, and whether a permit is theirs.
    waiters: Vec<(usize, bool)>,
}

impl Model {
    fn taken(&self) -> usize {
        self.held + self.waiters.iter().filter(|(_, granted)| *granted).count()
    }

    fn free(&self) -> usize {
        self.exist - self.taken()
    }

    fn waiting(&self) -> usize {
        self.waiters.iter().filter(|(_, granted)| !granted).count()
    }

    /// Gives a free permit to the longest waiter, if there are both; who got it.
    fn admit(&mut self) -> Option<usize> {
        if self.free() == 0 {
            return None;
        }
        let first = self.waiters.iter_mut().find(|(_, granted)| !granted)?;
        first.1 = true;
        Some(first.0)
    }
}

/// Both, side by side, and the tickets of those who wait or are granted.
struct Pair {
    queue: Queue<usize>,
    model: Model,
    tickets: Vec<(usize, Ticket)>,
    next_name: usize,
}

impl Pair {
    fn take(&mut self, step: Step) {
        match step {
            Step::Acquire => self.acquire(),
            Step::Claim(index) => self.claim(index),
            Step::GiveUp(index) => self.give_up(index),
            Step::GiveBack if self.model.held > 0 => {
                self.model.held -= 1;
                assert_eq!(self.queue.give_back(), self.model.admit());
            }
            Step::Forget if self.model.held > 0 => {
                self.model.held -= 1;
                self.model.exist -= 1;
                self.queue.forget();
            }
            Step::GiveBack | Step::Forget => (),
            Step::Release => self.release(),
        }
        self.compare();
    }

    fn acquire(&mut self) {
        let free = self.model.free() > 0;
        assert_eq!(self.queue.try_take(), free);
        if free {
            self.model.held += 1;
        } else {
            let name = self.next_name;
            self.next_name += 1;
            self.model.waiters.push((name, false));
            self.tickets.push((name, self.queue.push(name)));
        }
    }

    fn claim(&mut self, index: usize) {
        let granted: Vec<_> = (0..self.tickets.len())
            .filter(|at| self.model.waiters[*at].1)
            .collect();
        if !granted.is_empty() {
            let at = granted[index % granted.len()];
            let (_, ticket) = self.tickets.remove(at);
            self.model.waiters.remove(at);
            self.queue.claim(ticket);
            self.model.held += 1;
        }
    }

    fn give_up(&mut self, index: usize) {
        if self.tickets.is_empty() {
            return;
        }
        let at = index % self.tickets.len();
        let (name, ticket) = self.tickets.remove(at);
        let (_, granted) = self.model.waiters.remove(at);
        let expected = if granted {
            Then::wake(self.model.admit())
        } else {
            Then::Drop(name)
        };
        assert_eq!(self.queue.give_up(ticket), expected);
    }

    fn release(&mut self) {
        if self.model.exist == self.model.max {
            assert_eq!(self.queue.release(), Err(Full));
        } else {
            self.model.exist += 1;
            assert_eq!(self.queue.release(), Ok(self.model.admit()));
        }
    }

    fn compare(&mut self) {
        assert_eq!(self.queue.free(), self.model.free());
        assert_eq!(self.queue.held(), self.model.taken());
        assert_eq!(self.queue.waiting(), self.model.waiting());
        assert!(self.queue.free() == 0 || self.queue.waiting() == 0);
        for (at, (name, ticket)) in self.tickets.iter().enumerate() {
            let waits = !self.model.waiters[at].1;
            let seen = self.queue.payload_mut(ticket).copied();
            assert_eq!(seen, waits.then_some(*name));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn the_queue_does_what_the_model_does(
        free in 0..3usize,
        above in 0..3usize,
        steps in proptest::collection::vec(step(), 0..100),
    ) {
        let max = free + above;
        let mut pair = Pair {
            queue: Queue::new(free, max),
            model: Model { exist: free, max, held: 0, waiters: Vec::new() },
            tickets: Vec::new(),
            next_name: 0,
        };
        for step in steps {
            pair.take(step);
        }
        while !pair.tickets.is_empty() {
            pair.take(Step::GiveUp(0));
        }
        while pair.model.held > 0 {
            pair.take(Step::GiveBack);
        }
        assert_eq!(pair.queue.free(), pair.model.exist);
    }
}
