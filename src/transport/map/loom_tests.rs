//! Models of a session: each item is run once and its result taken once, in order; no side sleeps
//! forever; and the memory tells the truth about a worker that ends at any moment.
//!
//! Both ends are the real ones, with smaller rings. A thread stands for the worker process, a lock
//! and a condition variable stand for the futex and the eventfd. The parent of the models waits as
//! `worker::call::map` does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool as RealAtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex as RealMutex};

use loom::sync::{Condvar, Mutex};

use super::feeder::{Feeder, Progress};
use super::memory::{SessionMemory, record_words};
use super::serve::{ItemEnd, ParentWaker, Server};
use crate::sys::model::{JoinHandle, check_up_to, kill_after, spawn};

/// Some faults of withdrawals show only with as many preemptions.
fn check(model: impl Fn() + Send + Sync + 'static) {
    check_up_to(3, model);
}

/// Rings with room for two records of one byte, or four empty ones.
type Memory = SessionMemory<4>;

/// Stands for the parent's eventfd.
#[derive(Default)]
struct Event {
    is_set: Mutex<bool>,
    set: Condvar,
}

impl ParentWaker for Arc<Event> {
    fn wake(&self) -> bool {
        *self.is_set.lock().unwrap() = true;
        self.set.notify_one();
        true
    }
}

impl Event {
    /// Sleeps until the eventfd is readable.
    fn sleep(&self) {
        let mut is_set = self.is_set.lock().unwrap();
        while !*is_set {
            is_set = self.set.wait(is_set).unwrap();
        }
    }

    fn reset(&self) {
        *self.is_set.lock().unwrap() = false;
    }
}

/// An item, which has this byte or none.
type Item = Option<u8>;

/// The items whose job has begun. It is not part of the model, so it orders nothing.
type Begun = Arc<RealMutex<Vec<Item>>>;

/// The parent's side of a session.
struct Parent {
    feeder: Feeder<Arc<Memory>>,
    memory: Arc<Memory>,
    event: Arc<Event>,
    begun: Begun,
    /// Items that were handed over and have not ended.
    outstanding: VecDeque<Item>,
    /// Items whose results were taken.
    ended: Vec<Item>,
}

/// The result of the job that is the `number`th one to begin.
fn result_of(number: usize) -> Vec<u8> {
    vec![100 + number as u8]
}

fn length(item: Item) -> usize {
    item.iter().len()
}

impl Parent {
    fn new() -> Self {
        let memory = Arc::new(Memory::default());
        Self {
            feeder: Feeder::of(memory.clone()),
            memory,
            event: Arc::default(),
            begun: Begun::default(),
            outstanding: VecDeque::new(),
            ended: Vec::new(),
        }
    }

    /// Starts a worker, which is killed after `steps` accesses to the memory. Its thread returns
    /// whether the session ended before.
    fn start_worker(&self, steps: Option<usize>) -> JoinHandle<bool> {
        let (memory, event) = (self.memory.clone(), self.event.clone());
        let begun = self.begun.clone();
        spawn(move || {
            let session = kill_after(steps, || {
                let server = Server::of(memory, event.clone(), false).unwrap();
                server.serve(|item, out| {
                    let mut begun = begun.lock().unwrap();
                    out.extend(result_of(begun.len()));
                    begun.push(item.first().copied());
                    ItemEnd::Value
                });
            });
            // The end of a worker wakes its parent through the socket.
            event.wake();
            session.is_some()
        })
    }

    /// Hands over items, for which there must be room.
    fn hand(&mut self, items: impl IntoIterator<Item = Item>) {
        for item in items {
            assert!(self.feeder.room() >= record_words(length(item)));
            self.feeder.put(item.as_slice());
            self.outstanding.push_back(item);
        }
        self.feeder.publish();
    }

    /// Takes back the items from this number on that have not begun.
    fn withdraw(&mut self, from: u64) -> VecDeque<Item> {
        let kept = self.feeder.withdraw(from).unwrap();
        self.take();
        let kept = kept as usize - self.ended.len();
        let withdrawn = self.outstanding.split_off(kept);
        let words = withdrawn.iter().map(|item| record_words(length(*item)));
        self.feeder.take_back(words.sum());
        withdrawn
    }

    /// Takes the results that are there.
    fn take(&mut self) {
        let ended = self.feeder.progress().unwrap().ended as usize;
        assert!(ended >= self.ended.len());
        if ended == self.ended.len() {
            return;
        }
        let mut result = Vec::new();
        while self.ended.len() < ended {
            let item = self.outstanding.pop_front().expect("it was handed over");
            let tag = self.feeder.take(length(item), &mut result);
            assert_eq!(tag, Ok(ItemEnd::Value as u8));
            assert_eq!(result, result_of(self.ended.len()), "the result is whole");
            self.ended.push(item);
        }
        self.feeder.release();
    }

    fn has_results(&self) -> bool {
        self.feeder.progress().unwrap().ended > self.ended.len() as u64
    }

    /// Sleeps until an item has ended, or the worker.
    fn wait(&mut self) {
        self.feeder.park();
        if !self.has_results() {
            self.event.sleep();
        }
        self.feeder.unpark();
        self.event.reset();
    }

    /// Takes the results of all items.
    fn take_all(&mut self) {
        self.take();
        while !self.outstanding.is_empty() {
            self.wait();
            self.take();
        }
    }

