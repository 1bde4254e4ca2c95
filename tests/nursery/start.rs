//! `start`: waiting until a child reports that it has started.

use std::sync::Mutex;
use std::task::Poll;

use crate::log::Log;
use crate::log::panic_of;
use crate::polling::{Drops, Hand, turns};
use seedbed::nursery::{Spawner, StartError, Started};
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, Nursery, checkpoint, open_nursery, shield, try_open_nursery};

#[test]
fn start_returns_what_the_child_sends_and_the_child_goes_on_in_the_nursery() {
    let (open, log) = (&Event::new(), &Log::default());
    let mut block = Hand::new(open_nursery(|n| async move {
        let sent = n
            .start(|started| async move {
                turns(3).await;
                started.send(8080);
                open.wait().await;
                log.add("child ends");
            })
            .await;
        log.add("started");
        sent
    }));
    assert!(block.settle().is_pending());
    assert_eq!(log.take(), ["started"]);
    open.set();
    assert_eq!(block.go_on(), Poll::Ready(Ok(8080)));
    assert_eq!(log.take(), ["child ends"]);
}

#[test]
fn start_of_a_child_that_ends_without_having_started_returns_its_result() {
    let block = open_nursery(|n| async move {
        let other = n.spawn(turns(20));
        let forgot = n.start(|_: Started<()>| async { 1 }).await;
        assert_eq!(forgot, Err(StartError::Exited(1)));
        let dropped = n.start(|started: Started<()>| async move {
            drop(started);
            turns(3).await;
            2
        });
        assert_eq!(dropped.await, Err(StartError::Exited(2)));
        assert!(!other.is_finished());
        other.await;
    });
    Hand::new(block).finish();
}

#[test]
fn a_child_that_starts_in_its_last_poll_has_started() {
    let block =
        open_nursery(|n| async move { n.start(|started| async move { started.send(1) }).await });
    assert_eq!(Hand::new(block).finish(), Ok(1));
}

/// Returns a scope that a child of the nursery cancels after two rounds.
pub fn cancelled_soon(spawner: &Spawner<'_>) -> CancelScope {
    let scope = CancelScope::new();
    let cancel = scope.clone();
    spawner.spawn(async move {
        turns(2).await;
        cancel.cancel();
    });
    scope
}

#[test]
fn cancelling_start_cancels_the_child_that_has_not_started_and_waits_for_it() {
    let (open, log) = (&Event::new(), &Log::default());
    let mut block = Hand::new(open_nursery(|n| async move {
        let scope = cancelled_soon(&n.spawner());
        let starts = n.start(|started: Started<()>| async move {
            shield(open.wait()).await;
            log.add("child: shielded section ended");
            started.send(()); // nobody waits any more
            checkpoint().await;
            log.add("not reached");
        });
        assert_eq!(scope.run(starts).await, None);
        log.add("start was cancelled");
    }));
    assert!(block.settle().is_pending());
    assert_eq!(log.take(), [""; 0]);
    open.set();
    assert!(block.go_on().is_ready());
    assert_eq!(
        log.take(),
        ["child: shielded section ended", "start was cancelled"]
    );
}

#[test]
fn dropping_start_from_outside_cancels_the_child_that_has_not_started() {
    let drops = &Drops::new();
    Hand::new(open_nursery(|n| async move {
        {
            let mut starts = Box::pin(n.start(|_: Started<()>| async {
                let _value = drops.value();
                sleep_forever().await
            }));
            futures_lite::future::poll_once(&mut starts).await;
            checkpoint().await;
            assert_eq!(drops.alive(), 1);
        }
        turns(2).await;
        assert_eq!(drops.alive(), 0);
    }))
    .finish();
}

