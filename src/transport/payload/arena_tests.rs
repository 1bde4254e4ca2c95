//! No arena is written while a worker reads it: the real encoder, pool and mapping cache in random
//! order, with a model that knows the readers.
//!
//! Parent and workers are in this one process, and the test passes frames and descriptors between
//! them.
//!
//! `unsafe` is needed to create the mapping caches.
#![allow(unsafe_code)]

use std::time::Instant;

use proptest::prelude::*;
use serde::{Serialize, Serializer};

use super::arena_pool::ArenaPool;
use super::incoming::{EncodedBytes, Incoming};
use super::inline::Memory;
use crate::sys::mapping_cache::{Lease, MappingCache};
use crate::sys::tuning::UNUSED_MAPPING_KEPT_FOR;
use crate::transport::codec;
use crate::transport::frame::{Header, KEPT, Kind, NOTHING_KEPT};
use crate::transport::out_message::OutMessage;

const WORKERS: usize = 3;

/// One step of a test. Indices wrap around.
#[derive(Clone, Debug)]
enum Step {
    /// A call writes an argument of `length` bytes, at once or byte by byte.
    Call { length: usize, in_one: bool },
    /// An idle worker receives a job.
    Receive { job: usize, worker: usize },
    /// A worker answers; its job may keep the lease.
    Answer { worker: usize, keeps: bool },
    /// A worker is killed; its call fails or is retried on another worker.
    Kill { worker: usize, again: bool },
    /// A worker is abandoned but runs on; its call is retried on another worker.
    GiveUp { worker: usize },
    /// A kept lease is dropped.
    Forget { lease: usize },
    /// An idle worker unmaps its arenas.
    Unmap { worker: usize },
    /// The pool drops its old arenas.
    DropOld,
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
        1 => index().prop_map(|worker| Step::Unmap { worker }),
        1 => Just(Step::DropOld),
    ]
}

/// An argument of `length` equal bytes.
struct Argument {
    byte: u8,
    length: usize,
    in_one: bool,
}

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = vec![self.byte; self.length];
        if self.in_one {
            serializer.serialize_bytes(&bytes)
        } else {
            serializer.collect_seq(bytes)
        }
    }
}

/// A call without an answer.
struct Job {
    message: OutMessage,
    arena: u64,
    byte: u8,
    receivers: usize,
}

/// A lease and the bytes that must be in it.
struct Reading {
    lease: Lease,
    arena: u64,
    byte: u8,
    length: usize,
}

impl Reading {
    fn is_unchanged(&self) -> bool {
        let (count, bytes) = self.lease.split_first_chunk().expect("the length is first");
        let count = u64::from_le_bytes(*count) as usize;
        // A digest may follow.
        [8, 16].contains(&(self.length - count)) && bytes[..count] == vec![self.byte; count]
    }
}

struct Worker {
    mappings: MappingCache,
    /// The job and its lease.
    busy: Option<(Job, Reading)>,
    /// The leases that jobs have kept.
    kept: Vec<Reading>,
}

impl Worker {
    fn new() -> Self {
        Self {
            // SAFETY: the parent of this test is the real one; that it writes arenas only as
            // promised is what the test checks.
            mappings: unsafe { MappingCache::new() },
            busy: None,
            kept: Vec::new(),
        }
    }
}

struct World {
    pool: ArenaPool,
    calls: u8,
    waiting: Vec<Job>,
    workers: [Worker; WORKERS],
    /// Leases in abandoned workers.
    lost: Vec<Reading>,
    /// The arenas that may be written again.
    free: Vec<u64>,
}

impl World {
    fn new() -> Self {
        Self {
            pool: ArenaPool::default(),
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

    fn run(&mut self, step: Step) {
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
            Step::Unmap { worker } => self.workers[worker % WORKERS].mappings.unmap_unused(),
            Step::DropOld => {
                drop(self.pool.take_old(Instant::now() + UNUSED_MAPPING_KEPT_FOR));
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
        let encode = |out: &mut Vec<u8>| codec::encode_for_worker(&argument, out, Some(&self.pool));
        let message = OutMessage::build(Kind::Job, 0, encode).unwrap();
        let id = message.payload().last_chunk::<8>();
        let arena = u64::from_le_bytes(*id.expect("a `PayloadRef` ends with the arena"));
        let is_read = |reading: &Reading| reading.arena == arena;
        assert!(
            !self.readings().any(is_read),
            "the arena was written while it was read"
        );
        let is_free = |free: &u64| *free == arena;
        let was_there = self.free.iter().position(is_free);
        // All arguments of one of the two sizes fit into the same arenas.
        let larger_than_all = self.free.is_empty() || length > 204_000;
        assert!(
            was_there.is_some() || larger_than_all,
            "a free arena is used"
        );
        was_there.map(|at| self.free.remove(at));
        self.waiting.push(Job {
            message,
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
        assert_eq!(worker.mappings.end_job(), keeps);
        let answer = Header {
            kind: Kind::Done,
            fds: 0,
            call: 0,
            number: if keeps { KEPT } else { NOTHING_KEPT },
            length: 0,
        };
        let back = job.message.into_arena(&answer);
        assert_eq!(back.is_some(), !keeps && job.receivers == 1);
        if let Some(arena) = back {
            self.free.push(job.arena);
            assert!(self.pool.put(arena, Instant::now()).is_empty());
        }
    }
}

fn receive(worker: &mut Worker, mut job: Job) {
    job.message.hand_over();
    job.receivers += 1;
    let fds = job.message.fds().iter();
    let fds = fds.map(|fd| fd.try_clone().unwrap()).collect();
    let incoming = Incoming::from_parent(job.message.payload(), fds, &mut worker.mappings).unwrap();
    let EncodedBytes::InMemory(Memory::Leased(lease), length) = &incoming.encoding else {
        panic!("not in an arena: {incoming:?}");
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
    fn no_arena_is_written_while_it_is_read_and_free_arenas_are_used_again(
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let mut world = World::new();
        for step in steps {
            // No more arenas than the pool keeps, so that the model knows which are there.
            if world.calls == u8::MAX || world.waiting.len() + world.free.len() > 10 {
                break;
            }
            world.run(step.clone());
            prop_assert!(world.readings().all(Reading::is_unchanged), "{step:?}");
        }
    }
}
