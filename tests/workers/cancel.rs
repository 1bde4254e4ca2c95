//! Cancelling and dropping a call at every point at which it can be pending.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::common;
use crate::common::gate::{self, Gate};
use crate::common::{pid, test, with_workers};
use seedbed::{
    CancelScope, CapacityLimiter, WorkerConfig, WorkerContext, move_on_after, run_sync, shield,
};

fn forever(_: ()) {
    loop {
        std::hint::spin_loop();
    }
}

/// A job that waits at a gate.
fn pass(gate: std::path::PathBuf) -> u32 {
    gate::begin(&gate);
    gate::pass(&gate);
    std::process::id()
}

fn a_cancelled_caller_touches_no_worker() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for kill in [false, true] {
            let scope = CancelScope::new();
            scope.cancel();
            let outcome = scope
                .run(workers.run_sync(pid, ()).kill_on_cancel(kill))
                .await;
            assert!(outcome.is_none());
            assert!(common::workers().is_empty());
        }
    }));
}

fn a_call_that_waits_for_its_limiter_can_be_cancelled() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let limiter = CapacityLimiter::new(0);
        let call = workers.run_sync(pid, ()).limiter(&limiter);
        assert!(
            move_on_after(Duration::from_millis(20), call)
                .await
                .is_none()
        );
        assert!(common::workers().is_empty());
        let call = smol::spawn(workers.run_sync(pid, ()).limiter(&limiter).into_future());
        limiter.set_total(1);
        assert!(call.await.is_ok());
        assert_eq!(limiter.borrowed(), 0);
    }));
}

fn by_default_a_cancelled_call_runs_to_its_end_and_keeps_its_value() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (scope, gate) = (CancelScope::new(), Gate::new());
        let call = scope.run(workers.run_sync(pass, gate.path()));
        let cancel = async {
            let pid = gate.begun().await;
            scope.cancel();
            gate.open();
            pid
        };
        let (outcome, job) = smol::future::zip(call, cancel).await;
        assert_eq!(outcome.unwrap().unwrap(), job);
        assert_eq!(
            workers.run_sync(pid, ()).await.unwrap(),
            job,
            "the worker is cached"
        );
    }));
}

fn a_killable_call_ends_when_its_worker_has_been_reaped() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (scope, gate) = (CancelScope::new(), Gate::new());
        let call = scope.run(workers.run_sync(pass, gate.path()).kill_on_cancel(true));
        let cancel = async {
            let pid = gate.begun().await;
            scope.cancel();
            pid
        };
        let (outcome, job) = smol::future::zip(call, cancel).await;
        assert!(outcome.is_none());
        assert!(
            !std::path::Path::new(&format!("/proc/{job}")).exists(),
            "not even a zombie is left"
        );
        let statistics = workers.statistics();
        assert_eq!(
            (statistics.idle_workers, statistics.running_workers),
            (0, 0)
        );
        assert_eq!(
            seedbed::worker::current_default_worker_limiter().borrowed(),
            0
        );
    }));
}

fn a_time_limit_ends_an_endless_job() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        let call = workers.run_sync(forever, ()).kill_on_cancel(true);
        assert!(
            move_on_after(Duration::from_millis(50), call)
                .await
                .is_none()
        );
        assert!(common::workers().is_empty());
    }));
}

fn a_shield_around_a_killable_call_protects_it() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let scope = CancelScope::new();
        let outcome = scope.run(async {
            scope.cancel();
            shield(workers.run_sync(pid, ()).kill_on_cancel(true)).await
        });
        assert!(outcome.await.unwrap().is_ok());
    }));
}

/// Polls a call, and drops it when it is pending for the `k`-th time. Returns whether it was.
async fn dropped_when_pending<F: IntoFuture>(call: F, k: usize) -> bool {
    let mut call = Box::pin(call.into_future());
    let mut pending = 0;
    poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(false),
        Poll::Pending => {
            pending += 1;
            if pending == k {
                Poll::Ready(true)
            } else {
                Poll::Pending
            }
        }
    })
    .await
}

