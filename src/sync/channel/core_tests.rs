//! Compares the core with a model that is slow and obviously right: each send and receive joins a
//! list first, and a few rules are applied until none applies.

use proptest::prelude::*;

use super::{Core, HandleId};
use crate::sync::channel::error::{RecvError, SendError, TryRecvError, TrySendError};
use crate::sync::locked::Deferred;
use crate::sync::wait_list::{Removed, WaiterKey};

/// A value; each one is different.
type Value = usize;
/// A waiter, which is its own payload.
type Name = usize;

/// One operation. An index selects one of the existing items, modulo their number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    TrySend,
    ClaimSent(usize),
    GiveUpSender(usize),
    Receive(usize),
    TryReceive,
    ClaimReceived(usize),
    GiveUpReceiver(usize),
    OpenSender,
    OpenReceiver,
    CloseSender(usize),
    CloseReceiver(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<usize>;
    prop_oneof![
        8 => index().prop_map(Step::Send),
        2 => Just(Step::TrySend),
        3 => index().prop_map(Step::ClaimSent),
        2 => index().prop_map(Step::GiveUpSender),
        8 => index().prop_map(Step::Receive),
        2 => Just(Step::TryReceive),
        3 => index().prop_map(Step::ClaimReceived),
        4 => index().prop_map(Step::GiveUpReceiver),
        1 => Just(Step::OpenSender),
        1 => Just(Step::OpenReceiver),
        1 => index().prop_map(Step::CloseSender),
        1 => index().prop_map(Step::CloseReceiver),
    ]
}

/// A send in the senders' list, with its result.
#[derive(Clone, Debug)]
struct Sends {
    name: Name,
    handle: HandleId,
    value: Value,
    sent: Option<Result<(), SendError<Value>>>,
}

/// A receive in the receivers' list, with its result.
#[derive(Clone, Debug)]
struct Receives {
    name: Name,
    handle: HandleId,
    received: Option<Result<Value, RecvError>>,
}

#[derive(Debug, Default)]
struct Model {
    capacity: Option<usize>,
    buffer: Vec<Value>,
    /// All values that ever entered, in order.
    entered: Vec<Value>,
    senders: Vec<Sends>,
    receivers: Vec<Receives>,
    open_senders: Vec<HandleId>,
    open_receivers: Vec<HandleId>,
    /// The values that were dropped with the last receiver.
    discarded: Vec<Value>,
}

impl Model {
    /// Applies the rules until none applies; returns the waiters that got a result, in order.
    fn settle(&mut self) -> Vec<Name> {
        std::iter::from_fn(|| self.rule()).flatten().collect()
    }

    /// Applies one rule; `None` if none applies.
    fn rule(&mut self) -> Option<Vec<Name>> {
        let sender = self.senders.iter().position(|who| who.sent.is_none());
        let receiver = self.receivers.iter().position(|who| who.received.is_none());
        let room = self
            .capacity
            .is_none_or(|capacity| self.buffer.len() < capacity);
        if self.open_receivers.is_empty() && !self.buffer.is_empty() {
            self.discarded.append(&mut self.buffer);
            return Some(Vec::new());
        }
        match (sender, receiver) {
            (Some(at), _) if self.open_receivers.is_empty() => {
                let sender = &mut self.senders[at];
                sender.sent = Some(Err(SendError::Broken(sender.value)));
                Some(vec![sender.name])
            }
            (_, Some(at)) if !self.buffer.is_empty() => {
                let receiver = &mut self.receivers[at];
                receiver.received = Some(Ok(self.buffer.remove(0)));
                Some(vec![receiver.name])
            }
            (Some(from), Some(to)) => {
                let (sender, receiver) = (&mut self.senders[from], &mut self.receivers[to]);
                sender.sent = Some(Ok(()));
                receiver.received = Some(Ok(sender.value));
                self.entered.push(sender.value);
                Some(vec![sender.name, receiver.name])
            }
            (Some(at), None) if room => {
                let sender = &mut self.senders[at];
                sender.sent = Some(Ok(()));
                self.entered.push(sender.value);
                self.buffer.push(sender.value);
                Some(vec![sender.name])
            }
            (None, Some(at)) if self.open_senders.is_empty() => {
                let receiver = &mut self.receivers[at];
                receiver.received = Some(Err(RecvError::EndOfChannel));
                Some(vec![receiver.name])
            }
            _ => None,
        }
    }

    /// Puts a value that no receiver saw back to its old position.
    fn put_back(&mut self, value: Value) {
        let entered = |value: &Value| self.entered.iter().position(|known| known == value);
        let place = self
            .buffer
            .iter()
            .position(|other| entered(other) > entered(&value));
        let place = place.unwrap_or(self.buffer.len());
        self.buffer.insert(place, value);
    }
}

