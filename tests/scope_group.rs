//! Groups of scopes: cancelled and shielded together, wherever they run.

#[path = "common/polling.rs"]
mod polling;

use std::task::Poll;
use std::time::Duration;

use polling::Hand;
use seedbed::cancel::ScopeGroup;
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, open_nursery, run, shield};

#[test]
fn cancelling_the_group_cancels_its_scopes_in_different_blocks_before_and_after_they_begin() {
    let (group, other) = (&ScopeGroup::new(), CancelScope::new());
    let late = group.open_child();
    let mut blocks: Vec<_> = (0..3)
        .map(|_| {
            Hand::new(open_nursery(|n| async move {
                n.spawn(group.open_child().run(sleep_forever())).await
            }))
        })
        .collect();
    let mut beside = Hand::new(other.run(sleep_forever()));
    assert!(beside.settle().is_pending());
    assert!(blocks.iter_mut().all(|block| block.settle().is_pending()));
    assert!(!group.is_cancelled());
    group.clone().cancel();
    assert!(group.is_cancelled() && late.is_cancelled());
    for mut block in blocks {
        assert_eq!(block.go_on(), Poll::Ready(None));
    }
    assert_eq!(Hand::new(late.run(sleep_forever())).finish(), None);
    assert_eq!(
        Hand::new(group.open_child().run(sleep_forever())).finish(),
        None
    );
    assert!(beside.go_on().is_pending());
}

#[test]
fn a_scope_of_the_group_may_be_cancelled_alone_and_has_a_deadline_of_its_own() {
    let group = ScopeGroup::new();
    let (early, running, timed, last) = (
        group.open_child(),
        group.open_child(),
        group.open_child(),
        group.open_child(),
    );
    early.cancel();
    assert_eq!(Hand::new(early.run(sleep_forever())).finish(), None);
    let mut run_of = Hand::new(running.run(sleep_forever()));
    assert!(run_of.settle().is_pending());
    running.cancel();
    assert_eq!(run_of.go_on(), Poll::Ready(None));
    timed.set_timeout(Duration::ZERO);
    assert_eq!(Hand::new(timed.run(sleep_forever())).finish(), None);
    assert!(!last.is_cancelled() && !group.is_cancelled());
}

/// Runs a scope of the group inside a cancelled scope, which its shield keeps alive.
fn in_a_cancelled_scope<'a>(scope: CancelScope) -> Hand<'a, Option<Option<()>>> {
    let outer = CancelScope::new();
    outer.cancel();
    Hand::new(async move { outer.run(async { scope.run(sleep_forever()).await }).await })
}

#[test]
fn the_group_sets_the_shield_of_its_scopes_which_may_differ_until_it_is_set_again() {
    let group = ScopeGroup::new();
    let before = group.open_child();
    group.set_shield(true);
    let after = group.open_child();
    let mut places = [
        in_a_cancelled_scope(before.clone()),
        in_a_cancelled_scope(after),
    ];
    assert!(places.iter_mut().all(|place| place.settle().is_pending()));

    // One scope changes its shield while it runs, another before it begins.
    before.set_shield(false);
    let [mut first, mut second] = places;
    assert_eq!(first.go_on(), Poll::Ready(None));
    assert!(second.go_on().is_pending());
    let unshielded = group.open_child();
    unshielded.set_shield(false);
    assert_eq!(in_a_cancelled_scope(unshielded.clone()).finish(), None);
    let overridden = group.open_child();
    overridden.set_shield(false);
    group.set_shield(true);
    let mut third = in_a_cancelled_scope(overridden);
    assert!(third.settle().is_pending());

    group.set_shield(false);
    assert_eq!(second.go_on(), Poll::Ready(None));
    assert_eq!(third.go_on(), Poll::Ready(None));
    assert_eq!(in_a_cancelled_scope(group.open_child()).finish(), None);
}

#[test]
fn a_shielded_group_is_cancelled_by_itself_and_waits_for_shields_inside() {
    let (group, open) = (&ScopeGroup::new(), &Event::new());
    group.set_shield(true);
    let mut work = Hand::new(group.open_child().run(shield(open.wait())));
    assert!(work.settle().is_pending());
    group.cancel();
    assert!(work.go_on().is_pending());
    open.set();
    assert!(work.go_on().is_ready());
}

#[test]
fn another_thread_cancels_a_group() {
    let group = ScopeGroup::new();
    let handle = group.clone();
    let work = async {
        std::thread::spawn(move || handle.cancel());
        open_nursery(|n| {
            let tasks = [(); 4].map(|()| n.spawn(group.open_child().run(sleep_forever())));
            async move {
                for task in tasks {
                    assert_eq!(task.await, None);
                }
            }
        })
        .await
    };
    run(work);
}

#[test]
fn a_group_removes_scopes_that_have_ended_or_have_no_other_handle() {
    let group = ScopeGroup::new();
    let mut running = Hand::new(group.open_child().run(sleep_forever()));
    assert!(running.settle().is_pending());
    let kept: Vec<_> = (0..1000)
        .map(|_| {
            drop(group.open_child());
            let ended = group.open_child();
            Hand::new(ended.run(async {})).finish();
            ended
        })
        .collect();
    let shown = format!("{group:?}");
    let scopes = (0..50).find(|count| shown.contains(&format!("scopes: {count},")));
    assert!(scopes.is_some(), "{shown}");
    group.cancel();
    assert_eq!(running.go_on(), Poll::Ready(None));
    drop(kept);
}
