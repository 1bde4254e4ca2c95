//! Sequences: blocks that run one after the other, whichever task arrives first.

use std::cell::{Cell, RefCell};
use std::task::Poll;

use crate::panics::panic_of;
use crate::polling::{Drops, Hand, end_at_every_poll, turns};
use proptest::prelude::*;
use seedbed::testing::Sequencer;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, checkpoint, open_nursery};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// The blocks wait a little, too, so that the test detects a block that begins too early.
    #[test]
    fn blocks_run_one_after_the_other_in_the_order_of_their_numbers(
        points in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
        polls in proptest::collection::vec(0..8_usize, 0..40),
    ) {
        let (sequence, inside, order) = (Sequencer::new(), Cell::new(false), RefCell::new(Vec::new()));
        let (inside, order) = (&inside, &order);
        let mut blocks: Vec<_> = points
            .into_iter()
            .map(|point| {
                Some(Hand::new(sequence.at(point, async move {
                    assert!(!inside.replace(true));
                    turns(point % 3).await;
                    order.borrow_mut().push(point);
                    inside.set(false);
                })))
            })
            .collect();
        for at in polls {
            let polled = blocks[at].as_mut().map(Hand::poll);
            if polled.is_some_and(|polled| polled.is_ready()) {
                blocks[at] = None;
            }
        }
        // The others are polled only when they are woken.
        for block in blocks.iter_mut().flatten() {
            prop_assert!(block.poll().is_pending() || !block.is_woken());
        }
        while let Some(at) = blocks
            .iter()
            .position(|block| block.as_ref().is_some_and(Hand::is_woken))
        {
            let block = blocks[at].as_mut();
            if block.is_some_and(|block| block.poll().is_ready()) {
                blocks[at] = None;
            }
        }
        prop_assert_eq!(&*order.borrow(), &(0..8).collect::<Vec<_>>());
    }
}

#[test]
fn a_block_s_value_is_returned_and_only_when_it_is_gone_comes_the_next_turn() {
    let (sequence, drops) = (Sequencer::new(), Drops::new());
    let mut second = Hand::new(sequence.at(1, async { drops.alive() }));
    assert!(second.settle().is_pending());
    let value = drops.value();
    let first = Hand::new(sequence.at(0, async move {
        _ = &value;
        "a value"
    }));
    assert_eq!(first.finish(), "a value");
    assert!(second.is_woken());
    assert_eq!(second.finish(), 0);
}

#[test]
fn a_point_that_is_used_twice_panics_and_harms_nobody_else() {
    let sequence = Sequencer::new();
    let mut waiting = Hand::new(sequence.at(1, async { "second" }));
    assert!(waiting.settle().is_pending());
    let message = panic_of(|| Hand::new(sequence.at(1, async {})).finish());
    assert!(message.contains("point 1"), "{message}");
    Hand::new(sequence.at(0, async {})).finish();
    let message = panic_of(|| Hand::new(sequence.at(0, async {})).finish());
    assert!(message.contains("point 0"), "{message}");
    assert_eq!(waiting.finish(), "second");
}

#[test]
fn a_waiter_that_is_cancelled_breaks_the_sequence_for_all_who_wait_or_come_later() {
    let sequence = Sequencer::new();
    let scope = CancelScope::new();
    let mut block = Hand::new(sequence.at(0, async {
        checkpoint().await;
        "in its block"
    }));
    assert!(block.poll().is_pending());
    let mut cancelled = Hand::new(scope.run(sequence.at(1, async {})));
    let mut waiting = Hand::new(sequence.at(2, async {}));
    assert!(cancelled.settle().is_pending() && waiting.settle().is_pending());

    scope.cancel();
    assert_eq!(cancelled.go_on(), Poll::Ready(None));
    assert!(
        waiting.is_woken(),
        "nobody waits for a turn that never comes"
    );
    let message = panic_of(|| waiting.finish());
    assert!(message.contains("point 1"), "{message}");
    let message = panic_of(|| Hand::new(sequence.at(5, async {})).finish());
    assert!(message.contains("the sequence is broken"), "{message}");
    assert_eq!(block.finish(), "in its block", "who has begun goes on");
}

#[test]
fn a_block_that_is_cancelled_or_panics_has_ended_and_the_next_one_s_turn_comes() {
    let sequence = Sequencer::new();
    let mut third = Hand::new(sequence.at(2, async { "third" }));
    assert!(third.settle().is_pending());
    let mut first = Hand::new(sequence.at(0, sleep_forever()));
    assert!(first.settle().is_pending());
    drop(first);
    assert!(!third.is_woken());
    let message = panic_of(|| Hand::new(sequence.at(1, async { panic!("in the block") })).finish());
    assert_eq!(message, "in the block");
    assert!(third.is_woken());
    assert_eq!(third.finish(), "third");
}

#[test]
fn a_block_that_is_never_polled_takes_no_point() {
    let sequence = Sequencer::new();
    drop(sequence.at(0, async {}));
    Hand::new(sequence.at(0, async {})).finish();
}

#[test]
fn a_sequence_loses_nothing_wherever_it_is_dropped_or_cancelled() {
    let polls = end_at_every_poll(|drops| async move {
        let sequence = Sequencer::new();
        let sequence = &sequence;
        open_nursery(async |n| {
            for point in [1, 0] {
                let value = drops.value();
                n.spawn(sequence.at(point, async move {
                    turns(2).await;
                    drop(value);
                }));
            }
        })
        .await;
    });
    assert!(polls >= 4, "{polls}");
}
