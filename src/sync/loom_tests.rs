//! Loom models: threads that use, wait for and leave a primitive concurrently.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{CapacityLimiter, Condvar, Event, Mutex, RwLock, Semaphore, channel};
use crate::sys::model::{JoinHandle, Plain, block_on, check, spawn};

/// Polls a future once and drops it.
fn glance<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
    Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()))
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_limiter_s_only_token_is_held_by_one_at_a_time_and_handed_over_whoever_leaves() {
    check(|| {
        let limiter = CapacityLimiter::new(1);
        let plain = Plain::new();
        let users = [(); 2].map(|()| {
            let (limiter, plain) = (limiter.clone(), plain.clone());
            spawn(move || {
                let _token = block_on(limiter.acquire());
                plain.add(1);
            })
        });
        // The token may be assigned between its only poll and its drop.
        drop(glance(limiter.acquire()));
        join(users);
        assert_eq!(plain.get(), 2);
        assert_eq!((limiter.borrowed(), limiter.statistics().waiting), (0, 0));
    });
}

#[test]
fn a_limiter_s_raised_total_reaches_who_waits() {
    check(|| {
        let limiter = CapacityLimiter::new(0);
        let raiser = limiter.clone();
        spawn(move || raiser.set_total(1));
        drop(block_on(limiter.acquire()));
    });
}

#[test]
fn a_semaphore_s_released_permit_reaches_one_who_waits_whoever_leaves() {
    check(|| {
        let semaphore = Semaphore::new(0);
        let plain = Plain::new();
        let (releaser, there) = (semaphore.clone(), plain.clone());
        let threads = [
            spawn(move || {
                there.set(1);
                releaser.release().unwrap();
            }),
            spawn({
                let leaver = semaphore.clone();
                move || drop(glance(leaver.acquire()))
            }),
        ];
        drop(block_on(semaphore.acquire()));
        assert_eq!(plain.get(), 1);
        join(threads);
        assert_eq!(semaphore.value(), 1);
    });
}

#[test]
fn a_lock_is_held_by_one_at_a_time_and_handed_over_whoever_leaves() {
    check(|| {
        let lock = Mutex::new(0);
        let plain = Plain::new();
        let users = [(); 2].map(|()| {
            let (lock, plain) = (lock.clone(), plain.clone());
            spawn(move || {
                let mut guard = block_on(lock.lock());
                *guard += 1;
                plain.add(1);
            })
        });
        drop(glance(lock.lock()));
        join(users);
        assert_eq!(*lock.try_lock().unwrap(), 2);
        assert_eq!(plain.get(), 2);
    });
}

#[test]
fn a_writer_is_alone_and_readers_and_writers_hand_over_to_each_other() {
    check(|| {
        let lock = RwLock::new(());
        let plain = Plain::new();
        let (writer, reader) = (lock.clone(), lock.clone());
        let (write, read) = (plain.clone(), plain.clone());
        let threads = [
            spawn(move || {
                let _guard = block_on(writer.write());
                write.add(1);
            }),
            spawn(move || {
                let _guard = block_on(reader.read());
                assert!(read.get() <= 2);
            }),
        ];
        {
            let _guard = block_on(lock.write());
            plain.add(1);
        }
        join(threads);
        assert_eq!(plain.get(), 2);
    });
}

#[test]
fn a_rendezvous_hands_every_value_over_once() {
    check(|| {
        let (sender, receiver) = channel::<Arc<Plain>>(0);
        let plain = Plain::new();
        let there = plain.clone();
        let thread = spawn(move || {
            there.set(1);
            block_on(sender.send(there)).unwrap();
        });
        assert_eq!(block_on(receiver.recv()).unwrap().get(), 1);
        assert!(block_on(receiver.recv()).is_err());
        join([thread]);
    });
}

#[test]
fn a_value_goes_to_who_stays_if_a_receiver_leaves_as_it_comes() {
    check(|| {
        let (sender, receiver) = channel(1);
        let (leaver, again) = (receiver.clone(), sender.clone());
        let threads = [
            spawn(move || block_on(sender.send(7)).unwrap()),
            spawn(move || {
                if let Poll::Ready(received) = glance(leaver.recv()) {
                    // It was received before the other future was dropped: then another value is
                    // sent.
                    block_on(again.send(received.unwrap())).unwrap();
                }
            }),
        ];
        assert_eq!(block_on(receiver.recv()), Ok(7));
        join(threads);
    });
}

#[test]
fn a_notification_reaches_one_who_waits_under_the_lock() {
    check(|| {
        let condition = Condvar::new(false);
        let teller = condition.clone();
        let thread = spawn(move || {
            let mut guard = block_on(teller.lock());
            *guard = true;
            teller.notify(&guard, 1);
        });
        let mut guard = block_on(condition.lock());
        while !*guard {
            guard = block_on(condition.wait(guard));
        }
        drop(guard);
        join([thread]);
    });
}

#[test]
fn an_event_is_seen_by_who_waits_with_what_was_done_before_it() {
    check(|| {
        let event = Event::new();
        let plain = Plain::new();
        let (teller, there) = (event.clone(), plain.clone());
        let leaver = event.clone();
        let threads = [
            spawn(move || {
                there.set(1);
                teller.set();
            }),
            spawn(move || {
                let _gone = glance(leaver.wait());
            }),
        ];
        block_on(event.wait());
        assert!(event.is_set());
        assert_eq!(plain.get(), 1);
        join(threads);
    });
}
