//! The limiter's futures, polled by hand.

use std::mem;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};

use super::handle::{Acquire, CapacityLimiter, Token};
use crate::sync::test_waker::{Count, poll, poll_with};

/// A limiter with one token, and that token.
fn taken() -> (CapacityLimiter, Token) {
    let limiter = CapacityLimiter::new(1);
    let token = limiter.try_acquire().expect("the only token is free");
    (limiter, token)
}

/// Polls an acquire once; it must wait.
fn queued(limiter: &CapacityLimiter) -> Acquire {
    let mut acquire = limiter.acquire();
    assert!(poll(&mut acquire).is_pending());
    acquire
}

/// The token of an acquire that must be ready.
fn granted(acquire: &mut Acquire) -> Token {
    match poll(acquire) {
        Poll::Ready(token) => token,
        Poll::Pending => panic!("no token was granted"),
    }
}

#[test]
fn handles_tokens_and_futures_are_send_sync_and_static() {
    fn check<T: Send + Sync + 'static>() {}
    check::<CapacityLimiter>();
    check::<Token>();
    check::<Acquire>();
}

#[test]
fn a_free_token_is_given_at_once_and_comes_back_when_dropped() {
    let limiter = CapacityLimiter::new(2);
    let token = granted(&mut limiter.acquire());
    assert_eq!((limiter.borrowed(), limiter.available()), (1, Some(1)));
    drop(token);
    assert_eq!((limiter.borrowed(), limiter.available()), (0, Some(2)));
}

#[test]
fn an_acquire_that_is_never_polled_takes_nothing() {
    let limiter = CapacityLimiter::new(1);
    let acquire = limiter.acquire();
    assert_eq!(limiter.borrowed(), 0);
    drop(acquire);
    assert!(limiter.try_acquire().is_some());
}

#[test]
fn release_hands_the_token_to_the_longest_waiter_before_it_runs() {
    let (limiter, token) = taken();
    let mut first = queued(&limiter);
    let mut second = queued(&limiter);
    drop(token);
    assert_eq!(limiter.borrowed(), 1);
    assert!(limiter.try_acquire().is_none(), "nobody barges in");
    assert!(
        poll(&mut limiter.acquire()).is_pending(),
        "nobody barges in"
    );
    assert!(poll(&mut second).is_pending());
    drop(granted(&mut first));
    drop(granted(&mut second));
    assert_eq!(limiter.borrowed(), 0);
}

#[test]
fn try_acquire_fails_while_somebody_waits() {
    let (limiter, token) = taken();
    let waiter = queued(&limiter);
    assert!(limiter.try_acquire().is_none());
    drop(waiter);
    drop(token);
    assert!(limiter.try_acquire().is_some());
}

#[test]
fn a_queued_waiter_that_is_dropped_leaves_at_once_and_the_others_keep_their_order() {
    let (limiter, token) = taken();
    let mut first = queued(&limiter);
    let second = queued(&limiter);
    let mut third = queued(&limiter);
    drop(second);
    assert_eq!(limiter.statistics().waiting, 2);
    drop(token);
    assert!(poll(&mut third).is_pending());
    drop(granted(&mut first));
    drop(granted(&mut third));
}

#[test]
fn a_granted_waiter_that_is_dropped_unpolled_passes_its_token_on() {
    let (limiter, token) = taken();
    let first = queued(&limiter);
    let (count, waker) = Count::new();
    let mut second = limiter.acquire();
    assert!(poll_with(&mut second, &waker).is_pending());
    drop(token);
    assert_eq!(count.wakes(), 0);
    drop(first);
    assert_eq!(count.wakes(), 1);
    drop(granted(&mut second));
    assert_eq!(limiter.borrowed(), 0);
}

#[test]
fn the_last_granted_waiter_that_is_dropped_unpolled_frees_its_token() {
    let (limiter, token) = taken();
    let waiter = queued(&limiter);
    drop(token);
    assert_eq!(limiter.borrowed(), 1);
    drop(waiter);
    assert_eq!(limiter.borrowed(), 0);
}

#[test]
fn only_the_newest_waker_is_woken_and_only_once() {
    let (limiter, token) = taken();
    let (old, old_waker) = Count::new();
    let (new, new_waker) = Count::new();
    let mut waiter = limiter.acquire();
    for waker in [&old_waker, &old_waker, &new_waker, &new_waker] {
        assert!(poll_with(&mut waiter, waker).is_pending());
    }
    assert_eq!(limiter.statistics().waiting, 1, "no double registration");
    drop(token);
    assert_eq!((old.wakes(), new.wakes()), (0, 1));
    drop(granted(&mut waiter));
    // Only this test still holds the old waker: by its `Arc` and its `Waker`.
    assert_eq!(Arc::strong_count(&old), 2);
    assert_eq!(Arc::strong_count(&new), 2);
}

