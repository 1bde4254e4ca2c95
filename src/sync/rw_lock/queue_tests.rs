//! Compares the queue with a model that is slow and obviously right: one list of all waiters, read
//! from the front.

use proptest::prelude::*;

use super::{Held, Mode, Queue, WaiterKey};
use crate::sync::locked::Deferred;

/// One operation. An index selects one of the existing waiters, modulo their number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Try(bool),
    Acquire(bool),
    Claim(usize),
    GiveUp(usize),
    Release(usize),
    SetBias(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => any::<bool>().prop_map(Step::Try),
        6 => any::<bool>().prop_map(Step::Acquire),
        3 => any::<usize>().prop_map(Step::Claim),
        2 => any::<usize>().prop_map(Step::GiveUp),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<bool>().prop_map(Step::SetBias),
    ]
}

fn mode(write: bool) -> Mode {
    if write { Mode::Write } else { Mode::Read }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    Granted,
    Holds,
}

/// All waiters and holders, in order of arrival.
#[derive(Debug)]
struct Model {
    read_biased: bool,
    people: Vec<(usize, Mode, State)>,
}

impl Model {
    fn inside(&self, wanted: Mode) -> usize {
        self.people
            .iter()
            .filter(|(_, mode, state)| *mode == wanted && *state != State::Waits)
            .count()
    }

    fn waiting(&self, wanted: Mode) -> usize {
        self.people
            .iter()
            .filter(|(_, mode, state)| *mode == wanted && *state == State::Waits)
            .count()
    }

    fn held(&self) -> Held {
        match (self.inside(Mode::Read), self.inside(Mode::Write)) {
            (0, 0) => Held::Free,
            (readers, 0) => Held::Reading(readers),
            (0, 1) => Held::Writing,
            inside => panic!("{inside:?} readers and writers at once"),
        }
    }

    /// Whether a waiter behind the first `before` entries may enter now.
    fn may(&self, wanted: Mode, before: usize) -> bool {
        let overtakes = self.people[..before]
            .iter()
            .any(|(_, _, state)| *state == State::Waits);
        match (wanted, self.held()) {
            (_, Held::Writing) | (Mode::Write, Held::Reading(_)) => false,
            (Mode::Read, Held::Reading(_)) => self.read_biased || !overtakes,
            (_, Held::Free) => !overtakes,
        }
    }

    /// Admits waiters one at a time, always the first that may enter.
    fn admit(&mut self) -> Vec<usize> {
        let mut admitted = Vec::new();
        while let Some(at) = (0..self.people.len()).find(|at| {
            let (_, mode, state) = self.people[*at];
            state == State::Waits && self.may(mode, *at)
        }) {
            self.people[at].2 = State::Granted;
            admitted.push(self.people[at].0);
        }
        admitted
    }

    /// Selects an entry in this state, if there is one.
    fn pick(&self, wanted: State, index: usize) -> Option<usize> {
        let all: Vec<_> = (0..self.people.len())
            .filter(|at| self.people[*at].2 == wanted)
            .collect();
        (!all.is_empty()).then(|| all[index % all.len()])
    }
}

struct Pair {
    queue: Queue<usize>,
    model: Model,
    keys: Vec<(usize, WaiterKey)>,
    next_name: usize,
}

impl Pair {
    fn take(&mut self, step: Step) {
        match step {
            Step::Try(write) => drop(self.try_take(mode(write))),
            Step::Acquire(write) => self.acquire(mode(write)),
            Step::Claim(index) => self.claim(index),
            Step::GiveUp(index) => self.give_up(index),
            Step::Release(index) => self.release(index),
            Step::SetBias(read_biased) => {
                self.model.read_biased = read_biased;
                assert_eq!(self.queue.set_read_biased(read_biased), self.model.admit());
            }
        }
        self.compare();
    }

    fn try_take(&mut self, mode: Mode) -> bool {
        let may = self.model.may(mode, self.model.people.len());
        assert_eq!(self.queue.try_take(mode), may);
        if may {
            self.come(mode, State::Holds);
        }
        may
    }

    fn acquire(&mut self, mode: Mode) {
        if !self.try_take(mode) {
            let name = self.come(mode, State::Waits);
            self.keys.push((name, self.queue.push(mode, name)));
        }
    }

    fn come(&mut self, mode: Mode, state: State) -> usize {
        let name = self.next_name;
        self.next_name += 1;
        self.model.people.push((name, mode, state));
        name
    }

    fn key(&mut self, name: usize) -> WaiterKey {
        let at = self.keys.iter().position(|(known, _)| *known == name);
        self.keys.remove(at.expect("whoever waits has a place")).1
    }

    fn claim(&mut self, index: usize) {
        if let Some(at) = self.model.pick(State::Granted, index) {
            self.model.people[at].2 = State::Holds;
            let key = self.key(self.model.people[at].0);
            self.queue.claim(key);
        }
    }

    fn give_up(&mut self, index: usize) {
        if self.keys.is_empty() {
            return;
        }
        let (name, key) = self.keys.remove(index % self.keys.len());
        let at = self.model.people.iter().position(|person| person.0 == name);
        let (_, _, state) = self.model.people.remove(at.unwrap());
        let own = match state {
            State::Waits => Deferred::Drop(name),
            State::Granted | State::Holds => Deferred::Nothing,
        };
        assert_eq!(self.queue.give_up(key), (own, self.model.admit()));
    }

    fn release(&mut self, index: usize) {
        if let Some(at) = self.model.pick(State::Holds, index) {
            self.model.people.remove(at);
            assert_eq!(self.queue.release(), self.model.admit());
        }
    }

    fn compare(&mut self) {
        assert_eq!(self.queue.held(), self.model.held());
        assert_eq!(self.queue.is_read_biased(), self.model.read_biased);
        for mode in [Mode::Read, Mode::Write] {
            assert_eq!(self.queue.waiting(mode), self.model.waiting(mode));
        }
        for (name, key) in &self.keys {
            let waits = self
                .model
                .people
                .iter()
                .any(|person| person.0 == *name && person.2 == State::Waits);
            let seen = self.queue.payload_mut(key).copied();
            assert_eq!(seen, waits.then_some(*name));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn the_queue_does_what_the_model_does(
        read_biased: bool,
        steps in proptest::collection::vec(step(), 0..100),
    ) {
        let mut pair = Pair {
            queue: Queue::new(read_biased),
            model: Model { read_biased, people: Vec::new() },
            keys: Vec::new(),
            next_name: 0,
        };
        for step in steps {
            pair.take(step);
        }
        while !pair.model.people.is_empty() {
            pair.take(Step::GiveUp(0));
            pair.take(Step::Release(0));
        }
        assert_eq!(pair.queue.held(), Held::Free);
    }
}
