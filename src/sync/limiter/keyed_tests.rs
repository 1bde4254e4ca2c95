//! Tokens for keys, polled by hand, and compared with a model that is slow and obviously right.

use std::collections::BTreeSet;
use std::task::Poll;

use proptest::prelude::*;

use super::handle::CapacityLimiter;
use super::keyed::{AcquireFor, KeyInUseError, KeyedToken};
use crate::sync::test_waker::{Count, poll, poll_with};

type Key = &'static str;

/// Polls an acquire once; it must wait.
fn queued(limiter: &CapacityLimiter, key: Key) -> AcquireFor<Key> {
    let mut acquire = limiter.acquire_for(key);
    assert!(poll(&mut acquire).is_pending());
    acquire
}

/// The token of an acquire that must be ready.
fn granted(acquire: &mut AcquireFor<Key>) -> KeyedToken<Key> {
    match poll(acquire) {
        Poll::Ready(Ok(token)) => token,
        other => panic!("no token was granted: {other:?}"),
    }
}

/// Whether the key gets an error instead of a position in the queue.
fn is_refused(limiter: &CapacityLimiter, key: Key) -> bool {
    let refused: Result<_, KeyInUseError> = limiter.try_acquire_for(key);
    let polled = poll(&mut limiter.acquire_for(key));
    let both = (
        refused.is_err(),
        matches!(polled, Poll::Ready(Err(KeyInUseError { .. }))),
    );
    assert_eq!(both.0, both.1);
    both.0
}

#[test]
fn tokens_and_futures_are_send_sync_unpin_and_static() {
    fn check<T: Send + Sync + Unpin + 'static>() {}
    check::<KeyedToken<String>>();
    check::<AcquireFor<String>>();
}

#[test]
fn a_key_gets_one_token_and_a_second_is_refused_without_waiting() {
    let limiter = CapacityLimiter::new(2);
    let ada = granted(&mut limiter.acquire_for("ada"));
    assert!(is_refused(&limiter, "ada"));
    assert_eq!(limiter.borrowed(), 1);
    let grace = limiter.try_acquire_for("grace").unwrap().unwrap();
    assert_eq!(limiter.borrowed(), 2);
    assert_eq!((ada.key(), grace.key()), (&"ada", &"grace"));
}

/// In Trio, both get through and count as one.
#[test]
fn a_second_wait_for_the_same_key_is_refused_until_the_first_is_dropped() {
    let limiter = CapacityLimiter::new(0);
    let first = queued(&limiter, "ada");
    assert!(is_refused(&limiter, "ada"));
    drop(first);
    let free = limiter.try_acquire_for("ada");
    assert!(matches!(free, Ok(None)), "the key is free again");
    drop(queued(&limiter, "ada"));
}

#[test]
fn a_token_dropped_on_another_thread_frees_its_key_and_goes_to_the_longest_waiter() {
    let limiter = CapacityLimiter::new(1);
    let ada = limiter.try_acquire_for("ada").unwrap().unwrap();
    let mut grace = queued(&limiter, "grace");
    assert!(limiter.is_borrowed_by(&"ada"));
    assert!(!limiter.is_borrowed_by(&"grace"), "it only waits");
    std::thread::spawn(move || drop(ada)).join().unwrap();
    assert!(!limiter.is_borrowed_by(&"ada"));
    assert_eq!(limiter.borrowed(), 1, "handed over");
    let grace = granted(&mut grace);
    assert!(limiter.is_borrowed_by(&"grace") && !limiter.is_borrowed_by(&"ada"));
    drop(grace);
    assert_eq!(limiter.borrowed(), 0);
}

#[test]
fn calls_with_and_without_a_key_wait_in_one_queue() {
    let limiter = CapacityLimiter::new(1);
    let token = limiter.try_acquire();
    let mut ada = queued(&limiter, "ada");
    let mut without_key = limiter.acquire();
    assert!(poll(&mut without_key).is_pending());
    drop(token);
    assert!(poll(&mut without_key).is_pending());
    drop(granted(&mut ada));
    assert!(poll(&mut without_key).is_ready());
}

#[test]
fn keys_of_different_types_are_different_keys_and_clones_of_a_limiter_share_them() {
    let limiter = CapacityLimiter::new(9);
    let _small = limiter.try_acquire_for(7_u8).unwrap().unwrap();
    let _large = limiter.try_acquire_for(7_u64).unwrap().unwrap();
    assert!(limiter.clone().try_acquire_for(7_u8).is_err());
    assert_eq!(limiter.clone().borrowers::<u64>(), [7]);
    assert_eq!(limiter.borrowed(), 2);
    let other = CapacityLimiter::new(1);
    assert!(other.try_acquire_for(7_u8).unwrap().is_some());
}

