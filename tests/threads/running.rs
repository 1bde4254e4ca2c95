//! The number of running functions.

use std::future::IntoFuture;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::job;
use crate::poll_times::poll_times;
use futures_lite::future::poll_once;
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::thread;
use seedbed::{CancelScope, open_nursery, run};

#[test]
fn the_functions_that_run_on_threads_are_counted_until_they_end_and_can_be_waited_for() {
    run(open_nursery(|n| async move {
        thread::wait_all_threads_completed().await;
        let ((one, begun_one, go_one), (two, begun_two, go_two)) = (job(), job());
        let waits = n.spawn(thread::run_sync(one).into_future());
        let abandoned = n.spawn(thread::run_sync(two).abandon_on_cancel(true).into_future());
        begun_one.recv().await.unwrap();
        begun_two.recv().await.unwrap();
        assert_eq!(thread::active_thread_count(), 2);
        let completed = n.spawn(thread::wait_all_threads_completed());

        abandoned.cancel().await;
        assert_eq!(
            thread::active_thread_count(),
            2,
            "it runs, though nobody waits"
        );
        drop(go_one);
        assert_eq!(waits.await, "done");
        assert_eq!(thread::active_thread_count(), 1);
        wait_all_tasks_blocked().await;
        assert!(!completed.is_finished());
        drop(go_two);
        completed.await;
        assert_eq!(thread::active_thread_count(), 0);
    }));
}

#[test]
fn each_run_counts_its_own_threads_and_those_outside_of_runs_are_counted_together() {
    let (work, begun, go) = job();
    run(async {
        let call = thread::run_sync(work).abandon_on_cancel(true).into_future();
        assert_eq!(poll_times(call, 1).await, None);
        begun.recv().await.unwrap();
        assert_eq!(thread::active_thread_count(), 1);
        let other = || run(async { thread::active_thread_count() });
        assert_eq!(std::thread::spawn(other).join().unwrap(), 0);
    });
    // A later run does not wait for the abandoned calls of an earlier one.
    run(async {
        assert_eq!(thread::active_thread_count(), 0);
        thread::wait_all_threads_completed().await;
    });
    drop(go);
    smol::block_on(async {
        let there = thread::run_sync(thread::active_thread_count).await;
        assert!(there >= 1, "itself, and those of other tests");
    });
}

#[test]
fn a_wait_for_all_threads_may_be_given_up_and_leaves_those_who_wait_as_they_were() {
    run(async {
        let (let_go, go): (Sender<()>, Receiver<()>) = channel();
        let scope = CancelScope::new();
        let stuck = thread::run_sync(move || go.recv()).abandon_on_cancel(true);
        let mut stuck = Box::pin(scope.run(stuck));
        assert!(poll_once(&mut stuck).await.is_none());
        scope.cancel();
        assert!(stuck.await.is_none(), "abandoned");

        let mut waits = Box::pin(thread::wait_all_threads_completed());
        assert!(poll_once(&mut waits).await.is_none());
        let dropped = thread::wait_all_threads_completed();
        assert!(poll_once(dropped).await.is_none());
        let cancelled = CancelScope::new();
        cancelled.cancel();
        let ended = cancelled.run(thread::wait_all_threads_completed());
        assert_eq!(ended.await, None);
        drop(let_go);
        waits.await;
        assert_eq!(thread::active_thread_count(), 0);
    });
}
