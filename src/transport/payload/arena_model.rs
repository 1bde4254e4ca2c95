//! Who may write to an arena, and when: the real encoder, pool and worker's side in random order, beside a model that
//! knows who reads what.
//!
//! Parent and workers are in this one process; what is between them, frames and descriptors, the test hands over.
//!
//! `unsafe` is needed to say of the test what the parent promises its workers.
#![allow(unsafe_code)]

use std::time::Instant;

use proptest::prelude::*;
use serde::{Serialize, Serializer};

use super::body::{Arrived, Bytes};
use super::pool::Pool;
use crate::sys::arena::{LINGER, Lease, Views};
use crate::transport::codec;
use crate::transport::frame::{Header, KEPT, Kind, NOTHING_KEPT};
use crate::transport::out_message::OutMessage;
use crate::transport::payload::inline::Memory;

const WORKERS: usize = 3;

/// What happens next. Who or which is meant is counted from the first of those that come into question, and round
/// again.
#[derive(Clone, Debug)]
enum Step {
    /// A call writes its argument: so many bytes, at once or one after the other.
    Call { length: usize, in_one: bool },
    /// An idle worker takes a job in.
    Receive { job: usize, worker: usize },
    /// A worker answers, and its job has kept what it was lent, or not.
    Answer { worker: usize, keeps: bool },
    /// A worker is killed; its call, if it has one, fails or goes to another worker.
    Kill { worker: usize, again: bool },
    /// A worker is given up, and lives on for a while: its call goes to another one.
    GiveUp { worker: usize },
    /// What a job has kept is dropped.
    Forget { lease: usize },
    /// A worker has waited for a while.
    LetGo { worker: usize },
    /// No call was made for a while.
    Trim,
}

fn any_step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![200_000usize..204_000, 400_000usize..409_000];
    let index = any::<usize>;
    prop_oneof![
        8 => (length, prop::bool::weighted(0.8)).prop_map(|(length, in_one)| Step::Call { length, in_one }),
        8 => (index(), index()).prop_map(|(job, worker)| Step::Receive { job, worker }),
        8 => (index(), prop::bool::weighted(0.2)).prop_map(|(worker, keeps)| Step::Answer { worker, keeps }),
        1 => (index(), any::<bool>()).prop_map(|(worker, again)| Step::Kill { worker, again }),
        1 => index().prop_map(|worker| Step::GiveUp { worker }),
        1 => index().prop_map(|lease| Step::Forget { lease }),
        1 => index().prop_map(|worker| Step::LetGo { worker }),
        1 => Just(Step::Trim),
    ]
}

/// So many bytes of a kind.
struct Argument {
    byte: u8,
    length: usize,
    in_one: bool,
}

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = vec![self.byte; self.length];
        match self.in_one {
            true => serializer.serialize_bytes(&bytes),
            false => serializer.collect_seq(bytes),
        }
    }
}

/// A call whose answer is not there.
struct Job {
    parcel: OutMessage,
    arena: u64,
    byte: u8,
    receivers: usize,
}

/// What somebody reads.
struct Reading {
    lease: Lease,
    arena: u64,
    byte: u8,
    length: usize,
}

impl Reading {
    fn is_as_it_was(&self) -> bool {
        let length = self.length - 8;
        self.lease[8..][..length] == vec![self.byte; length]
    }
}

struct Worker {
    views: Views,
    /// The job, and what it was lent.
    busy: Option<(Job, Reading)>,
    /// What jobs have kept.
    kept: Vec<Reading>,
}

impl Worker {
    fn new() -> Self {
        Self {
            // SAFETY: that the arenas are written only as promised is what this test finds out.
            views: unsafe { Views::new() },
            busy: None,
            kept: Vec::new(),
        }
    }
}

struct World {
    pool: Pool,
    calls: u8,
    waiting: Vec<Job>,
    workers: [Worker; WORKERS],
    /// Of workers that were given up.
    lost: Vec<Reading>,
    /// The arenas that may be written again.
    free: Vec<u64>,
}

impl World {
    fn new() -> Self {
        Self {
            pool: Pool::default(),
            calls: 0,
            waiting: Vec::new(),
            workers: std::array::from_fn(|_| Worker::new()),
            lost: Vec::new(),
            free: Vec::new(),
        }
    }

