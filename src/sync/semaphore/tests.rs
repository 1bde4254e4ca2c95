//! The semaphore's futures, polled by hand.

use std::mem;
use std::sync::Arc;
use std::task::Poll;

use super::{Permit, ReleaseError, Semaphore, SemaphoreAcquire};
use crate::sync::test_waker::{Count, poll, poll_with};

/// A semaphore with one permit, and that permit.
fn taken() -> (Semaphore, Permit) {
    let semaphore = Semaphore::bounded(1, 1);
    let permit = semaphore.try_acquire().expect("the only permit is free");
    (semaphore, permit)
}

fn queued(semaphore: &Semaphore) -> SemaphoreAcquire {
    let mut acquire = semaphore.acquire();
    assert!(poll(&mut acquire).is_pending());
    acquire
}

fn granted(acquire: &mut SemaphoreAcquire) -> Permit {
    match poll(acquire) {
        Poll::Ready(permit) => permit,
        Poll::Pending => panic!("no permit was granted"),
    }
}

#[test]
fn handles_permits_and_futures_are_send_sync_and_static() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Semaphore>();
    check::<Permit>();
    check::<SemaphoreAcquire>();
}

#[test]
fn a_permit_goes_to_the_longest_waiter_before_it_runs_and_the_value_stays_zero() {
    let (semaphore, permit) = taken();
    let (mut first, mut second) = (queued(&semaphore), queued(&semaphore));
    drop(permit);
    assert_eq!(semaphore.value(), 0);
    assert!(semaphore.try_acquire().is_none(), "nobody barges in");
    assert!(poll(&mut second).is_pending());
    drop(granted(&mut first));
    drop(granted(&mut second));
    assert_eq!(semaphore.value(), 1);
}

#[test]
fn anybody_may_release_and_a_release_too_many_is_refused() {
    let semaphore = Semaphore::bounded(1, 2);
    assert_eq!(semaphore.release(), Ok(()));
    assert_eq!(semaphore.release(), Err(ReleaseError { max: 2 }));
    assert_eq!(semaphore.value(), 2);
}

#[test]
fn a_release_too_many_is_refused_also_while_somebody_waits() {
    let (semaphore, permit) = taken();
    let mut waiter = queued(&semaphore);
    assert!(semaphore.release().is_err());
    assert!(poll(&mut waiter).is_pending());
    permit.forget();
    assert_eq!(semaphore.release(), Ok(()));
    assert!(
        semaphore.release().is_err(),
        "it is on its way to the waiter"
    );
    drop(granted(&mut waiter));
}

#[test]
fn a_permit_that_comes_home_always_fits() {
    let (semaphore, permit) = taken();
    assert!(semaphore.release().is_err());
    drop(permit);
    assert_eq!(semaphore.statistics().held, 0);
    assert_eq!(semaphore.value(), 1);
}

#[test]
fn without_a_bound_the_permits_are_counted_up_to_the_end_of_the_numbers() {
    let semaphore = Semaphore::new(usize::MAX);
    let permit = semaphore.try_acquire();
    assert!(semaphore.release().is_err());
    drop(permit);
    assert_eq!(semaphore.value(), usize::MAX);
}

#[test]
#[should_panic(expected = "at most 1 permits cannot begin with 2")]
fn beginning_above_the_bound_is_a_clear_panic() {
    drop(Semaphore::bounded(2, 1));
}

#[test]
fn a_queued_waiter_that_is_dropped_leaves_at_once_and_the_others_keep_their_order() {
    let (semaphore, permit) = taken();
    let mut first = queued(&semaphore);
    let second = queued(&semaphore);
    let mut third = queued(&semaphore);
    drop(second);
    assert_eq!(semaphore.statistics().waiting, 2);
    drop(permit);
    assert!(poll(&mut third).is_pending());
    drop(granted(&mut first));
    drop(granted(&mut third));
}

#[test]
fn a_granted_waiter_that_is_dropped_unpolled_passes_its_permit_on() {
    let (semaphore, permit) = taken();
    let first = queued(&semaphore);
    let (count, waker) = Count::new();
    let mut second = semaphore.acquire();
    assert!(poll_with(&mut second, &waker).is_pending());
    drop(permit);
    assert_eq!(count.wakes(), 0);
    drop(first);
    assert_eq!(count.wakes(), 1);
    drop(second);
    assert_eq!(semaphore.value(), 1, "nobody else waits: it is free");
}

#[test]
fn only_the_newest_waker_is_woken_and_only_once() {
    let (semaphore, permit) = taken();
    let (old, old_waker) = Count::new();
    let (new, new_waker) = Count::new();
    let mut waiter = semaphore.acquire();
    for waker in [&old_waker, &old_waker, &new_waker, &new_waker] {
        assert!(poll_with(&mut waiter, waker).is_pending());
    }
    assert_eq!(semaphore.statistics().waiting, 1, "no double registration");
    drop(permit);
    assert_eq!((old.wakes(), new.wakes()), (0, 1));
    drop(granted(&mut waiter));
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (2, 2));
}

#[test]
fn a_forgotten_waiter_costs_the_permit_that_reaches_it_and_nothing_else() {
    let semaphore = Semaphore::new(2);
    let held = [semaphore.try_acquire(), semaphore.try_acquire()];
    mem::forget(queued(&semaphore));
    let mut next = queued(&semaphore);
    drop(held);
    drop(granted(&mut next));
    assert_eq!(semaphore.statistics().held, 1);
    assert_eq!(semaphore.value(), 1);
}

#[test]
#[should_panic(expected = "polled after it had returned its permit")]
fn polling_after_the_end_is_a_clear_panic() {
    let mut acquire = Semaphore::new(1).acquire();
    drop(granted(&mut acquire));
    assert!(poll(&mut acquire).is_pending());
}
