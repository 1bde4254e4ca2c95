//! The condition's futures, polled by hand.

use std::mem;
use std::sync::Arc;
use std::task::Poll;

use super::{Condition, ConditionWait};
use crate::sync::lock::{Lock, LockGuard};
use crate::sync::test_waker::{Count, poll, poll_with};

/// The lock, which must be free.
fn lock(condition: &Condition<u32>) -> LockGuard<u32> {
    condition.try_acquire().expect("nobody holds it")
}

/// A wait that waits.
fn waiting(condition: &Condition<u32>) -> ConditionWait<u32> {
    let mut wait = condition.wait(lock(condition));
    assert!(poll(&mut wait).is_pending());
    wait
}

fn back(wait: &mut ConditionWait<u32>) -> LockGuard<u32> {
    match poll(wait) {
        Poll::Ready(guard) => guard,
        Poll::Pending => panic!("it was not notified, or the lock not granted"),
    }
}

/// Notifies so many, and lets the lock go.
fn notify(condition: &Condition<u32>, n: usize) -> usize {
    condition.notify(&lock(condition), n)
}

#[test]
fn handles_and_futures_are_send_sync_and_static() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Condition<u32>>();
    check::<ConditionWait<u32>>();
}

#[test]
fn waiting_releases_the_lock_and_a_notified_waiter_has_it_again() {
    let condition = Condition::new(1);
    let mut wait = waiting(&condition);
    assert!(!condition.lock().is_locked());
    assert!(poll(&mut wait).is_pending());
    let mut guard = lock(&condition);
    *guard = 2;
    assert_eq!(condition.notify_all(&guard), 1);
    assert!(poll(&mut wait).is_pending(), "the notifier has the lock");
    drop(guard);
    let guard = back(&mut wait);
    assert_eq!(*guard, 2);
    assert!(condition.lock().is_locked());
}

#[test]
fn notify_takes_the_longest_waiters_and_they_get_the_lock_in_order() {
    let condition = Condition::new(0);
    let mut waits: Vec<_> = (0..4).map(|_| waiting(&condition)).collect();
    assert_eq!(notify(&condition, 3), 3);
    assert_eq!(condition.statistics().waiting, 1);
    assert!(poll(&mut waits[1]).is_pending());
    assert!(poll(&mut waits[3]).is_pending());
    drop(back(&mut waits[0]));
    assert!(poll(&mut waits[2]).is_pending());
    drop(back(&mut waits[1]));
    drop(back(&mut waits[2]));
    assert!(poll(&mut waits[3]).is_pending());
    assert_eq!(notify(&condition, 3), 1);
    drop(back(&mut waits[3]));
}

#[test]
fn notified_waiters_queue_behind_those_who_wait_for_the_lock_already() {
    let condition = Condition::new(0);
    let mut wait = waiting(&condition);
    let guard = lock(&condition);
    let mut acquire = condition.acquire();
    assert!(poll(&mut acquire).is_pending());
    condition.notify(&guard, 1);
    assert_eq!(condition.statistics().lock.waiting, 2);
    drop(guard);
    assert!(poll(&mut wait).is_pending());
    drop(poll(&mut acquire));
    drop(back(&mut wait));
}

#[test]
fn a_notified_waiter_is_woken_only_when_the_lock_is_its_own() {
    let condition = Condition::new(0);
    let (count, waker) = Count::new();
    let mut wait = condition.wait(lock(&condition));
    assert!(poll_with(&mut wait, &waker).is_pending());
    let guard = lock(&condition);
    condition.notify(&guard, 1);
    assert_eq!(count.wakes(), 0);
    drop(guard);
    assert_eq!(count.wakes(), 1);
}

#[test]
fn a_notification_while_nobody_waits_is_gone() {
    let condition = Condition::new(0);
    assert_eq!(notify(&condition, 1), 0);
    assert!(poll(&mut waiting(&condition)).is_pending());
}

#[test]
fn a_waiter_that_is_dropped_leaves_at_once_and_the_others_keep_their_order() {
    let condition = Condition::new(0);
    let mut first = waiting(&condition);
    let second = waiting(&condition);
    let mut third = waiting(&condition);
    drop(second);
    assert_eq!(condition.statistics().waiting, 2);
    assert_eq!(notify(&condition, 2), 2);
    assert!(poll(&mut third).is_pending());
    drop(back(&mut first));
    drop(back(&mut third));
}

