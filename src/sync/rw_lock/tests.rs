//! The lock's futures, polled by hand.

use std::future::Future;
use std::mem;
use std::sync::Arc;
use std::task::Poll;

use super::RwLock;
use crate::sync::test_waker::{Count, poll, poll_with};

/// Polls a future once; it must wait.
fn queued<F: Future + Unpin>(mut future: F) -> F {
    assert!(poll(&mut future).is_pending());
    future
}

/// The output of a future that must be ready.
fn granted<F: Future + Unpin>(future: &mut F) -> F::Output {
    match poll(future) {
        Poll::Ready(guard) => guard,
        Poll::Pending => panic!("it was not let in"),
    }
}

#[test]
fn everything_is_send_and_sync_if_the_value_is() {
    fn check<T: Send + Sync + 'static>() {}
    check::<RwLock<u8>>();
    check::<(super::RwLockRead<u8>, super::RwLockWrite<u8>)>();
    check::<(super::RwLockReadGuard<u8>, super::RwLockWriteGuard<u8>)>();
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let lock = RwLock::new(1);
    let readers = (granted(&mut lock.read()), granted(&mut lock.read()));
    assert_eq!(lock.statistics().readers, 2);
    let mut writer = queued(lock.write());
    drop(readers.0);
    assert!(poll(&mut writer).is_pending());
    drop(readers.1);
    let mut guard = granted(&mut writer);
    *guard += 1;
    assert!(lock.try_read().is_none() && lock.try_write().is_none());
    let mut reader = queued(lock.read());
    drop(guard);
    assert_eq!(*granted(&mut reader), 2);
}

#[test]
fn a_reader_that_comes_after_a_waiting_writer_waits() {
    let lock = RwLock::new(0);
    let first = lock.try_read().unwrap();
    let mut writer = queued(lock.write());
    assert!(lock.try_read().is_none());
    let mut readers = [queued(lock.read()), queued(lock.read())];
    let mut last_writer = queued(lock.write());
    let mut last_reader = queued(lock.read());
    let statistics = lock.statistics();
    assert_eq!(
        (statistics.waiting_readers, statistics.waiting_writers),
        (3, 2)
    );

    drop(first);
    drop(granted(&mut writer));
    let inside = readers.each_mut().map(granted);
    assert!(poll(&mut last_reader).is_pending());
    drop(inside);
    drop(granted(&mut last_writer));
    drop(granted(&mut last_reader));
    assert!(lock.try_write().is_some());
}

#[test]
fn nobody_barges_in_before_the_next_owner_has_run() {
    let lock = RwLock::new(0);
    let guard = lock.try_write().unwrap();
    let mut writer = queued(lock.write());
    drop(guard);
    assert!(lock.statistics().writing);
    assert!(lock.try_read().is_none() && lock.try_write().is_none());
    drop(granted(&mut writer));
}

/// In tricycle, these readers wait as long as others read.
#[test]
fn a_cancelled_waiting_writer_lets_in_the_readers_behind_it() {
    let lock = RwLock::new(0);
    let reading = lock.try_read().unwrap();
    let writer = queued(lock.write());
    let (count, waker) = Count::new();
    let mut reader = lock.read();
    assert!(poll_with(&mut reader, &waker).is_pending());
    let mut last_writer = queued(lock.write());
    drop(writer);
    assert_eq!(count.wakes(), 1);
    drop(granted(&mut reader));
    drop(reading);
    drop(granted(&mut last_writer));
}

#[test]
fn a_granted_waiter_that_is_dropped_unpolled_lets_the_next_in() {
    let lock = RwLock::new(0);
    let guard = lock.try_write().unwrap();
    let first = queued(lock.write());
    let second = queued(lock.read());
    let (count, waker) = Count::new();
    let mut third = lock.write();
    assert!(poll_with(&mut third, &waker).is_pending());
    drop(guard);
    drop(first);
    assert_eq!(lock.statistics().readers, 1);
    drop(second);
    assert_eq!(count.wakes(), 1);
    drop(third);
    assert!(lock.try_write().is_some(), "nobody else waits: it is free");
}

