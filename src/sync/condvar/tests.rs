//! The condition variable's future, polled by hand.

use std::mem;
use std::sync::Arc;
use std::task::Poll;

use super::{Condvar, CondvarWait};
use crate::sync::mutex::{Mutex, MutexGuard};
use crate::sync::test_waker::{Count, poll, poll_with};

/// Locks the mutex, which must be unlocked.
fn lock(condvar: &Condvar<u32>) -> MutexGuard<u32> {
    condvar.try_lock().expect("nobody holds it")
}

/// Polls a wait once; it must wait.
fn waiting(condvar: &Condvar<u32>) -> CondvarWait<u32> {
    let mut wait = condvar.wait(lock(condvar));
    assert!(poll(&mut wait).is_pending());
    wait
}

fn back(wait: &mut CondvarWait<u32>) -> MutexGuard<u32> {
    match poll(wait) {
        Poll::Ready(guard) => guard,
        Poll::Pending => panic!("it was not notified, or the lock not granted"),
    }
}

/// Notifies `n` waiters and unlocks the mutex.
fn notify(condvar: &Condvar<u32>, n: usize) -> usize {
    condvar.notify(&lock(condvar), n)
}

#[test]
fn handles_and_futures_are_send_sync_and_static() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Condvar<u32>>();
    check::<CondvarWait<u32>>();
}

#[test]
fn waiting_releases_the_lock_and_a_notified_waiter_has_it_again() {
    let condvar = Condvar::new(1);
    let mut wait = waiting(&condvar);
    assert!(!condvar.mutex().is_locked());
    assert!(poll(&mut wait).is_pending());
    let mut guard = lock(&condvar);
    *guard = 2;
    assert_eq!(condvar.notify_all(&guard), 1);
    assert!(poll(&mut wait).is_pending(), "the notifier has the lock");
    drop(guard);
    let guard = back(&mut wait);
    assert_eq!(*guard, 2);
    assert!(condvar.mutex().is_locked());
}

#[test]
fn notify_takes_the_longest_waiters_and_they_get_the_lock_in_order() {
    let condvar = Condvar::new(0);
    let mut waits: Vec<_> = (0..4).map(|_| waiting(&condvar)).collect();
    assert_eq!(notify(&condvar, 3), 3);
    assert_eq!(condvar.statistics().waiting, 1);
    assert!(poll(&mut waits[1]).is_pending());
    assert!(poll(&mut waits[3]).is_pending());
    drop(back(&mut waits[0]));
    assert!(poll(&mut waits[2]).is_pending());
    drop(back(&mut waits[1]));
    drop(back(&mut waits[2]));
    assert!(poll(&mut waits[3]).is_pending());
    assert_eq!(notify(&condvar, 3), 1);
    drop(back(&mut waits[3]));
}

#[test]
fn notified_waiters_queue_behind_those_who_wait_for_the_lock_already() {
    let condvar = Condvar::new(0);
    let mut wait = waiting(&condvar);
    let guard = lock(&condvar);
    let mut acquire = condvar.lock();
    assert!(poll(&mut acquire).is_pending());
    condvar.notify(&guard, 1);
    assert_eq!(condvar.statistics().mutex.waiting, 2);
    drop(guard);
    assert!(poll(&mut wait).is_pending());
    drop(poll(&mut acquire));
    drop(back(&mut wait));
}

#[test]
fn a_notified_waiter_is_woken_only_when_the_lock_is_its_own() {
    let condvar = Condvar::new(0);
    let (count, waker) = Count::new();
    let mut wait = condvar.wait(lock(&condvar));
    assert!(poll_with(&mut wait, &waker).is_pending());
    let guard = lock(&condvar);
    condvar.notify(&guard, 1);
    assert_eq!(count.wakes(), 0);
    drop(guard);
    assert_eq!(count.wakes(), 1);
}

#[test]
fn a_notification_while_nobody_waits_is_gone() {
    let condvar = Condvar::new(0);
    assert_eq!(notify(&condvar, 1), 0);
    assert!(poll(&mut waiting(&condvar)).is_pending());
}

#[test]
fn a_waiter_that_is_dropped_leaves_at_once_and_the_others_keep_their_order() {
    let condvar = Condvar::new(0);
    let mut first = waiting(&condvar);
    let second = waiting(&condvar);
    let mut third = waiting(&condvar);
    drop(second);
    assert_eq!(condvar.statistics().waiting, 2);
    assert_eq!(notify(&condvar, 2), 2);
    assert!(poll(&mut third).is_pending());
    drop(back(&mut first));
    drop(back(&mut third));
}