struct Pair {
    core: Core<Value, Name>,
    model: Model,
    /// The keys, in the order of the model's lists.
    sender_tickets: Vec<WaiterKey>,
    receiver_tickets: Vec<WaiterKey>,
    next: usize,
}

/// Selects one of them, if there are any.
fn pick(count: usize, index: usize) -> Option<usize> {
    (count > 0).then(|| index % count)
}

impl Pair {
    fn new(capacity: Option<usize>) -> Self {
        let mut pair = Pair {
            core: Core::new(capacity),
            model: Model {
                capacity,
                ..Model::default()
            },
            sender_tickets: Vec::new(),
            receiver_tickets: Vec::new(),
            next: 0,
        };
        pair.take(Step::OpenSender);
        pair.take(Step::OpenReceiver);
        pair
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Send(index) => self.send(Some(index)),
            Step::TrySend => self.send(None),
            Step::ClaimSent(index) => self.claim_sent(index),
            Step::GiveUpSender(index) => self.give_up_sender(index),
            Step::Receive(index) => self.recv(Some(index)),
            Step::TryReceive => self.recv(None),
            Step::ClaimReceived(index) => self.claim_received(index),
            Step::GiveUpReceiver(index) => self.give_up_receiver(index),
            // A handle can only be cloned from an open one, so a closed side stays closed.
            Step::OpenSender if self.next > 0 && self.model.open_senders.is_empty() => (),
            Step::OpenReceiver if self.next > 1 && self.model.open_receivers.is_empty() => (),
            Step::OpenSender => self.model.open_senders.push(self.core.open_sender()),
            Step::OpenReceiver => self.model.open_receivers.push(self.core.open_receiver()),
            Step::CloseSender(index) => self.close_sender(index),
            Step::CloseReceiver(index) => self.close_receiver(index),
        }
        self.next += 1;
        self.compare();
    }

    /// Sends with some open handle; with `None`, without waiting.
    fn send(&mut self, wait: Option<usize>) {
        let Some(at) = pick(self.model.open_senders.len(), wait.unwrap_or(0)) else {
            return;
        };
        let (handle, name) = (self.model.open_senders[at], self.next);
        self.model.senders.push(Sends {
            name,
            handle,
            value: name,
            sent: None,
        });
        let told: Vec<_> = self.model.settle();
        let told: Vec<_> = told.into_iter().filter(|who| *who != name).collect();
        let expected = self.model.senders.last().unwrap().sent;
        match (self.core.try_send(name), expected) {
            (Ok(woken), Some(Ok(()))) => assert_eq!(Vec::from_iter(woken), told),
            (Err(TrySendError::Broken(value)), Some(Err(SendError::Broken(same)))) => {
                assert_eq!(value, same);
            }
            (Err(TrySendError::WouldBlock(value)), None) if wait.is_some() => {
                let key = self.core.push_sender(handle, value, name);
                self.sender_tickets.push(key);
                return;
            }
            (Err(TrySendError::WouldBlock(value)), None) => assert_eq!(value, name),
            (sent, expected) => panic!("{sent:?} instead of {expected:?}"),
        }
        self.model.senders.pop();
    }

    fn recv(&mut self, wait: Option<usize>) {
        let Some(at) = pick(self.model.open_receivers.len(), wait.unwrap_or(0)) else {
            return;
        };
        let (handle, name) = (self.model.open_receivers[at], self.next);
        self.model.receivers.push(Receives {
            name,
            handle,
            received: None,
        });
        let told: Vec<_> = self.model.settle();
        let told: Vec<_> = told.into_iter().filter(|who| *who != name).collect();
        let expected = self.model.receivers.last().unwrap().received;
        match (self.core.try_recv(), expected) {
            (Ok((value, woken)), Some(Ok(same))) => {
                assert_eq!(value, same);
                assert_eq!(Vec::from_iter(woken), told);
            }
            (Err(TryRecvError::EndOfChannel), Some(Err(RecvError::EndOfChannel))) => (),
            (Err(TryRecvError::WouldBlock), None) if wait.is_some() => {
                let key = self.core.push_receiver(handle, name);
                self.receiver_tickets.push(key);
                return;
            }
            (Err(TryRecvError::WouldBlock), None) => (),
            (received, expected) => panic!("{received:?} instead of {expected:?}"),
        }
        self.model.receivers.pop();
    }

    fn claim_sent(&mut self, index: usize) {
        let decided: Vec<_> = (0..self.model.senders.len())
            .filter(|at| self.model.senders[*at].sent.is_some())
            .collect();
        if let Some(at) = pick(decided.len(), index).map(|at| decided[at]) {
            let key = self.sender_tickets.remove(at);
            let expected = self.model.senders.remove(at).sent.unwrap();
            assert_eq!(self.core.claim_sent(key), expected);
        }
    }

    fn give_up_sender(&mut self, index: usize) {
        let Some(at) = pick(self.sender_tickets.len(), index) else {
            return;
        };
        let key = self.sender_tickets.remove(at);
        let who = self.model.senders.remove(at);
        match self.core.give_up_sender(key) {
            Removed::Waiting(sending) => assert_eq!((None, who.value), (who.sent, sending.value)),
            Removed::Granted(sent) => assert_eq!(Some(sent), who.sent),
        }
        assert_eq!(
            self.model.settle(),
            Vec::<usize>::new(),
            "nobody is better off for it"
        );
    }

    fn claim_received(&mut self, index: usize) {
        let decided: Vec<_> = (0..self.model.receivers.len())
            .filter(|at| self.model.receivers[*at].received.is_some())
            .collect();
        if let Some(at) = pick(decided.len(), index).map(|at| decided[at]) {
            let key = self.receiver_tickets.remove(at);
            let expected = self.model.receivers.remove(at).received.unwrap();
            let Removed::Granted(received) = self.core.leave(key) else {
                panic!("it was decided");
            };
            assert_eq!(received.map(|item| item.into_value()), expected);
        }
    }

    fn give_up_receiver(&mut self, index: usize) {
        let Some(at) = pick(self.receiver_tickets.len(), index) else {
            return;
        };
        let key = self.receiver_tickets.remove(at);
        let who = self.model.receivers.remove(at);
        self.model.discarded.clear();
        if let Some(Ok(value)) = who.received {
            self.model.put_back(value);
        }
        let told = self.model.settle();
        let expected = match who.received {
            None => Deferred::Drop(who.name),
            Some(_) => Deferred::wake(told.first().copied()),
        };
        let (then, discarded) = self.core.give_up_receiver(key);
        assert_eq!(then, expected);
        assert_eq!(Vec::from_iter(discarded), self.model.discarded);
    }

    fn close_sender(&mut self, index: usize) {
        let Some(at) = pick(self.model.open_senders.len(), index) else {
            return;
        };
        let handle = self.model.open_senders.remove(at);
        let mut told = Vec::new();
        for who in &mut self.model.senders {
            if who.handle == handle && who.sent.is_none() {
                who.sent = Some(Err(SendError::Closed(who.value)));
                told.push(who.name);
            }
        }
        told.extend(self.model.settle());
        let blocked = !told.is_empty();
        assert_eq!(self.core.close_sender(handle, blocked), told);
    }

    fn close_receiver(&mut self, index: usize) {
        let Some(at) = pick(self.model.open_receivers.len(), index) else {
            return;
        };
        let handle = self.model.open_receivers.remove(at);
        let mut told = Vec::new();
        for who in &mut self.model.receivers {
            if who.handle == handle && who.received.is_none() {
                who.received = Some(Err(RecvError::Closed));
                told.push(who.name);
            }
        }
        self.model.discarded.clear();
        told.extend(self.model.settle());
        let (woken, discarded) = self.core.close_receiver(handle, !told.is_empty());
        assert_eq!(woken, told);
        let discarded: Vec<_> = discarded.into_iter().map(|item| item.value).collect();
        assert_eq!(discarded, self.model.discarded);
    }

    fn compare(&mut self) {
        let buffer: Vec<_> = self.core.buffer.iter().map(|item| item.value).collect();
        assert_eq!(buffer, self.model.buffer);
        let statistics = self.core.statistics();
        assert_eq!(statistics.open_senders, self.model.open_senders.len());
        assert_eq!(statistics.open_receivers, self.model.open_receivers.len());
        let waits = |who: &&Sends| who.sent.is_none();
        let waiting = self.model.senders.iter().filter(waits).count();
        assert_eq!(statistics.waiting_senders, waiting);
        let waits = |who: &&Receives| who.received.is_none();
        let waiting = self.model.receivers.iter().filter(waits).count();
        assert_eq!(statistics.waiting_receivers, waiting);
        for (key, who) in self.sender_tickets.iter().zip(&self.model.senders) {
            let seen = self.core.sender_payload_mut(key).copied();
            assert_eq!(seen, who.sent.is_none().then_some(who.name));
        }
        for (key, who) in self.receiver_tickets.iter().zip(&self.model.receivers) {
            let seen = self.core.receiver_payload_mut(key).copied();
            assert_eq!(seen, who.received.is_none().then_some(who.name));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn the_core_does_what_the_model_does(
        capacity in prop_oneof![4 => (0..4usize).prop_map(Some), 1 => Just(None)],
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut pair = Pair::new(capacity);
        for step in steps {
            pair.take(step);
        }
    }
}
