//! Models of requests: each ends the job for which it was meant, and no other.
//!
//! The parent sends jobs and requests as `worker::conn` does, and a job of the worker asks in the
//! ways in which jobs do. The socket is a queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as RealAtomicUsize, Ordering::Relaxed};

use loom::sync::{Condvar, Mutex};
use loom::thread::yield_now;

use super::requests::{Received, RequestSocket, Requests, Taken};
use crate::sys::model::{JoinHandle, check, spawn};
use crate::transport::frame::{Header, Kind};
use crate::transport::mailbox::Slot;

/// Stands for one direction of a socket.
#[derive(Default)]
struct Queue {
    frames: Mutex<VecDeque<Header>>,
    arrived: Condvar,
}

impl Queue {
    fn send(&self, kind: Kind, number: u64) {
        self.frames.lock().unwrap().push_back(Header {
            kind,
            fds: 0,
            call: 0,
            number,
            length: 0,
        });
        self.arrived.notify_one();
    }

    /// Waits until there is a frame.
    fn wait(&self) {
        let mut frames = self.frames.lock().unwrap();
        while frames.is_empty() {
            frames = self.arrived.wait(frames).unwrap();
        }
    }

    /// Waits for frames, and takes all, as one read of a socket does.
    fn read(&self) -> VecDeque<Header> {
        self.wait();
        std::mem::take(&mut *self.frames.lock().unwrap())
    }
}

impl RequestSocket for Queue {
    fn peek(&self) -> Option<Header> {
        self.frames.lock().unwrap().front().copied()
    }

    fn receive(&self) -> Received {
        let first = self.frames.lock().unwrap().pop_front();
        first.map_or(Received::Nothing, |header| Received::Frame(Some(header)))
    }
}

/// A worker and its connection.
struct Worker {
    /// The slot for jobs, in a worker that has a mailbox.
    slot: Option<Slot<1>>,
    /// The jobs that the parent posts to that slot.
    posted: Queue,
    to_worker: Queue,
    answers: Queue,
    requests: Requests,
    /// The number of the last job that the parent has begun to ask. It is not part of the model, so
    /// it orders nothing.
    asked: RealAtomicUsize,
}

impl Worker {
    fn new(has_mailbox: bool) -> Arc<Self> {
        Arc::new(Worker {
            slot: has_mailbox.then(Slot::default),
            posted: Queue::default(),
            to_worker: Queue::default(),
            answers: Queue::default(),
            requests: Requests::default(),
            asked: RealAtomicUsize::new(0),
        })
    }

    /// Sends a job, as the parent does.
    fn send_job(&self, job: u64) {
        let queue = if self.slot.is_some() {
            &self.posted
        } else {
            &self.to_worker
        };
        queue.send(Kind::Job, job);
    }

    /// Asks a job to end, as the parent does.
    fn ask(&self, job: u64) {
        drop(self.answers.frames.lock()); // the other thread may run here
        self.asked.store(job as usize, Relaxed);
        if let Some(slot) = &self.slot {
            slot.cancel(job as usize);
        }
        self.to_worker.send(Kind::Cancel, job);
    }

    /// Waits for the answer of a job, as the parent does. Returns whether it was asked.
    fn answer(&self) -> bool {
        let answers = self.answers.read();
        assert_eq!(answers.len(), 1);
        answers[0].number == 1
    }

    fn is_asked(&self) -> bool {
        self.requests.is_asked(self.slot.as_ref(), &self.to_worker)
    }

    /// Receives a job, runs it, and answers, as a worker does. `run` returns whether the job was
    /// asked.
    fn serve(&self, job: u64, run: impl FnOnce() -> bool) {
        let mut rest = VecDeque::new();
        if self.slot.is_some() {
            self.posted.read();
        } else {
            while rest
                .pop_front()
                .is_none_or(|frame: Header| frame.kind != Kind::Job)
            {
                if rest.is_empty() {
                    rest = self.to_worker.read();
                }
            }
        }
        self.requests.begin(job);
        rest.iter().for_each(|frame| self.requests.note(frame));
        let was_asked = run();
        let asked = self.asked.load(Relaxed) as u64;
        assert!(
            !was_asked || asked == job,
            "job {job} got a request to job {asked}"
        );
        self.requests.end();
        assert!(!self.is_asked(), "no job runs");
        self.answers.send(Kind::Done, u64::from(was_asked));
    }

    /// A synchronous job that ends when it is asked.
    fn check_until_asked(&self) -> bool {
        while !self.is_asked() {
            yield_now();
        }
        true
    }

    /// The run of an async job that ends when it is asked, and sleeps until then.
    fn sleep_until_asked(&self) -> bool {
        while !self.is_asked() {
            self.to_worker.wait();
            if self.requests.take(self.slot.as_ref(), &self.to_worker) == Taken::End {
                break;
            }
        }
        true
    }
}

/// Begins what the worker process does.
fn start(
    worker: &Arc<Worker>,
    process: impl FnOnce(&Arc<Worker>) + Send + 'static,
) -> JoinHandle<()> {
    let worker = worker.clone();
    spawn(move || process(&worker))
}

/// Checks a model with a mailbox and without.
fn check_both(model: fn(Arc<Worker>)) {
    for has_mailbox in [true, false] {
        check(move || model(Worker::new(has_mailbox)));
    }
}

#[test]
fn a_job_that_checks_finds_the_request_to_it() {
    check_both(|worker| {
        let process = start(&worker, |worker| {
            worker.serve(1, || worker.check_until_asked());
        });
        worker.send_job(1);
        worker.ask(1);
        assert!(worker.answer());
        process.join().unwrap();
    });
}

#[test]
fn a_request_that_comes_too_late_does_not_end_the_next_job() {
    check_both(|worker| {
        let process = start(&worker, |worker| {
            worker.serve(1, || worker.is_asked());
            worker.serve(2, || worker.is_asked());
        });
        worker.send_job(1);
        worker.ask(1);
        let _ = worker.answer(); // the request comes before the job ends, or after
        worker.send_job(2);
        assert!(!worker.answer());
        process.join().unwrap();
    });
}

#[test]
fn a_job_that_sleeps_is_woken_by_the_request_to_it_and_not_ended_by_an_earlier_one() {
    check_both(|worker| {
        let process = start(&worker, |worker| {
            worker.serve(1, || false);
            worker.serve(2, || worker.sleep_until_asked());
        });
        worker.send_job(1);
        worker.ask(1);
        assert!(!worker.answer());
        worker.send_job(2);
        worker.ask(2);
        assert!(worker.answer());
        process.join().unwrap();
    });
}

#[test]
fn a_thread_that_an_earlier_job_left_behind_does_not_undo_a_request() {
    check_both(|worker| {
        let process = start(&worker, |worker| {
            let mut left_behind = None;
            worker.serve(1, || {
                let worker = worker.clone();
                left_behind = Some(spawn(move || worker.is_asked()));
                false
            });
            worker.serve(2, || worker.sleep_until_asked());
            left_behind.unwrap().join().unwrap();
        });
        worker.send_job(1);
        worker.ask(1);
        assert!(!worker.answer());
        worker.send_job(2);
        worker.ask(2);
        assert!(worker.answer());
        process.join().unwrap();
    });
}