#[test]
fn a_queued_waiter_that_is_dropped_leaves_at_once_and_the_others_keep_their_order() {
    let lock = RwLock::new(0);
    let guard = lock.try_write().unwrap();
    let mut first = queued(lock.write());
    let second = queued(lock.read());
    let mut third = queued(lock.write());
    drop(second);
    assert_eq!(lock.statistics().waiting_readers, 0);
    drop(guard);
    assert!(poll(&mut third).is_pending());
    drop(granted(&mut first));
    drop(granted(&mut third));
}

#[test]
fn with_a_read_bias_readers_join_readers_but_a_writer_hands_over_to_the_first() {
    let lock = RwLock::new_read_biased(0);
    let reading = lock.try_read().unwrap();
    let mut writer = queued(lock.write());
    let joined = granted(&mut lock.read());
    drop((reading, joined));
    let guard = granted(&mut writer);
    let mut next_writer = queued(lock.write());
    let mut reader = queued(lock.read());
    drop(guard);
    assert!(poll(&mut reader).is_pending(), "the writer came first");
    let guard = granted(&mut next_writer);
    let mut late_writer = queued(lock.write());
    let mut late_reader = queued(lock.read());
    drop(guard);
    drop((granted(&mut reader), granted(&mut late_reader)));
    drop(granted(&mut late_writer));
}

#[test]
fn switching_the_bias_on_lets_readers_join_readers() {
    let lock = RwLock::new(0);
    let reading = lock.try_read().unwrap();
    let mut writer = queued(lock.write());
    let mut reader = queued(lock.read());
    lock.set_read_biased(true);
    let joined = granted(&mut reader);
    lock.set_read_biased(false);
    assert!(lock.try_read().is_none());
    drop((reading, joined));
    drop(granted(&mut writer));
}

/// tricycle admits readers during the write.
#[test]
fn switching_the_bias_on_while_somebody_writes_lets_nobody_in() {
    let lock = RwLock::new(0);
    let guard = lock.try_write().unwrap();
    let mut reader = queued(lock.read());
    lock.set_read_biased(true);
    assert!(poll(&mut reader).is_pending());
    assert!(lock.try_read().is_none());
    drop(guard);
    drop(granted(&mut reader));
}

#[test]
fn only_the_newest_waker_is_woken_and_only_once() {
    let lock = RwLock::new(0);
    let guard = lock.try_write();
    let (old, old_waker) = Count::new();
    let (new, new_waker) = Count::new();
    let mut reader = lock.read();
    for waker in [&old_waker, &old_waker, &new_waker, &new_waker] {
        assert!(poll_with(&mut reader, waker).is_pending());
    }
    assert_eq!(lock.statistics().waiting_readers, 1);
    drop(guard);
    assert_eq!((old.wakes(), new.wakes()), (0, 1));
    drop(granted(&mut reader));
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (2, 2));
}

#[test]
fn a_forgotten_reader_keeps_writers_out_and_nobody_else() {
    let lock = RwLock::new(0);
    let guard = lock.try_write();
    mem::forget(queued(lock.read()));
    drop(guard);
    assert!(lock.try_write().is_none());
    assert!(lock.try_read().is_some());
}

#[test]
fn debug_never_shows_the_value() {
    let lock = RwLock::new("secret");
    let reader = lock.try_read().unwrap();
    let futures = (lock.read(), lock.write());
    let shown = format!("{lock:?} {reader:?} {futures:?}");
    drop(reader);
    let shown = format!("{shown} {:?}", lock.try_write().unwrap());
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
#[should_panic(expected = "polled after it had returned its guard")]
fn polling_after_the_end_is_a_clear_panic() {
    let mut read = RwLock::new(0).read();
    drop(granted(&mut read));
    assert!(poll(&mut read).is_pending());
}

#[test]
fn threads_that_read_and_write_find_themselves_alone_when_they_write() {
    let rounds = if cfg!(miri) { 20 } else { 500 };
    let lock = RwLock::new((0, 0));
    std::thread::scope(|scope| {
        for writes in [true, false, true, false] {
            let lock = lock.clone();
            scope.spawn(move || {
                for _ in 0..rounds {
                    if writes {
                        let mut pair = futures_lite::future::block_on(lock.write());
                        pair.0 += 1;
                        pair.1 += 1;
                    } else {
                        let pair = futures_lite::future::block_on(lock.read());
                        assert_eq!(pair.0, pair.1);
                    }
                }
            });
        }
    });
    assert_eq!(*lock.try_read().unwrap(), (2 * rounds, 2 * rounds));
}
