//! Both ends of a session in two threads, and values that a faulty job may write.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::feeder::{Feeder, ForgedProgress, Progress};
use super::memory::record_words;
use super::serve::{ItemEnd, Server};

/// The parent's side of a session with items that are numbers.
struct Parent {
    feeder: Feeder,
    event: OwnedFd,
    /// Items that were handed over and have not ended.
    outstanding: VecDeque<u32>,
    ended: u64,
    random: fastrand::Rng,
}

/// An item has as many bytes as its number says, so that records of all sizes occur.
fn encoded(item: u32) -> Vec<u8> {
    let mut bytes = item.to_ne_bytes().to_vec();
    bytes.resize(4 + item as usize % 300, 7);
    bytes
}

fn decoded(bytes: &[u8]) -> u32 {
    let (number, rest) = bytes.split_first_chunk().unwrap();
    let item = u32::from_ne_bytes(*number);
    assert_eq!(rest.len(), item as usize % 300);
    item
}

impl Parent {
    /// Hands over some items, as far as there is room.
    fn hand(&mut self, queue: &mut VecDeque<u32>) {
        for _ in 0..self.random.usize(1..40) {
            let Some(item) = queue.front() else { break };
            let item = encoded(*item);
            if record_words(item.len()) > self.feeder.room() {
                break;
            }
            self.feeder.put(&item);
            self.outstanding.extend(queue.pop_front());
        }
        self.feeder.publish();
    }

    /// Takes the results that are there. Returns whether there were any.
    fn take(&mut self) -> bool {
        let ended = self.feeder.progress().unwrap().ended;
        let goes_on = ended > self.ended;
        let mut result = Vec::new();
        while self.ended < ended {
            let item = self.outstanding.pop_front().unwrap();
            let bytes = encoded(item).len();
            assert_eq!(
                self.feeder.take(bytes, &mut result),
                Ok(ItemEnd::Value as u8)
            );
            assert_eq!(decoded(&result), item);
            self.ended += 1;
        }
        self.feeder.release();
        goes_on
    }

    /// Puts some of the last items back into the queue.
    fn withdraw(&mut self, queue: &mut VecDeque<u32>) {
        let count = self.random.u64(0..=self.outstanding.len() as u64);
        let kept = self.feeder.withdraw(self.feeder.handed() - count).unwrap();
        assert_eq!(kept, self.feeder.handed());
        self.take();
        let withdrawn = self.outstanding.split_off((kept - self.ended) as usize);
        let words = withdrawn
            .iter()
            .map(|item| record_words(encoded(*item).len()));
        self.feeder.take_back(words.sum());
        queue.extend(withdrawn);
    }

    /// Sleeps until an item ends. Hangs if a wake-up is lost.
    fn wait(&mut self) {
        self.feeder.park();
        if !self.outstanding.is_empty() && !self.take() {
            let mut ready = [PollFd::new(&self.event, PollFlags::IN)];
            poll(&mut ready, None).unwrap();
        }
        self.feeder.unpark();
        _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

/// Runs a session with this many items, some of which are withdrawn and handed over again.
fn run_session(items: u32, seed: u64) {
    let begun: Vec<AtomicU32> = (0..items).map(|_| AtomicU32::new(0)).collect();
    let (feeder, memory) = Feeder::new().unwrap();
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let server = Server::new(memory, event.try_clone().unwrap(), false).unwrap();
    let mut parent = Parent {
        feeder,
        event,
        outstanding: VecDeque::new(),
        ended: 0,
        random: fastrand::Rng::with_seed(seed),
    };
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            server.serve(|item, out| {
                begun[decoded(item) as usize].fetch_add(1, Ordering::Relaxed);
                out.extend_from_slice(item);
                ItemEnd::Value
            });
        });
        let mut queue: VecDeque<u32> = (0..items).collect();
        while !queue.is_empty() || !parent.outstanding.is_empty() {
            match parent.random.u32(0..8) {
                0..3 => parent.hand(&mut queue),
                3..5 => _ = parent.take(),
                5 => parent.withdraw(&mut queue),
                _ => parent.wait(),
            }
        }
        parent.feeder.close();
        worker.join().unwrap();
    });
    assert_eq!(parent.ended, u64::from(items));
    for (item, begun) in begun.iter().enumerate() {
        assert_eq!(begun.load(Ordering::Relaxed), 1, "item {item}");
    }
}

#[cfg_attr(miri, ignore = "maps shared memory")]
#[test]
fn every_item_of_a_session_is_run_once_although_some_are_withdrawn() {
    for seed in 0..30 {
        run_session(2000, seed);
    }
}

#[cfg_attr(miri, ignore = "maps shared memory")]
#[test]
fn an_abandoned_session_ends_although_its_results_are_not_taken() {
    let (mut feeder, memory) = Feeder::new().unwrap();
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let server = Server::new(memory, event, false).unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            server.serve(|_, out| {
                out.resize(10_000, 7); // a few of them fill the ring
                ItemEnd::Value
            });
        });
        (0..100).for_each(|_| feeder.put(b"item"));
        feeder.publish();
        feeder.abandon();
        worker.join().unwrap();
    });
    assert_eq!(feeder.progress().unwrap().ended, 100);
}

#[cfg_attr(miri, ignore = "maps shared memory")]
#[test]
fn only_the_item_in_progress_can_be_condemned() {
    let (mut feeder, _memory) = Feeder::new().unwrap();
    (0..5).for_each(|_| feeder.put(b"item"));
    feeder.publish();
    feeder.set_progress(3 << 1 | 1);
    let in_item = Progress {
        ended: 3,
        is_in_item: true,
    };
    assert_eq!(feeder.progress(), Ok(in_item));
    assert!(!feeder.condemn(2) && !feeder.condemn(4));
    assert!(feeder.condemn(3));
    assert_eq!(feeder.progress(), Ok(in_item)); // it has begun, and will not end
    assert_eq!(feeder.withdraw(0), Ok(4));
}

#[cfg_attr(miri, ignore = "maps shared memory")]
#[test]
fn an_item_that_was_withdrawn_is_not_in_progress() {
    let (mut feeder, _memory) = Feeder::new().unwrap();
    (0..5).for_each(|_| feeder.put(b"item"));
    feeder.publish();
    feeder.set_progress(2 << 1);
    assert_eq!(feeder.withdraw(2), Ok(2));
    feeder.set_progress(2 << 1 | 1); // the worker has not read the limit again
    let between = Progress {
        ended: 2,
        is_in_item: false,
    };
    assert_eq!(feeder.progress(), Ok(between));
}

proptest! {
    #[cfg_attr(miri, ignore = "maps shared memory")]
    #[test]
    fn a_progress_beyond_the_items_is_refused(items in 0_u64..50, progress: u64) {
        let (mut feeder, _memory) = Feeder::new().unwrap();
        (0..items).for_each(|_| feeder.put(b"item"));
        feeder.publish();
        feeder.set_progress(progress);
        let ended = (progress & (u64::MAX >> 1)) >> 1;
        match feeder.progress() {
            Ok(progress) => prop_assert!(progress.ended == ended && ended <= items),
            Err(ForgedProgress) => prop_assert!(ended > items),
        }
        if let Ok(kept) = feeder.withdraw(0) {
            prop_assert!(kept <= items && kept >= ended);
        }
    }
}
