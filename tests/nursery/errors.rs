//! Blocks that can fail.

use std::sync::{Arc, Mutex};

use crate::polling::{Drops, Hand, turns};
use seedbed::time::sleep_forever;
use seedbed::{checkpoint, shield, try_open_nursery};

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