#[test]
fn a_forgotten_waiter_costs_the_token_that_reaches_it_and_nothing_else() {
    let limiter = CapacityLimiter::new(2);
    let held = [limiter.try_acquire(), limiter.try_acquire()];
    mem::forget(queued(&limiter));
    let mut next = queued(&limiter);
    drop(held);
    drop(granted(&mut next));
    assert_eq!(limiter.statistics().borrowed, 1);
    assert!(limiter.try_acquire().is_some());
    limiter.set_total(3);
    assert_eq!(limiter.available(), Some(2));
}

#[test]
fn raising_the_total_grants_exactly_the_new_tokens_in_order() {
    let (limiter, token) = taken();
    let mut waiters: Vec<_> = (0..5).map(|_| queued(&limiter)).collect();
    limiter.set_total(4);
    assert_eq!((limiter.borrowed(), limiter.statistics().waiting), (4, 2));
    let _tokens: Vec<_> = waiters[..3].iter_mut().map(granted).collect();
    assert!(poll(&mut waiters[3]).is_pending());
    assert!(poll(&mut waiters[4]).is_pending());
    drop(token);
    drop(granted(&mut waiters[3]));
}

#[test]
fn lowering_the_total_admits_nobody_until_fewer_are_borrowed() {
    let limiter = CapacityLimiter::new(3);
    let mut tokens: Vec<_> = (0..3).map_while(|_| limiter.try_acquire()).collect();
    let mut waiter = queued(&limiter);
    limiter.set_total(1);
    assert_eq!(limiter.available(), Some(-2));
    tokens.pop();
    tokens.pop();
    assert_eq!(limiter.available(), Some(0));
    assert!(poll(&mut waiter).is_pending());
    tokens.pop();
    drop(granted(&mut waiter));
}

#[test]
fn a_limiter_of_zero_admits_nobody_until_it_is_raised() {
    let limiter = CapacityLimiter::new(0);
    let mut waiter = queued(&limiter);
    assert!(limiter.try_acquire().is_none());
    limiter.set_total(1);
    let _token = granted(&mut waiter);
}

#[test]
fn an_unlimited_limiter_counts_and_can_be_limited_and_freed_again() {
    let limiter = CapacityLimiter::unlimited();
    let _tokens: Vec<_> = (0..100).map(|_| granted(&mut limiter.acquire())).collect();
    assert_eq!(
        (limiter.total(), limiter.available(), limiter.borrowed()),
        (None, None, 100)
    );
    limiter.set_total(100);
    let mut waiters: Vec<_> = (0..3).map(|_| queued(&limiter)).collect();
    limiter.set_unlimited();
    let _more: Vec<_> = waiters.iter_mut().map(granted).collect();
    assert_eq!(limiter.borrowed(), 103);
}

#[test]
fn available_is_clamped_to_what_it_can_say() {
    assert_eq!(
        CapacityLimiter::new(usize::MAX).available(),
        Some(isize::MAX)
    );
}

#[test]
#[should_panic(expected = "polled after it had returned its token")]
fn polling_after_the_end_is_a_clear_panic() {
    let limiter = CapacityLimiter::new(1);
    let mut acquire = limiter.acquire();
    drop(granted(&mut acquire));
    assert!(poll(&mut acquire).is_pending());
}

#[test]
fn a_waker_may_use_the_limiter_while_it_is_woken_and_dropped() {
    /// A waker that uses the limiter when it is woken and when it is dropped.
    struct Nosy(CapacityLimiter, Arc<Mutex<Vec<usize>>>);
    impl Nosy {
        fn look(&self) {
            self.1.lock().unwrap().push(self.0.borrowed());
        }
    }
    impl Wake for Nosy {
        fn wake(self: Arc<Self>) {
            self.look();
        }
    }
    impl Drop for Nosy {
        fn drop(&mut self) {
            self.look();
        }
    }
    let (limiter, token) = taken();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let nosy = || Waker::from(Arc::new(Nosy(limiter.clone(), seen.clone())));
    let mut first = limiter.acquire();
    let mut second = limiter.acquire();
    assert!(poll_with(&mut first, &nosy()).is_pending());
    assert!(poll_with(&mut first, &nosy()).is_pending());
    assert_eq!(
        mem::take(&mut *seen.lock().unwrap()),
        [1],
        "the replaced waker was dropped"
    );
    assert!(poll_with(&mut second, &nosy()).is_pending());
    drop(second);
    assert_eq!(
        mem::take(&mut *seen.lock().unwrap()),
        [1],
        "the leaver's waker was dropped"
    );
    drop(token);
    assert_eq!(*seen.lock().unwrap(), [1, 1], "woken, then dropped");
}

#[test]
fn threads_never_hold_more_than_the_limit_and_give_everything_back() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let limiter = CapacityLimiter::new(3);
    let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let token = futures_lite::future::block_on(limiter.acquire());
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(token);
                }
            });
        }
    });
    assert!(most.into_inner() <= 3);
    let statistics = limiter.statistics();
    assert_eq!((statistics.borrowed, statistics.waiting), (0, 0));
}
