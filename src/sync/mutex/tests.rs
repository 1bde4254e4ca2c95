//! The mutex's futures, polled by hand.

use std::cell::Cell;
use std::mem;
use std::sync::Arc;
use std::task::Poll;

use super::{Mutex, MutexGuard, MutexLock};
use crate::sync::test_waker::{Count, poll, poll_with};

/// A locked mutex and its guard.
fn held() -> (Mutex<u32>, MutexGuard<u32>) {
    let lock = Mutex::new(0);
    let guard = lock.try_lock().expect("nobody holds it");
    (lock, guard)
}

fn queued(lock: &Mutex<u32>) -> MutexLock<u32> {
    let mut acquire = lock.lock();
    assert!(poll(&mut acquire).is_pending());
    acquire
}

fn granted(acquire: &mut MutexLock<u32>) -> MutexGuard<u32> {
    match poll(acquire) {
        Poll::Ready(guard) => guard,
        Poll::Pending => panic!("the lock was not granted"),
    }
}

#[test]
fn a_value_that_may_be_sent_makes_everything_send_and_sync_but_the_guard_is_as_the_value() {
    fn send_sync<T: Send + Sync + 'static>() {}
    fn send<T: Send>() {}
    send_sync::<Mutex<Cell<u8>>>();
    send_sync::<MutexLock<Cell<u8>>>();
    send::<MutexGuard<Cell<u8>>>();
    send_sync::<MutexGuard<u8>>();
}

#[test]
fn the_longest_waiter_owns_the_lock_before_it_runs() {
    let (lock, mut guard) = held();
    let (mut first, mut second) = (queued(&lock), queued(&lock));
    *guard = 7;
    drop(guard);
    assert!(lock.is_locked());
    assert!(lock.try_lock().is_none(), "nobody barges in");
    assert!(poll(&mut second).is_pending());
    assert_eq!(*granted(&mut first), 7);
    drop(granted(&mut second));
    assert!(!lock.is_locked());
}

#[test]
fn whoever_lets_go_and_asks_again_goes_to_the_end() {
    let (lock, guard) = held();
    let mut other = queued(&lock);
    drop(guard);
    let mut again = queued(&lock);
    drop(granted(&mut other));
    drop(granted(&mut again));
}

#[test]
fn a_queued_waiter_that_is_dropped_leaves_at_once_and_the_others_keep_their_order() {
    let (lock, guard) = held();
    let mut first = queued(&lock);
    let second = queued(&lock);
    let mut third = queued(&lock);
    drop(second);
    assert_eq!(lock.statistics().waiting, 2);
    drop(guard);
    assert!(poll(&mut third).is_pending());
    drop(granted(&mut first));
    drop(granted(&mut third));
}

#[test]
fn a_granted_waiter_that_is_dropped_unpolled_passes_the_lock_on() {
    let (lock, guard) = held();
    let first = queued(&lock);
    let (count, waker) = Count::new();
    let mut second = lock.lock();
    assert!(poll_with(&mut second, &waker).is_pending());
    drop(guard);
    drop(first);
    assert_eq!(count.wakes(), 1);
    drop(second);
    assert!(!lock.is_locked(), "nobody else waits: it is free");
    assert_eq!(*lock.try_lock().unwrap(), 0);
}

#[test]
fn only_the_newest_waker_is_woken_and_only_once() {
    let (lock, guard) = held();
    let (old, old_waker) = Count::new();
    let (new, new_waker) = Count::new();
    let mut waiter = lock.lock();
    for waker in [&old_waker, &old_waker, &new_waker, &new_waker] {
        assert!(poll_with(&mut waiter, waker).is_pending());
    }
    assert_eq!(lock.statistics().waiting, 1, "no double registration");
    drop(guard);
    assert_eq!((old.wakes(), new.wakes()), (0, 1));
    drop(granted(&mut waiter));
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (2, 2));
}

#[test]
fn a_forgotten_guard_leaves_the_lock_held_and_others_may_come_and_go() {
    let (lock, guard) = held();
    mem::forget(guard);
    drop(queued(&lock));
    assert!(lock.try_lock().is_none());
    assert!(lock.is_locked());
}

#[test]
fn a_guard_dropped_by_a_panic_releases_the_lock() {
    let (lock, mut guard) = held();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        *guard = 3;
        let _released = guard;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panic.is_err());
    assert_eq!(*lock.try_lock().unwrap(), 3);
}

#[test]
fn a_guard_keeps_the_value_alive_and_the_last_owner_drops_it() {
    let value = Arc::new(());
    let lock = Mutex::new(value.clone());
    let guard = lock.try_lock();
    drop(lock);
    assert_eq!(Arc::strong_count(&value), 2);
    drop(guard);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn debug_never_shows_the_value() {
    let lock = Mutex::new("secret");
    let guard = lock.try_lock().unwrap();
    let shown = format!("{lock:?} {guard:?} {:?}", lock.lock());
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
#[should_panic(expected = "polled after it had returned its guard")]
fn polling_after_the_end_is_a_clear_panic() {
    let mut acquire = Mutex::new(0).lock();
    drop(granted(&mut acquire));
    assert!(poll(&mut acquire).is_pending());
}

#[test]
fn threads_exclude_each_other() {
    let rounds = if cfg!(miri) { 20 } else { 500 };
    let lock = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..rounds {
                    *futures_lite::future::block_on(lock.lock()) += 1;
                }
            });
        }
    });
    assert_eq!(*lock.try_lock().unwrap(), 4 * rounds);
}
