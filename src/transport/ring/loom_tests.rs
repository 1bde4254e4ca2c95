//! Models of a ring: each message arrives once, whole and in order, and no side sleeps forever.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};

use super::consumer::Consumer;
use super::producer::Producer;
use super::shared::{Header, Ring, Status, WORD};
use crate::sys::model::{check, spawn};

/// Room for two fragments of one word.
type SmallRing = Ring<4>;

/// Stands for one end of the socket pair.
struct Socket {
    state: Mutex<SocketState>,
    changed: Condvar,
}

#[derive(Default)]
struct SocketState {
    wake_ups: usize,
    is_hung_up: bool,
}

impl Socket {
    fn new() -> Self {
        Socket {
            state: Mutex::new(SocketState::default()),
            changed: Condvar::new(),
        }
    }

    fn wake(&self) {
        self.state.lock().unwrap().wake_ups += 1;
        self.changed.notify_one();
    }

    fn hang_up(&self) {
        self.state.lock().unwrap().is_hung_up = true;
        self.changed.notify_one();
    }

    /// Sleeps until the socket is readable.
    fn sleep(&self) {
        let mut state = self.state.lock().unwrap();
        while state.wake_ups == 0 && !state.is_hung_up {
            state = self.changed.wait(state).unwrap();
        }
    }

    /// Reads all packets, and returns whether the peer has hung up.
    fn drain(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.wake_ups = 0;
        state.is_hung_up
    }
}

struct Channel {
    ring: SmallRing,
    to_sender: Socket,
    to_receiver: Socket,
}

/// The end of what a receiver gets.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    PeerGone,
}

impl Channel {
    fn new() -> Arc<Self> {
        Arc::new(Channel {
            ring: SmallRing::default(),
            to_sender: Socket::new(),
            to_receiver: Socket::new(),
        })
    }

    fn wake(peer: &Status, socket: &Socket) {
        if peer.take_parked() {
            socket.wake();
        }
    }

    /// Commits a message, and sleeps while there is no room for it.
    fn commit(&self, producer: &mut Producer, message: u8) {
        let header = Header {
            length: WORD,
            is_first: true,
            is_last: true,
            fds: 0,
        };
        loop {
            if let Some(room) = producer.reserve(&self.ring, header).unwrap() {
                return room.commit(&[message; WORD]);
            }
            self.ring.producer.park();
            if !producer.is_changed(&self.ring) {
                self.to_sender.sleep();
            }
            self.ring.producer.unpark();
            self.to_sender.drain();
        }
    }

    fn send(&self, producer: &mut Producer, message: u8) {
        self.commit(producer, message);
        Self::wake(&self.ring.consumer, &self.to_receiver);
    }

    fn close(&self) {
        self.ring.producer.close();
        Self::wake(&self.ring.consumer, &self.to_receiver);
    }

    fn receive(&self, consumer: &mut Consumer, is_gone: &mut bool) -> Result<u8, End> {
        loop {
            let is_closed = self.ring.producer.is_closed();
            if let Some(fragment) = consumer.next(&self.ring).unwrap() {
                let mut bytes = Vec::new();
                fragment.take_onto(&mut bytes);
                Self::wake(&self.ring.producer, &self.to_sender);
                assert_eq!(bytes, [bytes[0]; WORD], "the message is whole");
                return Ok(bytes[0]);
            }
            if is_closed {
                return Err(End::Closed);
            }
            if *is_gone {
                return Err(End::PeerGone);
            }
            self.ring.consumer.park();
            if !consumer.is_changed(&self.ring) {
                self.to_receiver.sleep();
            }
            self.ring.consumer.unpark();
            *is_gone = self.to_receiver.drain();
        }
    }

    /// Receives until the end.
    fn receive_all(&self) -> (Vec<u8>, End) {
        let (mut consumer, mut received, mut is_gone) = (Consumer::new(), Vec::new(), false);
        loop {
            match self.receive(&mut consumer, &mut is_gone) {
                Ok(message) => received.push(message),
                Err(end) => return (received, end),
            }
        }
    }
}

#[test]
fn messages_arrive_in_order_through_a_ring_that_is_smaller_than_they_are_together() {
    check(|| {
        let channel = Channel::new();
        let sender = {
            let channel = channel.clone();
            spawn(move || {
                let mut producer = Producer::new(2);
                for message in 1..=3 {
                    channel.send(&mut producer, message);
                }
            })
        };
        let (mut consumer, mut is_gone) = (Consumer::new(), false);
        for message in 1..=3 {
            assert_eq!(channel.receive(&mut consumer, &mut is_gone), Ok(message));
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_sender_with_a_capacity_of_one_waits_for_each_message_to_be_taken() {
    check(|| {
        let channel = Channel::new();
        let sender = {
            let channel = channel.clone();
            spawn(move || {
                let mut producer = Producer::new(1);
                channel.send(&mut producer, 1);
                channel.send(&mut producer, 2);
                channel.close();
            })
        };
        assert_eq!(channel.receive_all(), (vec![1, 2], End::Closed));
        sender.join().unwrap();
    });
}

#[test]
fn a_close_wakes_a_receiver_which_gets_what_was_sent_before() {
    check(|| {
        let channel = Channel::new();
        let sender = {
            let channel = channel.clone();
            spawn(move || {
                channel.send(&mut Producer::new(2), 7);
                channel.close();
            })
        };
        assert_eq!(channel.receive_all(), (vec![7], End::Closed));
        sender.join().unwrap();
    });
}

#[test]
fn a_sender_that_is_killed_before_it_wakes_the_receiver_leaves_what_it_committed() {
    check(|| {
        let channel = Channel::new();
        let sender = {
            let channel = channel.clone();
            spawn(move || {
                channel.commit(&mut Producer::new(2), 7);
                // Killed: it has cleared the flag, and its packet was not sent.
                let _ = channel.ring.consumer.take_parked();
                channel.to_receiver.hang_up();
            })
        };
        assert_eq!(channel.receive_all(), (vec![7], End::PeerGone));
        sender.join().unwrap();
    });
}
