//! Tree variables: which value code sees where, and how long values live.

#[path = "common/polling.rs"]
mod polling;

use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures_lite::future::zip;
use polling::{Counted, Drops, Hand, end_at_every_poll, turns};
use seedbed::nursery::{Started, TreeVar};
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, Nursery, checkpoint, on_cancel, open_nursery, shield};

static NAME: TreeVar<&str> = TreeVar::new();
static OTHER: TreeVar<&str> = TreeVar::new();
static HELD: TreeVar<Arc<Counted>> = TreeVar::new();

#[test]
fn a_value_is_seen_inside_of_its_scope_also_after_waiting_and_nowhere_else() {
    assert_eq!(NAME.get(), None);
    Hand::new(async {
        let inside = NAME.scope("a", async {
            turns(2).await;
            NAME.get()
        });
        let (inside, beside) = zip(inside, async {
            checkpoint().await;
            NAME.get()
        })
        .await;
        assert_eq!((inside, beside, NAME.get()), (Some("a"), None, None));
    })
    .finish();
}

#[test]
fn inner_values_hide_outer_ones_and_variables_are_apart() {
    let seen = || (NAME.get(), OTHER.get());
    Hand::new(NAME.scope("a", async {
        OTHER
            .scope("x", async {
                NAME.scope("b", async {
                    checkpoint().await;
                    assert_eq!(seen(), (Some("b"), Some("x")));
                })
                .await;
                assert_eq!(seen(), (Some("a"), Some("x")));
            })
            .await;
        assert_eq!(seen(), (Some("a"), None));
    }))
    .finish();
}

#[test]
fn the_values_around_a_scope_are_those_of_its_first_poll() {
    let made = OTHER.scope("x", async { (NAME.get(), OTHER.get()) });
    let seen = Hand::new(NAME.scope("polled", made)).finish();
    assert_eq!(seen, (Some("polled"), Some("x")));
}

#[test]
fn children_see_what_was_set_where_the_nursery_was_opened() {
    Hand::new(NAME.scope("opener", async {
        open_nursery(|n| async move {
            let deeper = n.clone();
            NAME.scope("spawner", async {
                n.spawn(async move {
                    assert_eq!(NAME.get(), Some("opener"));
                    turns(2).await;
                    assert_eq!(NAME.get(), Some("opener"));
                    NAME.scope(
                        "child",
                        open_nursery(|own| async move {
                            own.spawn(async { assert_eq!(NAME.get(), Some("child")) });
                            deeper.spawn(async { assert_eq!(NAME.get(), Some("opener")) });
                        }),
                    )
                    .await;
                    assert_eq!(NAME.get(), Some("opener"));
                })
                .await;
            })
            .await;
        })
        .await;
    }))
    .finish();
}

#[test]
fn a_child_that_is_started_from_elsewhere_sees_its_nursery_s_values_before_and_after() {
    let given = &Mutex::new(None::<Nursery<'_>>);
    Hand::new(open_nursery(|outer| async move {
        outer.spawn(NAME.scope(
            "target",
            open_nursery(move |n| async move {
                *given.lock().unwrap() = Some(n);
                turns(5).await;
            }),
        ));
        checkpoint().await;
        let target = given.lock().unwrap().take().unwrap();
        let starts = target.start(|started: Started<_>| async {
            let before = NAME.get();
            checkpoint().await;
            started.send(before);
            assert_eq!(NAME.get(), Some("target"));
        });
        let seen = NAME.scope("caller", starts).await;
        assert_eq!(seen, Ok(Some("target")));
    }))
    .finish();
}

#[test]
fn a_nursery_s_values_can_be_asked_for_from_anywhere_until_the_block_has_ended() {
    let drops = Drops::new();
    let kept = &Mutex::new(None);
    let value = Arc::new(drops.value());
    let mut block = Hand::new(NAME.scope(
        "opener",
        HELD.scope(
            value,
            open_nursery(|n: Nursery<'_, ()>| {
                *kept.lock().unwrap() = Some(n.clone());
                async move {
                    NAME.scope("body", async {
                        assert_eq!(NAME.get_in(&n), Some("opener"));
                        assert_eq!(NAME.get_in(&n.spawner()), Some("opener"));
                        assert_eq!(OTHER.get_in(&n), None);
                    })
                    .await;
                    checkpoint().await;
                    n.cancel();
                    sleep_forever().await
                }
            }),
        ),
    ));
    assert!(block.poll().is_pending());
    let n = kept.lock().unwrap().take().unwrap();
    assert_eq!(NAME.get(), None);
    assert_eq!(NAME.get_in(&n), Some("opener"), "outside of any run");
    assert!(block.settle().is_ready());
    drop(block);
    assert_eq!(NAME.get_in(&n), None);
    drops.assert_all_dropped();
}

