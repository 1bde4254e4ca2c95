//! Borrowers, polled by hand, and against a model that is slow and obviously right.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::sync::test_waker::{Count, poll, poll_with};

type Name = &'static str;

fn borrowers(tokens: usize) -> (CapacityLimiter, Borrowers<Name>) {
    let limiter = CapacityLimiter::new(tokens);
    let borrowers = Borrowers::new(&limiter);
    (limiter, borrowers)
}

fn queued(borrowers: &Borrowers<Name>, name: Name) -> AcquireFor<Name> {
    let mut acquire = borrowers.acquire(name);
    assert!(poll(&mut acquire).is_pending());
    acquire
}

#[test]
fn handles_and_futures_are_send_sync_unpin_and_static() {
    fn check<T: Send + Sync + Unpin + 'static>() {}
    check::<Borrowers<String>>();
    check::<AcquireFor<String>>();
}

#[test]
fn a_borrower_gets_one_token_and_a_second_is_refused_without_waiting() {
    let (limiter, borrowers) = borrowers(2);
    assert_eq!(poll(&mut borrowers.acquire("ada")), Poll::Ready(Ok(())));
    let refused = Poll::Ready(Err(AlreadyBorrowing { _private: () }));
    assert_eq!(poll(&mut borrowers.acquire("ada")), refused);
    assert!(borrowers.try_acquire("ada").is_err());
    assert_eq!(limiter.borrowed(), 1);
    assert_eq!(borrowers.try_acquire("grace"), Ok(true));
    assert_eq!(limiter.borrowed(), 2);
}

/// Trio lets both through, and counts them as one.
#[test]
fn two_who_wait_for_the_same_borrower_are_one_too_many() {
    let (_limiter, borrowers) = borrowers(0);
    let first = queued(&borrowers, "ada");
    assert!(matches!(
        poll(&mut borrowers.acquire("ada")),
        Poll::Ready(Err(_))
    ));
    assert!(borrowers.try_acquire("ada").is_err());
    drop(first);
    assert_eq!(
        borrowers.try_acquire("ada"),
        Ok(false),
        "the name is free again"
    );
    drop(queued(&borrowers, "ada"));
}

#[test]
fn anybody_may_release_and_only_what_is_held() {
    let (limiter, borrowers) = borrowers(1);
    assert!(!borrowers.release(&"ada"));
    assert_eq!(borrowers.try_acquire("ada"), Ok(true));
    let mut grace = queued(&borrowers, "grace");
    assert!(!borrowers.release(&"grace"), "she has none yet");
    let other = borrowers.clone();
    std::thread::spawn(move || assert!(other.release(&"ada")))
        .join()
        .unwrap();
    assert!(!borrowers.release(&"ada"));
    assert_eq!(limiter.borrowed(), 1, "handed over");
    assert_eq!(poll(&mut grace), Poll::Ready(Ok(())));
    assert!(borrowers.holds(&"grace") && !borrowers.holds(&"ada"));
}

#[test]
fn named_and_nameless_are_served_in_one_order() {
    let (limiter, borrowers) = borrowers(1);
    let token = limiter.try_acquire();
    let mut ada = queued(&borrowers, "ada");
    let mut nameless = limiter.acquire();
    assert!(poll(&mut nameless).is_pending());
    drop(token);
    assert!(poll(&mut nameless).is_pending());
    assert_eq!(poll(&mut ada), Poll::Ready(Ok(())));
    assert!(borrowers.release(&"ada"));
    assert!(poll(&mut nameless).is_ready());
}

#[test]
fn a_granted_waiter_that_is_dropped_unpolled_passes_its_token_on() {
    let (limiter, borrowers) = borrowers(1);
    let token = limiter.try_acquire();
    let ada = queued(&borrowers, "ada");
    let (count, waker) = Count::new();
    let mut grace = borrowers.acquire("grace");
    assert!(poll_with(&mut grace, &waker).is_pending());
    drop(token);
    drop(ada);
    assert_eq!(count.wakes(), 1);
    assert_eq!(poll(&mut grace), Poll::Ready(Ok(())));
    assert_eq!(borrowers.statistics().borrowers, ["grace"]);
}

#[test]
fn the_last_handle_gives_all_tokens_back_and_whoever_waits_keeps_it() {
    let (limiter, borrowers) = borrowers(1);
    assert_eq!(borrowers.try_acquire("ada"), Ok(true));
    let waiting = queued(&borrowers, "grace");
    drop(borrowers);
    assert_eq!(limiter.borrowed(), 1);
    drop(waiting);
    assert_eq!(limiter.borrowed(), 0);
}

#[test]
#[should_panic(expected = "polled after it had completed")]
fn polling_after_the_end_is_a_clear_panic() {
    let (_limiter, borrowers) = borrowers(1);
    let mut acquire = borrowers.acquire("ada");
    assert!(poll(&mut acquire).is_ready());
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

/// Who holds, and who waits in which order.
#[derive(Debug)]
struct Model {
    total: usize,
    held: BTreeSet<u8>,
    waiting: Vec<u8>,
}

impl Model {
    fn knows(&self, name: u8) -> bool {
        self.held.contains(&name) || self.waiting.contains(&name)
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

    #[test]
    fn borrowers_do_what_the_model_does(steps in proptest::collection::vec(step(), 0..80)) {
        let limiter = CapacityLimiter::new(2);
        let borrowers = Borrowers::new(&limiter);
        let mut model = Model { total: 2, held: BTreeSet::new(), waiting: Vec::new() };
        let mut futures: Vec<(u8, AcquireFor<u8>)> = Vec::new();
        for step in steps {
            match step {
                Step::Acquire(name) => {
                    let mut acquire = borrowers.acquire(name);
                    let polled = poll(&mut acquire);
                    if model.knows(name) {
                        prop_assert!(matches!(polled, Poll::Ready(Err(_))));
                    } else {
                        model.waiting.push(name);
                        model.admit();
                        prop_assert_eq!(polled.is_ready(), model.held.contains(&name));
                        if polled.is_pending() {
                            futures.push((name, acquire));
                        }
                    }
                }
                Step::TryAcquire(name) => {
                    let free = model.held.len() < model.total && model.waiting.is_empty();
                    let taken = borrowers.try_acquire(name);
                    prop_assert_eq!(taken.is_err(), model.knows(name));
                    if let Ok(taken) = taken {
                        prop_assert_eq!(taken, free);
                        if taken {
                            model.held.insert(name);
                        }
                    }
                }
                Step::Leave(at) if !futures.is_empty() => {
                    let (name, _) = futures.remove(at % futures.len());
                    model.waiting.retain(|waiting| *waiting != name);
                }
                Step::Leave(_) => (),
                Step::Release(name) => {
                    prop_assert_eq!(borrowers.release(&name), model.held.remove(&name));
                }
                Step::SetTotal(total) => {
                    limiter.set_total(total);
                    model.total = total;
                }
            }
            model.admit();
            futures.retain_mut(|(name, acquire)| {
                let ready = poll(acquire).is_ready();
                assert_eq!(ready, model.held.contains(name));
                !ready
            });
            let statistics = borrowers.statistics();
            prop_assert_eq!(&BTreeSet::from_iter(statistics.borrowers), &model.held);
            prop_assert_eq!(statistics.limiter.borrowed, model.held.len());
            prop_assert_eq!(statistics.limiter.waiting, model.waiting.len());
        }
        drop((borrowers, futures));
        prop_assert_eq!(limiter.borrowed(), 0);
    }
}
