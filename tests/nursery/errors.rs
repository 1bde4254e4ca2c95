//! Blocks that can fail.

use std::sync::{Arc, Mutex};

use crate::polling::{Drops, Hand, turns};
use seedbed::time::sleep_forever;
use seedbed::{Nursery, checkpoint, shield, try_open_nursery};

#[test]
fn the_first_error_of_a_child_ends_the_rest_and_is_the_block_s() {
    let drops = &Drops::new();
    let block = try_open_nursery(|n| async move {
        let value = drops.value();
        n.try_spawn(async move {
            sleep_forever().await;
            drop(value);
            Ok(())
        });
        n.try_spawn(async {
            turns(2).await;
            Err::<(), _>("child")
        });
        sleep_forever().await;
        Ok(1)
    });
    assert_eq!(Hand::new(block).finish(), Err("child"));
    drops.assert_all_dropped();
}

#[test]
fn the_body_s_error_ends_the_children_and_a_block_without_errors_returns_ok() {
    let drops = &Drops::new();
    let block = try_open_nursery(|n| async move {
        let value = drops.value();
        n.spawn(async move {
            sleep_forever().await;
            drop(value);
        });
        checkpoint().await;
        Err::<(), _>("body")?;
        Ok(())
    });
    assert_eq!(Hand::new(block).finish(), Err("body"));
    drops.assert_all_dropped();

    let fine = try_open_nursery(|n| async move {
        let five = n.try_spawn(async { Ok::<_, ()>(5) }).await;
        Ok(five)
    });
    assert_eq!(Hand::new(fine).finish(), Ok(Some(5)));
}

#[test]
fn errors_after_the_first_go_to_the_hook_in_order() {
    let late = Arc::new(Mutex::new(Vec::new()));
    let hook = late.clone();
    let block = try_open_nursery(|n| async move {
        n.on_late_error(move |error| hook.lock().unwrap().push(error));
        for number in 1..=3 {
            n.try_spawn(shield(async move {
                turns(number).await;
                Err::<(), _>(number)
            }));
        }
        checkpoint().await;
        Err::<(), _>(0)
    });
    assert_eq!(Hand::new(block).finish(), Err(0));
    assert_eq!(*late.lock().unwrap(), [1, 2, 3]);
}

#[test]
fn the_body_s_error_after_a_child_s_is_late() {
    let late = Arc::new(Mutex::new(Vec::new()));
    let hook = late.clone();
    let block = try_open_nursery(|n| async move {
        n.on_late_error(move |error| hook.lock().unwrap().push(error));
        n.try_spawn(async { Err::<(), _>("child") });
        shield(turns(3)).await;
        Err::<(), _>("body")
    });
    assert_eq!(Hand::new(block).finish(), Err("child"));
    assert_eq!(*late.lock().unwrap(), ["body"]);
}

#[test]
fn a_child_s_error_replaces_a_value_that_the_body_has_returned() {
    let block = try_open_nursery(|n| async move {
        n.try_spawn(async {
            turns(2).await;
            Err::<(), _>("child")
        });
        Ok(1)
    });
    assert_eq!(Hand::new(block).finish(), Err("child"));
}

/// Such a hook used to keep itself, and what it owned, forever.
#[test]
fn a_hook_that_has_a_handle_on_its_nursery_is_dropped_with_the_block() {
    for finishes in [true, false] {
        let drops = Drops::new();
        let (value, late_value) = (drops.value(), drops.value());
        let kept = Arc::new(Mutex::new(None));
        let given = kept.clone();
        let block = try_open_nursery(move |n: Nursery<'static, Result<(), ()>>| {
            let handle = n.clone();
            n.on_late_error(move |()| {
                let _value = &value;
                handle.terminate(Ok(()));
            });
            *given.lock().unwrap() = Some(n);
            async move {
                if !finishes {
                    sleep_forever().await;
                }
                Ok(())
            }
        });
        let mut block = Hand::new(block);
        assert_eq!(block.settle().is_ready(), finishes);
        drop(block);
        assert_eq!(drops.alive(), 1);
        // A handle that is left cannot set a hook any more.
        let handle = kept.lock().unwrap().take().unwrap();
        handle.on_late_error(move |()| _ = &late_value);
        drops.assert_all_dropped();
    }
}
