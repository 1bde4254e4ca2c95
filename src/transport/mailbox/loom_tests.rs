//! Models of a mailbox: a frame comes once and whole, by the slot or by the socket, whoever is quicker, and nobody
//! sleeps for ever.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};

use super::Slot;
use crate::sys::model::{check, spawn};

type Small = Slot<1>;

/// What a socket is to a sender and a receiver.
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

/// One direction of a conversation.
struct Way {
    slot: Small,
    socket: Socket,
}

/// Stands for the frame that says that something lies in the slot.
const LOOK: u8 = 0;

impl Way {
    fn new() -> Arc<Self> {
        Arc::new(Way {
            slot: Small::default(),
            socket: Socket::new(),
        })
    }

    /// As each side sends.
    fn send(&self, frame: u8) {
        if !self.slot.post(&[frame]) {
            self.socket.send(frame);
            self.slot.call();
        }
    }

    fn taken(&self) -> Option<u8> {
        let frame = self.slot.take().expect("what is sent here is no garbage");
        frame.map(|frame| frame[0])
    }

    /// As each side receives: looks `times`, then sleeps.
    fn receive(&self, times: usize) -> u8 {
        self.slot.watch(0);
        for _ in 0..times {
            if !self.slot.is_quiet() {
                break;
            }
            loom::thread::yield_now();
        }
        match self.slot.leave() {
            true => self.socket.receive(),
            false => self.taken().expect("it lies there"),
        }
    }

    fn is_empty(&self) -> bool {
        !self.slot.is_full() && self.socket.is_empty()
    }
}

#[test]
fn a_frame_comes_once_and_whole_however_long_its_receiver_looks() {
    check(|| {
        let way = Way::new();
        let sender = {
            let way = way.clone();
            spawn(move || way.send(7))
        };
        assert_eq!(way.receive(1), 7);
        sender.join().unwrap();
        assert!(way.is_empty());
    });
}

#[test]
fn calls_and_answers_follow_each_other() {
    check(|| {
        let (job, answer) = (Way::new(), Way::new());
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
fn a_receiver_that_watches_but_never_looks_hears_of_a_frame_from_the_socket() {
    check(|| {
        let way = Way::new();
        way.slot.watch(0);
        let worker = {
            let way = way.clone();
            spawn(move || {
                way.send(7);
                if way.slot.is_full() {
                    way.socket.send(LOOK);
                }
            })
        };
        let first = way.socket.receive();
        let frame = match first {
            LOOK => way.taken().expect("it lies there"),
            frame => frame,
        };
        assert_eq!(frame, 7);
        worker.join().unwrap();
        assert!(way.is_empty());
    });
}

#[test]
fn a_job_that_an_ended_worker_left_in_its_slot_was_not_begun() {
    check(|| {
        let way = Way::new();
        way.slot.watch(0);
        // Killed at some time before it takes the job, or after.
        let worker = {
            let way = way.clone();
            spawn(move || way.taken())
        };
        let posted = way.slot.post(&[7]);
        let begun = worker.join().unwrap().is_some();
        assert_eq!(posted && !way.slot.is_full(), begun);
    });
}

/// A call in a run may go on elsewhere, while its mailbox stands in the list of the thread that it has left.
#[test]
fn a_loop_that_leaves_a_mailbox_which_another_thread_watches_loses_no_frame() {
    check(|| {
        let (job, answer) = (Way::new(), Way::new());
        answer.slot.watch(0);
        let loop_left_behind = {
            let answer = answer.clone();
            spawn(move || {
                let _ = answer.slot.leave(); // whatever it finds there is not its own
            })
        };
        let worker = {
            let (job, answer) = (job.clone(), answer.clone());
            spawn(move || {
                // One that does not fit.
                answer.socket.send(1);
                answer.slot.call();
                let second = job.socket.receive();
                answer.send(second);
                if answer.slot.is_full() {
                    answer.socket.send(LOOK);
                }
            })
        };
        assert_eq!(answer.socket.receive(), 1);
        answer.slot.watch(0);
        job.socket.send(2);
        let heard = match answer.socket.receive() {
            LOOK => answer.taken().expect("it lies there"),
            frame => frame,
        };
        assert_eq!(heard, 2);
        worker.join().unwrap();
        loop_left_behind.join().unwrap();
    });
}
