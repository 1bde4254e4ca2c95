//! From a task to its nurseries, children and parents.

use crate::names;
use crate::polling::turns;
use seedbed::nursery::{NurseryInfo, StartError, TaskInfo, current_task};
use seedbed::sync::Event;
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::time::sleep_forever;
use seedbed::{Nursery, open_nursery, run};

// ---- Children, parents, nurseries.

#[test]
fn a_nursery_s_children_are_those_that_have_not_ended_in_the_order_of_spawning() {
    run(open_nursery(|n| async move {
        let gate = Event::new();
        let waits = |gate: &Event| {
            let gate = gate.clone();
            async move { gate.wait().await }
        };
        assert!(n.info().children().is_empty());
        let _a = n.named("a").spawn(waits(&gate));
        let b = n.named("b").spawn(waits(&gate));
        assert_eq!(
            names(&n.info().children()),
            ["a", "b"],
            "before their first polls"
        );
        wait_all_tasks_blocked().await;
        n.named("c").spawn(waits(&gate));
        assert_eq!(
            names(&n.info().children()),
            ["a", "b", "c"],
            "some polled, some not"
        );
        b.cancel().await;
        assert_eq!(names(&n.info().children()), ["a", "c"]);
        gate.set();
        wait_all_tasks_blocked().await;
        assert!(n.info().children().is_empty());
    }));
}

/// Returns the siblings of the task in its first poll, and in its second.
async fn seen(n: Nursery<'_>) -> (Vec<TaskInfo>, Vec<TaskInfo>) {
    let first = n.info().children();
    turns(1).await;
    (first, n.info().children())
}

#[test]
fn a_child_sees_itself_and_its_siblings_also_those_that_are_polled_later() {
    run(open_nursery(|n| async move {
        let (a, b, c) = (
            n.named("a").spawn(seen(n.clone())),
            n.named("b").spawn(seen(n.clone())),
            n.named("c").spawn(async {}),
        );
        let (a, b) = (a.await, b.await);
        assert_eq!(
            names(&a.0),
            ["a", "b", "c"],
            "a runs, b and c wait for their turns"
        );
        assert_eq!(names(&b.0), ["a", "b", "c"], "b runs");
        assert_eq!(names(&a.1), ["a", "b"], "c has ended");
        assert_eq!(names(&b.1), ["b"]);
        assert!(c.is_finished());
    }));
}

#[test]
fn links_upwards_outlive_the_tasks_and_nurseries_that_they_lead_to() {
    let (grandchild, nursery) = run(open_nursery(|n| async move {
        let child = n.named("child").spawn(open_nursery(|inner| async move {
            let grandchild = inner.named("grandchild").spawn(async {});
            (grandchild.info(), inner.info())
        }));
        child.await
    }));
    let child = grandchild.parent().unwrap();
    assert_eq!(
        names(&[grandchild.clone(), child.clone()]),
        ["grandchild", "child"]
    );
    assert_eq!(grandchild.nursery(), Some(nursery.clone()));
    assert_eq!(nursery.opener(), Some(child.clone()));
    assert!(nursery.children().is_empty());
    assert!(child.nurseries().is_empty());
    assert_eq!(child.parent().unwrap().parent(), None);
}

#[test]
fn a_task_s_nurseries_are_those_that_it_has_open_the_outer_ones_first() {
    fn open(task: &TaskInfo) -> Vec<NurseryInfo> {
        task.nurseries()
    }
    run(async {
        let root = &current_task().unwrap();
        assert!(open(root).is_empty());
        open_nursery(|outer| async move {
            let child = outer.spawn(open_nursery(|n| async move {
                assert_eq!(current_task().unwrap().nurseries(), [n.info()]);
                sleep_forever().await
            }));
            let child_s = child.info();
            open_nursery(|inner| async move {
                assert_eq!(open(root), [outer.info(), inner.info()]);
                turns(2).await;
                assert_eq!(open(root).len(), 2, "the child's is not the root's");
                assert_eq!(open(&child_s).len(), 1);
                assert_eq!(open(&child_s)[0].opener(), Some(child_s.clone()));
                child.cancel().await;
                assert!(open(&child_s).is_empty());
                outer.cancel();
            })
            .await;
        })
        .await;
        assert!(open(root).is_empty());
    });
}

#[test]
fn a_child_that_is_being_started_belongs_to_its_nursery_from_the_beginning() {
    // In Trio the child belongs to a nursery inside `start` until it has started.
    run(open_nursery(|n| async move {
        let info = n.info();
        let child = |gate: Event| {
            let n = n.named("starting");
            async move {
                n.start(|started| async move {
                    let before = current_task().unwrap().nursery();
                    gate.wait().await;
                    started.send(before);
                    sleep_forever().await
                })
                .await
            }
        };
        let gate = Event::new();
        let starts = n.named("starter").spawn(child(gate.clone()));
        wait_all_tasks_blocked().await;
        assert_eq!(names(&n.info().children()), ["starter", "starting"]);
        gate.set();
        let before: Result<_, StartError<()>> = starts.await;
        assert_eq!(before, Ok(Some(info)));
        assert_eq!(names(&n.info().children()), ["starting"]);
        n.cancel();
    }));
}

// ---- Leaks.

#[test]
fn a_block_that_is_dropped_before_it_has_ended_is_no_longer_in_the_tree() {
    run(async {
        let root = current_task().unwrap();
        let mut block = Box::pin(open_nursery(|n| async move {
            n.spawn(sleep_forever());
            sleep_forever().await
        }));
        assert!(futures_lite::future::poll_once(&mut block).await.is_none());
        assert_eq!(root.nurseries().len(), 1);
        drop(block);
        assert!(root.nurseries().is_empty());
    });
}

#[test]
fn a_task_info_keeps_no_value_of_the_task() {
    let drops = crate::polling::Drops::new();
    let value = drops.value();
    let info = run(open_nursery(|n| async move {
        n.named("gone").spawn(async move { drop(value) }).info()
    }));
    drops.assert_all_dropped();
    assert_eq!(info.name(), "gone");
    assert!(info.to_string().starts_with("gone #"));
    assert!(format!("{info:?}").contains("gone"));
}