#[test]
fn a_wait_that_is_dropped_unpolled_releases_the_lock() {
    let condition = Condition::new(0);
    drop(condition.wait(lock(&condition)));
    assert!(!condition.lock().is_locked());
}

/// Trio loses this notification: the waiter that it reached is cancelled before it has the lock again.
#[test]
fn a_notification_that_reaches_a_cancelled_waiter_is_passed_on() {
    // In each place where the notified waiter can be: it has not looked since; it is in the lock's queue and knows; the
    // lock is its own, and it has not looked since.
    for looked in [false, true] {
        for granted in [false, true] {
            let condition = Condition::new(0);
            let mut first = waiting(&condition);
            let (count, waker) = Count::new();
            let mut second = condition.wait(lock(&condition));
            assert!(poll_with(&mut second, &waker).is_pending());
            let mut holder = Some(lock(&condition));
            condition.notify(holder.as_ref().unwrap(), 1);
            if looked {
                assert!(poll(&mut first).is_pending());
            }
            if granted {
                holder = None;
            }
            drop(first);
            assert_eq!(condition.statistics().waiting, 0);
            drop(holder);
            assert_eq!(count.wakes(), 1);
            drop(back(&mut second));
            assert!(!condition.lock().is_locked());
        }
    }
}

#[test]
fn a_notification_that_is_passed_on_keeps_its_place_in_the_locks_queue() {
    let condition = Condition::new(0);
    let first = waiting(&condition);
    let mut second = waiting(&condition);
    let guard = lock(&condition);
    condition.notify(&guard, 1);
    let mut late = condition.acquire();
    assert!(poll(&mut late).is_pending());
    drop(first);
    drop(guard);
    assert!(poll(&mut late).is_pending());
    drop(back(&mut second));
    assert!(poll(&mut late).is_ready());
}

#[test]
fn the_last_notified_waiter_that_is_dropped_frees_the_lock() {
    let condition = Condition::new(0);
    let wait = waiting(&condition);
    notify(&condition, 1);
    assert!(condition.lock().is_locked());
    drop(wait);
    assert!(!condition.lock().is_locked());
}

#[test]
fn only_the_newest_waker_is_woken_whether_it_changes_before_or_after_the_notification() {
    let condition = Condition::new(0);
    let (old, old_waker) = Count::new();
    let (new, new_waker) = Count::new();
    for after in [false, true] {
        let mut wait = condition.wait(lock(&condition));
        assert!(poll_with(&mut wait, &old_waker).is_pending());
        let guard = condition.try_acquire().unwrap();
        if after {
            condition.notify(&guard, 1);
        }
        assert!(poll_with(&mut wait, &new_waker).is_pending());
        assert!(poll_with(&mut wait, &new_waker).is_pending());
        condition.notify(&guard, 1);
        drop(guard);
        assert_eq!((old.wakes(), new.wakes()), (0, 1 + usize::from(after)));
        drop(back(&mut wait));
    }
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (2, 2));
}

#[test]
fn a_forgotten_waiter_costs_the_notification_that_reaches_it_and_then_the_lock() {
    let condition = Condition::new(0);
    mem::forget(waiting(&condition));
    let mut next = waiting(&condition);
    assert_eq!(notify(&condition, 1), 1);
    assert!(condition.lock().is_locked());
    assert!(poll(&mut next).is_pending());
}

#[test]
#[should_panic(expected = "the guard of another lock")]
fn the_guard_of_another_lock_is_a_clear_panic() {
    let other = Lock::new(0).try_acquire().unwrap();
    Condition::new(0).notify_all(&other);
}

#[test]
#[should_panic(expected = "polled after it had given its guard")]
fn polling_after_the_end_is_a_clear_panic() {
    let condition = Condition::new(0);
    let mut wait = waiting(&condition);
    notify(&condition, 1);
    drop(back(&mut wait));
    assert!(poll(&mut wait).is_pending());
}

#[test]
fn threads_that_pass_a_turn_around_lose_no_notification() {
    let turn = Condition::new(0);
    std::thread::scope(|scope| {
        for own in 0..3 {
            let turn = turn.clone();
            scope.spawn(move || {
                futures_lite::future::block_on(async {
                    for _ in 0..200 {
                        let mut now = turn.acquire().await;
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
    assert_eq!(*turn.try_acquire().unwrap(), 600);
}
