//! Assertions on checkpoints, applied to this crate's functions.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::panics::panic_of;
use crate::polling::{Hand, end_at_every_poll, turns};
use crate::{SECOND, with_clock};
use seedbed::cancel::checkpoint_if_cancelled;
use seedbed::sync::Event;
use seedbed::testing::{MockClock, assert_checkpoints, assert_no_checkpoints};
use seedbed::time::{current_time, sleep_forever};
use seedbed::{CancelScope, checkpoint, on_cancel, open_nursery, run, shield, sleep};

// ---- Assertions on checkpoints.

#[test]
fn a_future_that_waits_passes_and_its_value_is_returned() {
    let value = Hand::new(assert_checkpoints(async {
        checkpoint().await;
        5
    }));
    assert_eq!(value.finish(), 5);
}

#[test]
fn a_future_that_never_waits_fails_where_checkpoints_are_asserted() {
    let message = panic_of(|| Hand::new(assert_checkpoints(async {})).finish());
    assert!(message.contains("ended without waiting"), "{message}");
    assert!(
        message.contains("tests/testing/checkpoints.rs"),
        "it says where: {message}"
    );
    // It is a cancel point if the caller is cancelled, but otherwise lets no other task run: half a
    // checkpoint.
    panic_of(|| Hand::new(assert_checkpoints(checkpoint_if_cancelled())).finish());
}

#[test]
fn waiting_where_nothing_can_be_cancelled_is_no_checkpoint() {
    let message = panic_of(|| Hand::new(assert_checkpoints(shield(checkpoint()))).finish());
    assert!(message.contains("behind a shield"), "{message}");
    panic_of(|| Hand::new(assert_checkpoints(on_cancel(checkpoint(), async {}))).finish());
    // One checkpoint is enough, before or after the shield.
    for before in [true, false] {
        let both = assert_checkpoints(async {
            if before {
                (checkpoint().await, shield(checkpoint()).await)
            } else {
                (shield(checkpoint()).await, checkpoint().await)
            }
        });
        Hand::new(both).finish();
    }
    // A shield around the assertion does not belong to the future, so it does not count.
    Hand::new(shield(assert_checkpoints(checkpoint()))).finish();
}

#[test]
fn a_future_that_does_not_wait_passes_where_no_checkpoint_may_be() {
    let event = Event::new();
    event.set();
    Hand::new(assert_no_checkpoints(event.wait())).finish();
    assert_eq!(Hand::new(assert_no_checkpoints(async { 5 })).finish(), 5);
    Hand::new(assert_no_checkpoints(checkpoint_if_cancelled())).finish();
    assert_eq!(
        Hand::new(assert_no_checkpoints(CancelScope::new().run(async { 5 }))).finish(),
        Some(5)
    );
}

#[test]
fn a_future_that_waits_fails_at_once_where_no_checkpoint_may_be() {
    let message = panic_of(|| Hand::new(assert_no_checkpoints(checkpoint())).finish());
    assert!(message.contains("the future waits"), "{message}");
    assert!(
        message.contains("tests/testing/checkpoints.rs"),
        "it says where: {message}"
    );
    panic_of(|| Hand::new(assert_no_checkpoints(shield(checkpoint()))).finish());
    panic_of(|| {
        assert!(
            Hand::new(assert_no_checkpoints(sleep_forever()))
                .poll()
                .is_ready()
        )
    });
}

#[test]
fn a_future_s_own_panic_goes_through_both_assertions() {
    let boom = || async { panic!("boom") };
    let checked = panic_of(|| Hand::new(assert_checkpoints(boom())).finish());
    let unchecked = panic_of(|| Hand::new(assert_no_checkpoints(boom())).finish());
    assert_eq!((checked.as_str(), unchecked.as_str()), ("boom", "boom"));
}

#[test]
fn a_future_that_is_cancelled_in_an_assertion_is_not_judged() {
    let polls = end_at_every_poll(|drops| {
        assert_checkpoints(async move {
            let value = drops.value();
            shield(turns(2)).await;
            turns(2).await;
            drop(value);
        })
    });
    assert_eq!(polls, 4);
}

// ---- This crate's functions.

#[test]
fn only_an_operation_that_has_to_wait_is_a_checkpoint() {
    let clock = MockClock::autojump();
    with_clock(
        &clock,
        open_nursery(async |n| {
            assert_checkpoints(checkpoint()).await;
            assert_checkpoints(sleep(Duration::ZERO)).await;
            assert_checkpoints(sleep(SECOND)).await;
            assert_checkpoints(seedbed::time::sleep_until(current_time() - SECOND)).await;
            assert_no_checkpoints(open_nursery(async |_: seedbed::Nursery<'_>| {})).await;
            let event = Event::new();
            let later = event.clone();
            n.spawn(async move { later.set() });
            assert_checkpoints(event.wait()).await;
            assert_no_checkpoints(event.wait()).await;
        }),
    );
}

#[test]
fn a_task_of_the_run_is_never_polled_while_another_one_holds_the_turn() {
    let ran = AtomicBool::new(false);
    let seen = &ran;
    run(open_nursery(async |n| {
        n.spawn(async move { seen.store(true, SeqCst) });
        assert_no_checkpoints(async { assert!(!seen.load(SeqCst)) }).await;
        assert_checkpoints(checkpoint()).await;
        assert!(seen.load(SeqCst));
    }));
}