/// Drops a call at every point at which it can be pending, each time with a fresh context.
fn drop_at_every_pending_point(kill: bool, warm: bool) {
    test(async {
        let (mut k, mut never_pending) = (1, 0);
        loop {
            let limiter = CapacityLimiter::new(1);
            let dropped = with_workers(WorkerConfig::new(), async |workers: WorkerContext| {
                if warm {
                    workers.run_sync(pid, ()).await.unwrap();
                }
                // Too large to be sent or received at once.
                let call = workers
                    .run_sync(|text: String| text, "x".repeat(1 << 20))
                    .limiter(&limiter);
                let dropped = dropped_when_pending(call.kill_on_cancel(kill), k).await;
                assert!(
                    workers.run_sync(pid, ()).await.is_ok(),
                    "the context still works"
                );
                dropped
            })
            .await;
            drop(limiter.acquire().await); // comes back, if not at once
            assert_eq!(limiter.borrowed(), 0);
            match (dropped, k) {
                (true, _) => k += 1,
                // A worker on another core may be as fast as this loop.
                (false, 1) if never_pending < 100 => never_pending += 1,
                (false, _) => {
                    assert!(k > 1, "the call was pending at least once");
                    return;
                }
            }
        }
    });
}

fn a_killable_call_may_be_dropped_at_every_pending_point_of_a_start() {
    drop_at_every_pending_point(true, false);
}

fn a_killable_call_may_be_dropped_at_every_pending_point_of_a_warm_call() {
    drop_at_every_pending_point(true, true);
}

fn a_shielded_call_may_be_dropped_at_every_pending_point_of_a_start() {
    drop_at_every_pending_point(false, false);
}

fn a_shielded_call_may_be_dropped_at_every_pending_point_of_a_warm_call() {
    drop_at_every_pending_point(false, true);
}

fn a_killable_call_may_be_cancelled_at_every_pending_point() {
    test(async {
        for warm in [false, true] {
            for k in 1.. {
                let cancelled =
                    with_workers(WorkerConfig::new(), async |workers: WorkerContext| {
                        if warm {
                            workers.run_sync(pid, ()).await.unwrap();
                        }
                        let scope = CancelScope::new();
                        let text = "x".repeat(1 << 20);
                        let call = workers
                            .run_sync(|text: String| text, text)
                            .kill_on_cancel(true);
                        let mut call = pin!(scope.run(call));
                        let mut pending = 0;
                        let outcome = poll_fn(|cx| {
                            let polled = call.as_mut().poll(cx);
                            pending += usize::from(polled.is_pending());
                            if polled.is_pending() && pending == k {
                                scope.cancel();
                            }
                            polled
                        })
                        .await;
                        if outcome.is_none() {
                            assert_eq!(workers.statistics().running_workers, 0);
                            assert!(common::workers().is_empty(), "cancelled at {k}");
                        }
                        pending >= k
                    })
                    .await;
                if !cancelled {
                    break;
                }
            }
        }
    });
}

fn a_dropped_call_that_may_not_be_killed_ends_in_the_background_with_its_token() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (gate, limiter) = (Gate::new(), CapacityLimiter::new(1));
        let call = smol::spawn(
            workers
                .run_sync(pass, gate.path())
                .limiter(&limiter)
                .into_future(),
        );
        let job = gate.begun().await;
        call.cancel().await;
        assert_eq!(limiter.borrowed(), 1);
        assert_eq!(workers.statistics().running_workers, 1);
        gate.open();
        drop(limiter.acquire().await);
        assert_eq!(
            workers.run_sync(pid, ()).await.unwrap(),
            job,
            "the worker came back to the cache"
        );
    }));
}

