//! Models of a mailbox: each frame arrives once and whole, through the slot or the socket, and no
//! side sleeps forever.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};

use super::Slot;
use crate::sys::model::{check, spawn};

type SmallSlot = Slot<1>;

/// Stands for a socket between a sender and a receiver.
struct Socket {
    frames: Mutex<Vec<u8>>,
    arrived: Condvar,
}

impl Socket {
    fn new() -> Self {
        Socket {
            frames: Mutex::new(Vec::new()),
            arrived: Condvar::new(),
        }
    }

    fn send(&self, frame: u8) {
        self.frames.lock().unwrap().push(frame);
        self.arrived.notify_one();
    }

    fn receive(&self) -> u8 {
        let mut frames = self.frames.lock().unwrap();
        while frames.is_empty() {
            frames = self.arrived.wait(frames).unwrap();
        }
        frames.remove(0)
    }

    fn is_empty(&self) -> bool {
        self.frames.lock().unwrap().is_empty()
    }
}

/// One direction of a connection.
struct Channel {
    slot: SmallSlot,
    socket: Socket,
}

/// Stands for the frame that reports an answer in the slot.
const ANSWER_IN_MAILBOX: u8 = 0;

impl Channel {
    fn new() -> Arc<Self> {
        Arc::new(Channel {
            slot: SmallSlot::default(),
            socket: Socket::new(),
        })
    }

    /// Sends as each side does.
    fn send(&self, frame: u8) {
        if !self.slot.post(&[frame]) {
            self.socket.send(frame);
            self.slot.signal();
        }
    }

    fn take(&self) -> Option<u8> {
        let frame = self
            .slot
            .take()
            .expect("the model sends well-formed frames");
        frame.map(|frame| frame[0])
    }

    /// Receives as each side does: spins at most `spins` times, then sleeps.
    fn receive(&self, spins: usize) -> u8 {
        self.slot.watch(0);
        for _ in 0..spins {
            if !self.slot.is_waiting() {
                break;
            }
            loom::thread::yield_now();
        }
        if self.slot.stop_watching() {
            self.socket.receive()
        } else {
            self.take().expect("the slot is full")
        }
    }

    fn is_empty(&self) -> bool {
        !self.slot.is_full() && self.socket.is_empty()
    }
}

#[test]
fn a_frame_arrives_once_and_whole_however_long_its_receiver_spins() {
    check(|| {
        let channel = Channel::new();
        let sender = {
            let channel = channel.clone();
            spawn(move || channel.send(7))
        };
        assert_eq!(channel.receive(1), 7);
        sender.join().unwrap();
        assert!(channel.is_empty());
    });
}

#[test]
fn calls_and_answers_alternate() {
    check(|| {
        let (job, answer) = (Channel::new(), Channel::new());
        let worker = {
            let (job, answer) = (job.clone(), answer.clone());
            spawn(move || {
                for _ in 0..2 {
                    let n = job.receive(1);
                    answer.send(n + 10);
                }
            })
        };
        for n in 1..=2 {
            answer.slot.watch(0); // before the job is there
            job.send(n);
            assert_eq!(answer.receive(1), n + 10);
        }
        worker.join().unwrap();
        assert!(job.is_empty() && answer.is_empty());
    });
}

#[test]
fn a_receiver_that_watches_but_never_looks_learns_of_a_frame_from_the_socket() {
    check(|| {
        let channel = Channel::new();
        channel.slot.watch(0);
        let worker = {
            let channel = channel.clone();
            spawn(move || {
                channel.send(7);
                if channel.slot.is_full() {
                    channel.socket.send(ANSWER_IN_MAILBOX);
                }
            })
        };
        let first = channel.socket.receive();
        let frame = match first {
            ANSWER_IN_MAILBOX => channel.take().expect("the slot is full"),
            frame => frame,
        };
        assert_eq!(frame, 7);
        worker.join().unwrap();
        assert!(channel.is_empty());
    });
}

#[test]
fn a_job_that_an_ended_worker_left_in_its_slot_has_not_begun() {
    check(|| {
        let channel = Channel::new();
        channel.slot.watch(0);
        // The worker is killed before it takes the job, or after.
        let worker = {
            let channel = channel.clone();
            spawn(move || channel.take())
        };
        let posted = channel.slot.post(&[7]);
        let begun = worker.join().unwrap().is_some();
        assert_eq!(posted && !channel.slot.is_full(), begun);
    });
}

/// A call in a run may continue on another thread, while the spin poller of its former thread still
/// has its mailbox.
#[test]
fn no_frame_is_lost_when_a_former_thread_stops_watching_a_mailbox_that_another_watches() {
    check(|| {
        let (job, answer) = (Channel::new(), Channel::new());
        answer.slot.watch(0);
        let former_thread = {
            let answer = answer.clone();
            spawn(move || {
                // The frame that it may find belongs to the other thread.
                let _ = answer.slot.stop_watching();
            })
        };
        let worker = {
            let (job, answer) = (job.clone(), answer.clone());
            spawn(move || {
                // A frame that does not fit into the slot.
                answer.socket.send(1);
                answer.slot.signal();
                let second = job.socket.receive();
                answer.send(second);
                if answer.slot.is_full() {
                    answer.socket.send(ANSWER_IN_MAILBOX);
                }
            })
        };
        assert_eq!(answer.socket.receive(), 1);
        answer.slot.watch(0);
        job.socket.send(2);
        let second = match answer.socket.receive() {
            ANSWER_IN_MAILBOX => answer.take().expect("the slot is full"),
            second => second,
        };
        assert_eq!(second, 2);
        worker.join().unwrap();
        former_thread.join().unwrap();
        assert!(job.is_empty() && answer.is_empty());
    });
}