#[test]
fn a_pending_start_keeps_the_nursery_open_after_its_body_has_ended() {
    let (open, given) = (&Event::new(), &Mutex::new(None));
    let mut outer = Hand::new(open_nursery(|outer| async move {
        let inner = outer.spawn(open_nursery(move |inner: Nursery<'_, ()>| async move {
            *given.lock().unwrap() = Some(inner);
            turns(2).await;
        }));
        checkpoint().await;
        let n = given.lock().unwrap().take().unwrap();
        let started = n.start(async |started: Started<i32>| {
            open.wait().await;
            started.send(1);
        });
        assert_eq!(started.await, Ok(1));
        inner.await;
        assert!(n.spawn_if_open(async {}).is_err());
    }));
    assert!(outer.settle().is_pending());
    open.set();
    assert!(outer.go_on().is_ready());
}

#[test]
fn start_in_a_nursery_that_is_cancelled_before_the_child_has_started_is_an_error() {
    let block = open_nursery(|outer| async move {
        let block = open_nursery(|n| async move {
            let target = n.clone();
            let started =
                outer.spawn(async move { target.start(|_: Started<()>| sleep_forever()).await });
            turns(3).await;
            n.terminate(Some(started));
            sleep_forever().await;
            None
        });
        block.await.unwrap().await
    });
    assert_eq!(Hand::new(block).finish(), Err(StartError::Cancelled));
}

#[test]
fn one_function_serves_under_start_and_when_awaited_directly() {
    async fn serve(started: Started<u8>) -> &'static str {
        started.send(1);
        "served"
    }
    assert_eq!(Hand::new(serve(Started::ignored())).finish(), "served");
    let block = open_nursery(|n| async move { n.start(serve).await });
    assert_eq!(Hand::new(block).finish(), Ok(1));
}

#[test]
fn a_panic_before_the_child_has_started_is_the_nursery_s() {
    let says = panic_of(|| {
        Hand::new(open_nursery(|n| async move {
            let starts = n.start(|_: Started<()>| async { panic!("in the child") });
            let result: Result<(), StartError<()>> = starts.await;
            unreachable!("{result:?}: the body is cancelled")
        }))
        .finish()
    });
    assert_eq!(says, "in the child");
}

/// The starter is cancelled, or dropped from outside, after the child has reported that it has
/// started, and before the starter is polled again. The child used to be cancelled with it.
#[test]
fn a_child_that_has_reported_its_start_belongs_to_the_nursery_at_once() {
    for drops in [false, true] {
        let log = &Log::default();
        Hand::new(open_nursery(|n| async move {
            let (scope, given) = (CancelScope::new(), Event::new());
            let (cancel, report) = (scope.clone(), given.clone());
            let start = n.start(|started| async move {
                started.send(8080);
                report.set();
                if !drops {
                    cancel.cancel();
                }
                turns(3).await;
                log.add("the child goes on");
            });
            if drops {
                let mut start = Box::pin(start);
                assert!(futures_lite::future::poll_once(&mut start).await.is_none());
                given.wait().await;
            } else {
                assert_eq!(scope.run(start).await, None);
            }
        }))
        .finish();
        assert_eq!(log.take(), ["the child goes on"], "dropped: {drops}");
    }
}

/// As in Trio, such a child is not moved.
#[test]
fn a_child_that_starts_after_its_starter_was_cancelled_is_cancelled_too() {
    let log = &Log::default();
    Hand::new(open_nursery(|n| async move {
        let scope = CancelScope::new();
        let cancel = scope.clone();
        let start = n.start(|started| async move {
            cancel.cancel();
            started.send(8080);
            checkpoint().await;
            log.add("not reached");
        });
        assert_eq!(scope.run(start).await, None);
    }))
    .finish();
    assert_eq!(log.take(), [""; 0]);
}

#[test]
fn the_error_of_a_child_that_has_reported_its_start_is_the_block_s_although_the_starter_is_cancelled()
 {
    let block = try_open_nursery(|n| async move {
        let scope = CancelScope::new();
        let cancel = scope.clone();
        let start = n.try_start(|started| async move {
            started.send(8080);
            cancel.cancel();
            turns(3).await;
            Err::<(), _>("the listener broke")
        });
        assert_eq!(scope.run(start).await, None);
        sleep_forever().await;
        Ok(())
    });
    assert_eq!(Hand::new(block).finish(), Err("the listener broke"));
}