#[test]
fn the_handles_of_a_block_that_is_dropped_keep_none_of_its_values() {
    let drops = Drops::new();
    let kept = &Mutex::new(None);
    let value = Arc::new(drops.value());
    let mut block = Hand::new(HELD.scope(
        value,
        open_nursery(|n: Nursery<'_, ()>| {
            *kept.lock().unwrap() = Some(n.clone());
            sleep_forever()
        }),
    ));
    assert!(block.settle().is_pending());
    let n = kept.lock().unwrap().take().unwrap();
    assert!(HELD.get_in(&n).is_some());
    drop(block);
    assert!(HELD.get_in(&n).is_none());
    drops.assert_all_dropped();
}

#[test]
fn shields_and_clean_ups_see_the_values_around_them() {
    let (scope, seen) = (CancelScope::new(), Mutex::new(None));
    scope.cancel();
    let run = scope.run(NAME.scope(
        "a",
        on_cancel(
            async {
                assert_eq!(shield(async { NAME.get() }).await, Some("a"));
                sleep_forever().await
            },
            async {
                checkpoint().await;
                *seen.lock().unwrap() = NAME.get();
            },
        ),
    ));
    assert_eq!(Hand::new(run).finish(), None);
    assert_eq!(*seen.lock().unwrap(), Some("a"));
}

#[test]
fn the_values_follow_a_future_to_other_threads_and_a_panic_leaves_none_behind() {
    let opened = Event::new();
    let open = opened.clone();
    let mut inside = Box::pin(NAME.scope("a", async move {
        open.wait().await;
        NAME.get()
    }));
    assert!(Hand::new(inside.as_mut()).settle().is_pending());
    opened.set();
    let there = std::thread::spawn(move || (Hand::new(inside).settle(), NAME.get()));
    assert_eq!(there.join().unwrap(), (Poll::Ready(Some("a")), None));

    let panics = Hand::new(NAME.scope("a", async { panic!("on purpose") }));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panics.finish()));
    assert!(panicked.is_err());
    assert_eq!(NAME.get(), None);
}

#[test]
fn a_value_lives_as_long_as_code_can_see_it() {
    let drops = Drops::new();
    let opened = Event::new();
    let mut block = Hand::new(HELD.scope(
        Arc::new(drops.value()),
        open_nursery(|n| {
            let opened = opened.clone();
            async move {
                n.spawn(async move {
                    opened.wait().await;
                    assert!(HELD.get().is_some());
                });
            }
        }),
    ));
    assert!(block.settle().is_pending());
    assert_eq!(drops.alive(), 1);
    opened.set();
    assert!(block.go_on().is_ready());
    drop(block);
    drops.assert_all_dropped();
}

#[test]
fn a_scope_of_a_variable_that_is_ended_at_any_point_leaves_nothing() {
    end_at_every_poll(|drops| async move {
        let drops = &drops;
        let value = Arc::new(drops.value());
        let body = async {
            let seen = HELD.get();
            turns(2).await;
            open_nursery(|n| async move {
                n.spawn(async {
                    let _seen = HELD.get();
                    turns(3).await;
                });
                HELD.scope(Arc::new(drops.value()), turns(2)).await;
            })
            .await;
            seen
        };
        assert!(HELD.scope(value, body).await.is_some());
    });
}