#[test]
fn a_wait_that_is_dropped_unpolled_releases_the_lock() {
    let condvar = Condvar::new(0);
    drop(condvar.wait(lock(&condvar)));
    assert!(!condvar.mutex().is_locked());
}

/// Trio loses this notification, because its waiter is cancelled before it locks the mutex again.
#[test]
fn a_notification_that_reaches_a_cancelled_waiter_is_passed_on() {
    // In each state of the notified waiter: not polled since; polled, and in the mutex's queue;
    // assigned the mutex, and not polled since.
    for looked in [false, true] {
        for granted in [false, true] {
            let condvar = Condvar::new(0);
            let mut first = waiting(&condvar);
            let (count, waker) = Count::new();
            let mut second = condvar.wait(lock(&condvar));
            assert!(poll_with(&mut second, &waker).is_pending());
            let mut holder = Some(lock(&condvar));
            condvar.notify(holder.as_ref().unwrap(), 1);
            if looked {
                assert!(poll(&mut first).is_pending());
            }
            if granted {
                holder = None;
            }
            drop(first);
            assert_eq!(condvar.statistics().waiting, 0);
            drop(holder);
            assert_eq!(count.wakes(), 1);
            drop(back(&mut second));
            assert!(!condvar.mutex().is_locked());
        }
    }
}

#[test]
fn a_notification_that_is_passed_on_keeps_its_place_in_the_locks_queue() {
    let condvar = Condvar::new(0);
    let first = waiting(&condvar);
    let mut second = waiting(&condvar);
    let guard = lock(&condvar);
    condvar.notify(&guard, 1);
    let mut late = condvar.lock();
    assert!(poll(&mut late).is_pending());
    drop(first);
    drop(guard);
    assert!(poll(&mut late).is_pending());
    drop(back(&mut second));
    assert!(poll(&mut late).is_ready());
}

#[test]
fn the_last_notified_waiter_that_is_dropped_frees_the_lock() {
    let condvar = Condvar::new(0);
    let wait = waiting(&condvar);
    notify(&condvar, 1);
    assert!(condvar.mutex().is_locked());
    drop(wait);
    assert!(!condvar.mutex().is_locked());
}

#[test]
fn only_the_newest_waker_is_woken_whether_it_changes_before_or_after_the_notification() {
    let condvar = Condvar::new(0);
    let (old, old_waker) = Count::new();
    let (new, new_waker) = Count::new();
    for after in [false, true] {
        let mut wait = condvar.wait(lock(&condvar));
        assert!(poll_with(&mut wait, &old_waker).is_pending());
        let guard = condvar.try_lock().unwrap();
        if after {
            condvar.notify(&guard, 1);
        }
        assert!(poll_with(&mut wait, &new_waker).is_pending());
        assert!(poll_with(&mut wait, &new_waker).is_pending());
        condvar.notify(&guard, 1);
        drop(guard);
        assert_eq!((old.wakes(), new.wakes()), (0, 1 + usize::from(after)));
        drop(back(&mut wait));
    }
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (2, 2));
}

#[test]
fn a_forgotten_waiter_costs_the_notification_that_reaches_it_and_then_the_lock() {
    let condvar = Condvar::new(0);
    mem::forget(waiting(&condvar));
    let mut next = waiting(&condvar);
    assert_eq!(notify(&condvar, 1), 1);
    assert!(condvar.mutex().is_locked());
    assert!(poll(&mut next).is_pending());
}

#[test]
#[should_panic(expected = "the guard of another mutex")]
fn the_guard_of_another_lock_is_a_clear_panic() {
    let other = Mutex::new(0).try_lock().unwrap();
    Condvar::new(0).notify_all(&other);
}

#[test]
#[should_panic(expected = "polled after it had returned its guard")]
fn polling_after_the_end_is_a_clear_panic() {
    let condvar = Condvar::new(0);
    let mut wait = waiting(&condvar);
    notify(&condvar, 1);
    drop(back(&mut wait));
    assert!(poll(&mut wait).is_pending());
}

#[test]
fn threads_that_pass_a_turn_around_lose_no_notification() {
    let turn = Condvar::new(0);
    std::thread::scope(|scope| {
        for own in 0..3 {
            let turn = turn.clone();
            scope.spawn(move || {
                futures_lite::future::block_on(async {
                    for _ in 0..200 {
                        let mut now = turn.lock().await;
                        while *now % 3 != own {
                            now = turn.wait(now).await;
                        }
                        *now += 1;
                        turn.notify_all(&now);
                    }
                });
            });
        }
    });
    assert_eq!(*turn.try_lock().unwrap(), 600);
}
