//! Maps that end early: cancelled, dropped, or by an error.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use super::{Deed, Log, double, items, until_begun, work};
use crate::common;
use crate::common::{poll_with_yields, test, with_workers};
use futures_lite::{FutureExt, StreamExt};
use seedbed::worker::WorkerErrorKind;
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, open_nursery};

fn a_cancelled_map_waits_for_the_items_in_progress_and_begins_no_other() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let log = Log::new();
        let waiting = (0..).map(|n| (log.path(), n, Deed::WaitFor(log.sign())));
        let (scope, one) = (CancelScope::new(), CapacityLimiter::new(1));
        open_nursery(async |n| {
            let map = workers.map_sync(work, waiting).limiter(&one).chunk(7);
            let map = n.spawn(scope.run(map.collect()));
            until_begun(&log, 1).await;
            scope.cancel();
            for _ in 0..100 {
                smol::future::yield_now().await;
            }
            assert_eq!(workers.statistics().running_workers, 1);
            File::create(log.sign()).unwrap();
            assert!(map.await.is_none());
            assert_eq!((one.borrowed(), workers.statistics().idle_workers), (0, 1));
        })
        .await;
        log.assert_each_begun_once(0..1);
    }));
}

fn a_cancelled_map_that_may_kill_ends_with_its_workers() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let log = Log::new();
        let hanging = (0..).map(|n| (log.path(), n, Deed::Hang));
        let (scope, two) = (CancelScope::new(), CapacityLimiter::new(2));
        open_nursery(async |n| {
            let map = workers
                .map_sync(work, hanging)
                .limiter(&two)
                .kill_on_cancel(true);
            let map = n.spawn(scope.run(map.collect()));
            until_begun(&log, 2).await;
            scope.cancel();
            assert!(map.await.is_none());
            assert_eq!(common::workers(), []);
            assert_eq!(two.borrowed(), 0);
        })
        .await;
    }));
}

fn an_already_cancelled_map_pulls_nothing_and_touches_no_worker() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let scope = CancelScope::new();
        scope.cancel();
        let items = (0..).inspect(|_| unreachable!("nothing is pulled"));
        let map = workers.map_sync(double, items).collect();
        assert!(scope.run(map).await.is_none());
        assert_eq!(workers.statistics().started, 0);
    }));
}

fn a_block_that_ends_early_leaves_no_item_in_progress() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let first = workers
            .map_sync(double, 7..)
            .open(async |mut results| results.next().await);
        assert_eq!(first.await.unwrap().unwrap(), 14);
        assert_eq!(workers.statistics().running_workers, 0);
        // The stream may leave the block, and has ended.
        let mut left = workers
            .map_sync(double, 0..)
            .open(async |results| results)
            .await;
        assert_eq!(workers.statistics().running_workers, 0);
        assert!(left.next().await.is_none());
        // And it may be dropped in the block: the map stops while the block goes on.
        workers
            .map_sync(double, 0..)
            .open(async |mut results| {
                results.next().await.unwrap().unwrap();
                drop(results);
                while workers.statistics().running_workers > 0 {
                    smol::Timer::after(Duration::from_micros(200)).await;
                }
            })
            .await;
        let log = Log::new();
        let killed = workers
            .map_sync(work, items(&log, 9, 1, Deed::Hang))
            .kill_on_cancel(true);
        let first = killed.open(async |mut results| {
            let first = results.next().await;
            until_begun(&log, 2).await;
            first
        });
        assert_eq!(first.await.unwrap().unwrap(), 0);
        assert_eq!(workers.statistics().running_workers, 0);
    }));
}

fn the_first_error_ends_a_map_that_tries_to_collect() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let endless = workers.map_sync(|n: u64| 1000 / (500 - n), 0..);
        let error = endless.try_collect().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.item()),
            (WorkerErrorKind::Panicked, Some(500))
        );
        assert_eq!(workers.statistics().running_workers, 0);
    }));
}

fn a_panic_of_the_block_or_the_iterator_is_resumed_when_nothing_runs_any_more() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let body = workers.map_sync(double, 0..).for_each(async |doubled| {
            assert_ne!(doubled.unwrap(), 40, "on purpose");
        });
        let panic = AssertUnwindSafe(body).catch_unwind().await.unwrap_err();
        assert!(
            panic
                .downcast_ref::<String>()
                .unwrap()
                .contains("on purpose")
        );
        assert_eq!(workers.statistics().running_workers, 0);

        let items = (0..).inspect(|n| assert_ne!(*n, 70, "on purpose, too"));
        let iterator = workers.map_sync(double, items).collect();
        let panic = AssertUnwindSafe(iterator).catch_unwind().await.unwrap_err();
        assert!(
            panic
                .downcast_ref::<String>()
                .unwrap()
                .contains("on purpose, too")
        );
        assert_eq!(workers.statistics().running_workers, 0);
    }));
}

/// Ends a map at each of its pending polls in turn: drops it, or cancels a scope around it.
fn end_at_every_poll(kill: bool, is_cancelled: bool) {
    test(async {
        for polls in 1..150 {
            let config = WorkerConfig::new();
            let is_over = with_workers(config, async |workers| {
                let item = |n: usize| "x".repeat(if n.is_multiple_of(9) { 20_000 } else { n });
                let map = workers.map_sync(|text: String| text.len(), (0..15).map(item));
                let map = map.kill_on_cancel(kill).chunk(4).collect();
                let scope = CancelScope::new();
                let mut map = Box::pin(scope.run(map));
                if poll_with_yields(&mut map, polls).await {
                    return true;
                }
                if is_cancelled {
                    scope.cancel();
                    // The last item may have ended just before.
                    let results = map.await;
                    assert!(results.is_none_or(|results| results.len() == 15));
                    assert_eq!(workers.statistics().running_workers, 0);
                }
                false
            });
            if is_over.await {
                break;
            }
        }
    });
}

fn a_map_may_be_dropped_at_every_pending_poll() {
    end_at_every_poll(false, false);
}

fn a_killable_map_may_be_dropped_at_every_pending_poll() {
    end_at_every_poll(true, false);
}

fn a_map_may_be_cancelled_at_every_pending_poll() {
    end_at_every_poll(false, true);
}

fn a_killable_map_may_be_cancelled_at_every_pending_poll() {
    end_at_every_poll(true, true);
}

suite!(
    a_cancelled_map_waits_for_the_items_in_progress_and_begins_no_other,
    a_cancelled_map_that_may_kill_ends_with_its_workers,
    an_already_cancelled_map_pulls_nothing_and_touches_no_worker,
    a_block_that_ends_early_leaves_no_item_in_progress,
    the_first_error_ends_a_map_that_tries_to_collect,
    a_panic_of_the_block_or_the_iterator_is_resumed_when_nothing_runs_any_more,
    a_map_may_be_dropped_at_every_pending_poll,
    a_killable_map_may_be_dropped_at_every_pending_poll,
    a_map_may_be_cancelled_at_every_pending_poll,
    a_killable_map_may_be_cancelled_at_every_pending_poll,
);