    /// Closes the session, and checks that all items have been run in order, once.
    fn end(mut self, worker: JoinHandle<bool>, items: &[Item]) {
        self.feeder.close();
        assert!(worker.join().unwrap());
        assert_eq!(self.ended, items);
        assert_eq!(*self.begun.lock().unwrap(), items);
    }
}

#[test]
fn items_are_run_in_order_through_rings_that_are_smaller_than_they_are_together() {
    check(|| {
        let mut parent = Parent::new();
        let worker = parent.start_worker(None);
        parent.hand([Some(1), Some(2)]);
        while parent.ended.is_empty() {
            parent.wait();
            parent.take();
        }
        parent.hand([Some(3)]);
        parent.take_all();
        parent.end(worker, &[Some(1), Some(2), Some(3)]);
    });
}

#[test]
fn an_item_wakes_a_worker_and_its_result_a_parent() {
    check(|| {
        let mut parent = Parent::new();
        let worker = parent.start_worker(None);
        parent.hand([Some(1)]);
        parent.take_all();
        parent.hand([Some(2)]);
        parent.take_all();
        parent.end(worker, &[Some(1), Some(2)]);
    });
}

#[test]
fn a_worker_without_room_for_a_result_goes_on_when_results_are_taken() {
    check(|| {
        let mut parent = Parent::new();
        let worker = parent.start_worker(None);
        parent.hand([None; 3]);
        parent.take_all();
        parent.end(worker, &[None; 3]);
    });
}

#[test]
fn an_abandoned_session_ends_although_its_results_are_not_taken() {
    check(|| {
        let mut parent = Parent::new();
        let worker = parent.start_worker(None);
        parent.hand([None; 3]);
        parent.feeder.abandon();
        assert!(worker.join().unwrap());
        assert_eq!(parent.feeder.progress().unwrap().ended, 3);
    });
}

#[test]
fn a_withdrawn_item_is_not_run_and_the_one_in_its_place_is() {
    check(|| {
        let mut parent = Parent::new();
        let worker = parent.start_worker(None);
        parent.hand([Some(1), Some(2)]);
        let withdrawn = parent.withdraw(0);
        let kept = [Some(1), Some(2)].into_iter().take(2 - withdrawn.len());
        let others = withdrawn.iter().map(|item| item.map(|byte| byte + 10));
        let items: Vec<_> = kept.chain(others.clone()).collect();
        parent.take_all(); // nothing that is handed over wakes the worker for the items that it keeps
        parent.hand(others);
        parent.take_all();
        parent.end(worker, &items);
    });
}

#[test]
fn an_item_ends_or_is_condemned_and_a_worker_whose_item_is_condemned_runs_no_other() {
    check(|| {
        let mut parent = Parent::new();
        let worker = parent.start_worker(None);
        parent.hand([Some(1), Some(2)]);
        if parent.feeder.condemn(0) {
            assert!(!worker.join().unwrap(), "it ends like a killed one");
            let in_item = Progress {
                ended: 0,
                is_in_item: true,
            };
            assert_eq!(parent.feeder.progress(), Ok(in_item));
            assert_eq!(*parent.begun.lock().unwrap(), [Some(1)]);
        } else {
            parent.take_all();
            parent.end(worker, &[Some(1), Some(2)]);
        }
    });
}

/// Runs a model with a worker that is killed after each number of steps, and that may have begun
/// two items. The model returns whether the worker was killed.
fn check_kills(model: fn(Parent, JoinHandle<bool>) -> bool) {
    let was_killed = Arc::new(RealAtomicBool::new(true));
    let mut steps = 0;
    while was_killed.swap(false, Relaxed) {
        let was_killed = was_killed.clone();
        check(move || {
            let mut parent = Parent::new();
            parent.hand([Some(1), Some(2)]);
            let worker = parent.start_worker(Some(steps));
            if model(parent, worker) {
                was_killed.store(true, Relaxed);
            }
        });
        steps += 1;
    }
    assert!(steps > 20, "a session has more steps than {steps}");
}

impl Parent {
    /// Checks what the memory says of a worker that has ended, after all its results were taken.
    fn check_remains(&mut self) {
        self.take();
        let progress = self.feeder.progress().unwrap();
        let ended = progress.ended as usize;
        let begun = self.begun.lock().unwrap();
        assert_eq!(begun[..ended], self.ended);
        assert_eq!(begun[..], [Some(1), Some(2)][..begun.len()]);
        assert!(begun.len() <= ended + usize::from(progress.is_in_item));
    }
}

#[test]
fn a_worker_killed_at_any_step_leaves_whole_results_and_no_doubt_which_items_have_begun() {
    check_kills(|mut parent, worker| {
        parent.wait(); // until an item has ended, or the worker
        parent.take();
        parent.feeder.close();
        let is_killed = !worker.join().unwrap();
        parent.check_remains();
        assert!(is_killed || parent.outstanding.is_empty());
        is_killed
    });
}

#[test]
fn an_item_that_was_withdrawn_from_a_worker_killed_at_any_step_has_not_begun() {
    check_kills(|mut parent, worker| {
        let withdrawn = parent.withdraw(1);
        let kept = parent.feeder.handed();
        parent.feeder.close();
        let is_killed = !worker.join().unwrap();
        parent.check_remains();
        assert_eq!(withdrawn.len() as u64, 2 - kept);
        assert!(parent.begun.lock().unwrap().len() as u64 <= kept);
        is_killed
    });
}