fn a_dropped_call_is_reaped_while_a_task_blocks_smols_executor() {
    test(async {
        let blocking = smol::spawn(async {
            smol::block_on(with_workers(WorkerConfig::new(), |workers| async move {
                let gate = Gate::new();
                let call = workers.run_sync(pass, gate.path()).kill_on_cancel(true);
                let mut call = Box::pin(call.into_future());
                let begun = pin!(gate.begun());
                let begun = async { Some(begun.await) };
                let cut_off = futures_lite::FutureExt::or(begun, async {
                    call.as_mut().await.expect("it waits behind its gate");
                    None
                });
                let worker = cut_off.await.expect("the gate is shut");
                drop(call);
                common::wait_until_gone(worker);
            }));
        });
        blocking.await;
    });
}

fn a_dropped_context_block_leaves_nothing() {
    test(async {
        for k in 1.. {
            let block = seedbed::open_worker_context(WorkerConfig::new(), |workers| async move {
                workers.run_sync(pid, ()).await.unwrap();
                workers.run_sync(pid, ()).await.unwrap()
            });
            if !dropped_when_pending(block, k).await {
                break;
            }
        }
        for k in 1.. {
            let block = seedbed::cache_scope(WorkerConfig::new(), run_sync(pid, ()));
            if !dropped_when_pending(block, k).await {
                break;
            }
        }
    });
}

fn a_cancelled_context_block_ends_its_workers_before_it_ends() {
    test(async {
        let (scope, gate) = (CancelScope::new(), Gate::new());
        let block = seedbed::open_worker_context(WorkerConfig::new(), |workers| {
            let path = gate.path();
            async move {
                workers.run_sync(pid, ()).await.unwrap();
                workers.run_sync(pass, path).kill_on_cancel(true).await
            }
        });
        let cancel = async {
            gate.begun().await;
            scope.cancel();
        };
        let (outcome, ()) = smol::future::zip(scope.run(block), cancel).await;
        assert!(outcome.is_none());
        assert!(common::workers().is_empty());
    });
}

fn a_storm_of_calls_that_are_killed_at_odd_moments_leaves_nothing_and_loses_no_result() {
    fn spin(micros: u64) -> u64 {
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_micros(micros) {
            std::hint::spin_loop();
        }
        micros
    }
    test(with_workers(
        WorkerConfig::new().retire_after(3),
        async |workers: WorkerContext| {
            let limiter = CapacityLimiter::new(6);
            let (workers, limiter) = (&workers, &limiter);
            seedbed::open_nursery(|nursery| async move {
                for n in 0..120u64 {
                    nursery.spawn(async move {
                        let call = workers
                            .run_sync(spin, 37 * (n % 50))
                            .limiter(limiter)
                            .kill_on_cancel(n % 3 != 0);
                        let limit = Duration::from_micros(211 * (n % 40));
                        // A cancelled call leaves nothing to check here.
                        if let Some(outcome) = move_on_after(limit, call).await {
                            assert_eq!(outcome.unwrap(), 37 * (n % 50));
                        }
                    });
                }
            })
            .await;
            assert_eq!(limiter.borrowed(), 0);
            assert_eq!(workers.statistics().running_workers, 0);
        },
    ));
}

suite! {
    a_cancelled_caller_touches_no_worker,
    a_call_that_waits_for_its_limiter_can_be_cancelled,
    by_default_a_cancelled_call_runs_to_its_end_and_keeps_its_value,
    a_killable_call_ends_when_its_worker_has_been_reaped,
    a_time_limit_ends_an_endless_job,
    a_shield_around_a_killable_call_protects_it,
    a_killable_call_may_be_dropped_at_every_pending_point_of_a_start,
    a_killable_call_may_be_dropped_at_every_pending_point_of_a_warm_call,
    a_shielded_call_may_be_dropped_at_every_pending_point_of_a_start,
    a_shielded_call_may_be_dropped_at_every_pending_point_of_a_warm_call,
    a_killable_call_may_be_cancelled_at_every_pending_point,
    a_dropped_call_that_may_not_be_killed_ends_in_the_background_with_its_token,
    a_dropped_call_is_reaped_while_a_task_blocks_smols_executor,
    a_dropped_context_block_leaves_nothing,
    a_cancelled_context_block_ends_its_workers_before_it_ends,
    a_storm_of_calls_that_are_killed_at_odd_moments_leaves_nothing_and_loses_no_result,
}