#[test]
fn a_granted_waiter_that_is_dropped_unpolled_passes_its_token_on() {
    let limiter = CapacityLimiter::new(1);
    let token = limiter.try_acquire();
    let ada = queued(&limiter, "ada");
    let (count, waker) = Count::new();
    let mut grace = limiter.acquire_for("grace");
    assert!(poll_with(&mut grace, &waker).is_pending());
    drop(token);
    drop(ada);
    assert_eq!(count.wakes(), 1);
    let _grace = granted(&mut grace);
    assert_eq!(limiter.borrowers::<Key>(), ["grace"]);
}

#[test]
fn tokens_and_waiters_keep_the_limiter_and_its_keys_alive() {
    let limiter = CapacityLimiter::new(1);
    let ada = limiter.try_acquire_for("ada").unwrap().unwrap();
    let mut grace = queued(&limiter, "grace");
    drop(limiter);
    assert_eq!(ada.limiter().borrowers::<Key>(), ["ada"]);
    drop(ada);
    let grace = granted(&mut grace);
    assert_eq!(grace.limiter().borrowers::<Key>(), ["grace"]);
}

#[test]
fn debug_never_shows_the_key() {
    let limiter = CapacityLimiter::new(1);
    let token = limiter.try_acquire_for("secret").unwrap();
    let shown = format!("{token:?} {:?} {limiter:?}", limiter.acquire_for("secret"));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
#[should_panic(expected = "polled after it had completed")]
fn polling_after_the_end_is_a_clear_panic() {
    let limiter = CapacityLimiter::new(1);
    let mut acquire = limiter.acquire_for("ada");
    drop(granted(&mut acquire));
    assert!(poll(&mut acquire).is_pending());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire(u8),
    TryAcquire(u8),
    Leave(usize),
    Release(u8),
    SetTotal(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8).prop_map(Step::Acquire),
        1 => (0..6_u8).prop_map(Step::TryAcquire),
        2 => any::<usize>().prop_map(Step::Leave),
        3 => (0..6_u8).prop_map(Step::Release),
        1 => (0..4_usize).prop_map(Step::SetTotal),
    ]
}

/// The keys that hold a token, and the keys that wait, in order.
#[derive(Debug)]
struct Model {
    total: usize,
    held: BTreeSet<u8>,
    waiting: Vec<u8>,
}

impl Model {
    fn knows(&self, key: u8) -> bool {
        self.held.contains(&key) || self.waiting.contains(&key)
    }

    fn admit(&mut self) {
        while self.held.len() < self.total && !self.waiting.is_empty() {
            let first = self.waiting.remove(0);
            self.held.insert(first);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn keys_get_tokens_as_the_model_says(steps in proptest::collection::vec(step(), 0..80)) {
        let limiter = CapacityLimiter::new(2);
        let mut model = Model { total: 2, held: BTreeSet::new(), waiting: Vec::new() };
        let mut futures: Vec<(u8, AcquireFor<u8>)> = Vec::new();
        let mut tokens: Vec<KeyedToken<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::Acquire(key) => {
                    let mut acquire = limiter.acquire_for(key);
                    let polled = poll(&mut acquire);
                    if model.knows(key) {
                        prop_assert!(matches!(polled, Poll::Ready(Err(_))));
                    } else {
                        model.waiting.push(key);
                        model.admit();
                        prop_assert_eq!(polled.is_ready(), model.held.contains(&key));
                        match polled {
                            Poll::Ready(token) => tokens.push(token.unwrap()),
                            Poll::Pending => futures.push((key, acquire)),
                        }
                    }
                }
                Step::TryAcquire(key) => {
                    let free = model.held.len() < model.total && model.waiting.is_empty();
                    let taken = limiter.try_acquire_for(key);
                    prop_assert_eq!(taken.is_err(), model.knows(key));
                    if let Ok(taken) = taken {
                        prop_assert_eq!(taken.is_some(), free);
                        if let Some(token) = taken {
                            model.held.insert(key);
                            tokens.push(token);
                        }
                    }
                }
                Step::Leave(at) if !futures.is_empty() => {
                    let (key, _) = futures.remove(at % futures.len());
                    model.waiting.retain(|waiting| *waiting != key);
                }
                Step::Leave(_) => (),
                Step::Release(key) => {
                    prop_assert_eq!(limiter.is_borrowed_by(&key), model.held.remove(&key));
                    tokens.retain(|token| *token.key() != key);
                }
                Step::SetTotal(total) => {
                    limiter.set_total(total);
                    model.total = total;
                }
            }
            model.admit();
            futures.retain_mut(|(key, acquire)| {
                let polled = poll(acquire);
                assert_eq!(polled.is_ready(), model.held.contains(key));
                match polled {
                    Poll::Ready(token) => tokens.push(token.unwrap()),
                    Poll::Pending => return true,
                }
                false
            });
            prop_assert_eq!(&BTreeSet::from_iter(limiter.borrowers::<u8>()), &model.held);
            prop_assert_eq!(limiter.borrowed(), model.held.len());
            prop_assert_eq!(limiter.statistics().waiting, model.waiting.len());
        }
        drop((tokens, futures));
        prop_assert_eq!(limiter.borrowed(), 0);
        prop_assert_eq!(limiter.borrowers::<u8>(), Vec::<u8>::new());
    }
}