    fn readings(&self) -> impl Iterator<Item = &Reading> {
        let of_workers = self.workers.iter().flat_map(|worker| {
            let reading = worker.busy.iter().map(|(_, reading)| reading);
            reading.chain(&worker.kept)
        });
        of_workers.chain(&self.lost)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Call { length, in_one } => self.call(length, in_one),
            Step::Receive { job, worker } => {
                let worker = &mut self.workers[worker % WORKERS];
                if worker.busy.is_none() && !self.waiting.is_empty() {
                    let job = self.waiting.remove(job % self.waiting.len());
                    receive(worker, job);
                }
            }
            Step::Answer { worker, keeps } => self.answer(worker % WORKERS, keeps),
            Step::Kill { worker, again } => {
                let killed = &mut self.workers[worker % WORKERS];
                let killed = std::mem::replace(killed, Worker::new());
                if let Some((job, _)) = killed.busy
                    && again
                {
                    self.waiting.push(job);
                }
            }
            Step::GiveUp { worker } => {
                let worker = &mut self.workers[worker % WORKERS];
                if let Some((job, reading)) = worker.busy.take() {
                    self.waiting.push(job);
                    self.lost.push(reading);
                    self.lost.append(&mut worker.kept);
                    *worker = Worker::new();
                }
            }
            Step::Forget { lease } => {
                let worker = &mut self.workers[lease % WORKERS];
                if worker.kept.pop().is_none() {
                    self.lost.pop();
                }
            }
            Step::LetGo { worker } => self.workers[worker % WORKERS].views.let_go(),
            Step::Trim => {
                drop(self.pool.trim(Instant::now() + LINGER));
                self.free.clear();
            }
        }
    }

    fn call(&mut self, length: usize, in_one: bool) {
        self.calls = self.calls.wrapping_add(1);
        let argument = Argument {
            byte: self.calls,
            length,
            in_one,
        };
        let encode = |out: &mut Vec<u8>| codec::encode_for_worker(&argument, out, &self.pool);
        let parcel = OutMessage::build(Kind::Job, 0, encode).unwrap();
        let id = parcel.payload().last_chunk::<8>();
        let arena = u64::from_le_bytes(*id.expect("it stands at the end of the whereabouts"));
        let is_read = |reading: &Reading| reading.arena == arena;
        assert!(!self.readings().any(is_read), "it was written while read");
        let is_free = |free: &u64| *free == arena;
        let was_there = self.free.iter().position(is_free);
        // Those of each of the two kinds fit into one another's.
        let larger_than_all = self.free.is_empty() || length > 204_000;
        assert!(was_there.is_some() || larger_than_all, "a free one fits");
        was_there.map(|at| self.free.remove(at));
        self.waiting.push(Job {
            parcel,
            arena,
            byte: self.calls,
            receivers: 0,
        });
    }

    fn answer(&mut self, worker: usize, keeps: bool) {
        let worker = &mut self.workers[worker];
        let Some((job, reading)) = worker.busy.take() else {
            return;
        };
        if keeps {
            worker.kept.push(reading);
        } else {
            drop(reading);
        }
        assert_eq!(worker.views.settle(), keeps);
        let answer = Header {
            kind: Kind::Done,
            fds: 0,
            call: 0,
            number: if keeps { KEPT } else { NOTHING_KEPT },
            length: 0,
        };
        let back = job.parcel.into_arena(&answer);
        assert_eq!(back.is_some(), !keeps && job.receivers == 1);
        if let Some(arena) = back {
            self.free.push(job.arena);
            assert!(self.pool.put(arena, Instant::now()).is_empty());
        }
    }
}

fn receive(worker: &mut Worker, mut job: Job) {
    job.parcel.hand_over();
    job.receivers += 1;
    let fds = job.parcel.fds().iter();
    let fds = fds.map(|fd| fd.try_clone().unwrap()).collect();
    let arrived = Arrived::from_parent(job.parcel.payload(), fds, &mut worker.views).unwrap();
    let Bytes::InMemory(Memory::Leased(lease), length) = &arrived.encoding else {
        panic!("it lies in an arena: {arrived:?}");
    };
    let reading = Reading {
        lease: lease.clone(),
        arena: job.arena,
        byte: job.byte,
        length: *length,
    };
    worker.busy = Some((job, reading));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn nothing_is_written_while_it_is_read_and_what_nobody_reads_is_written_again(
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let mut world = World::new();
        for step in steps {
            // As many as the pool keeps, so that it is known what is there.
            if world.calls == u8::MAX || world.waiting.len() + world.free.len() > 10 {
                break;
            }
            world.take(step.clone());
            prop_assert!(world.readings().all(Reading::is_as_it_was), "{step:?}");
        }
    }
}
