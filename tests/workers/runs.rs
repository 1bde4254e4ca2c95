//! Worker processes together with runs, the tree of tasks, and limiters.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::sync::Barrier;

use crate::common::{alone, children, end_default_workers, modes, wait_until_gone};
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::worker::{current_default_worker_limiter, default_context_statistics};
use seedbed::{
    CapacityLimiter, RunBuilder, WorkerConfig, cache_scope, open_nursery, open_worker_context, run,
    run_sync,
};

fn pid(_: ()) -> u32 {
    std::process::id()
}

/// Waits in the worker until a file exists.
fn pass(gate: PathBuf) {
    while !gate.exists() {
        std::thread::yield_now();
    }
}

fn the_default_limiter_has_a_token_for_each_processor() {
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(current_default_worker_limiter().total(), Some(processors));
}

fn a_call_holds_its_token_until_the_job_is_over() {
    seedbed::init();
    let _alone = alone();
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("gate");
        let limiter = CapacityLimiter::new(1);
        open_worker_context(WorkerConfig::new(), async |workers| {
            open_nursery(async |n| {
                for _ in 0..2 {
                    n.spawn(workers.run_sync(pass, gate.clone()).limiter(&limiter));
                }
                // The worker of one call is still starting, and the other call waits for the token.
                wait_all_tasks_blocked().await;
                assert_eq!(limiter.borrowed(), 1);
                assert_eq!(limiter.statistics().waiting, 1);
                assert_eq!(workers.statistics().running_workers, 1);
                std::fs::write(&gate, "").unwrap();
            })
            .await;
            assert_eq!(limiter.borrowed(), 0);
            assert_eq!(workers.statistics().running_workers, 0);
            assert_eq!(workers.statistics().idle_workers, 1);
        })
        .await;
    });
}

fn a_cache_scope_holds_for_the_nurseries_opened_inside_whoever_spawns() {
    seedbed::init();
    let _alone = alone();
    run(async {
        let outside = run_sync(pid, ()).await.unwrap();
        let (spawned_outwards, spawned_inwards) = open_nursery(async |outer| {
            cache_scope(WorkerConfig::new(), async {
                let scoped = run_sync(pid, ()).await.unwrap();
                assert_ne!(scoped, outside);
                open_nursery(async |inner| {
                    // Spawned inside the scope into a nursery that was opened outside and may
                    // outlive the scope.
                    let outwards = outer.spawn(run_sync(pid, ()));
                    // Spawned by a task outside into a nursery that was opened inside.
                    let inwards = outer.spawn(async move { inner.spawn(run_sync(pid, ())).await });
                    let inwards = inwards.await.unwrap();
                    assert_eq!(inwards, scoped);
                    (outwards.await.unwrap(), inwards)
                })
                .await
            })
            .await
        })
        .await;
        assert_eq!(spawned_outwards, outside);
        assert_ne!(spawned_inwards, outside);
    });
}

fn concurrent_runs_share_workers_and_the_last_one_ends_them() {
    seedbed::init();
    let _alone = alone();
    let both_run = Barrier::new(2);
    let first_ended = Barrier::new(2);
    std::thread::scope(|threads| {
        let short = modes::thread_of_test().spawn_scoped(threads, || {
            let worker = run(async {
                both_run.wait();
                run_sync(pid, ()).await.unwrap()
            });
            first_ended.wait();
            worker
        });
        let short = short.unwrap();
        run(async {
            both_run.wait();
            first_ended.wait();
            // The other run has ended, but not its worker, as it was not the last run.
            let worker = run_sync(pid, ()).await.unwrap();
            assert_eq!(worker, short.join().unwrap());
            assert_eq!(children(), [worker]);
        });
    });
    assert_eq!(
        children(),
        [],
        "the end of the last run waits for the workers' ends"
    );
    let before = run(run_sync(pid, ())).unwrap();
    let after = run(run_sync(pid, ())).unwrap();
    assert_ne!(
        before, after,
        "runs one after the other have workers of their own"
    );
}

/// A suite of many short runs used to pay for the start of its workers in each of them.
fn runs_that_keep_their_workers_share_them() {
    seedbed::init();
    let _alone = alone();
    end_default_workers();
    let keeping = || RunBuilder::new().keep_workers(true);
    let worker = keeping().run(run_sync(pid, ())).unwrap();
    assert_eq!(children(), [worker]);
    let statistics = default_context_statistics();
    assert_eq!((statistics.started, statistics.idle_workers), (1, 1));
    // A panic of one test does not cost the others their worker.
    let panics = || keeping().run(async { panic!("as planned") });
    std::panic::catch_unwind(panics).unwrap_err();
    for jobs in 2..5 {
        assert_eq!(keeping().run(run_sync(pid, ())).unwrap(), worker);
        let statistics = default_context_statistics();
        assert_eq!((statistics.started, statistics.jobs_done), (1, jobs));
    }
    // Outside of runs, too.
    assert_eq!(
        smol::block_on(run_sync(pid, ()).into_future()).unwrap(),
        worker
    );

    run(async {});
    assert_eq!(children(), []);
    assert_ne!(keeping().run(run_sync(pid, ())).unwrap(), worker);
    run(async {});
    assert_eq!(children(), [], "a run that does not keep workers ends them");
}

fn kept_workers_end_with_their_configuration() {
    seedbed::init();
    let _alone = alone();
    end_default_workers();
    let keeping = || RunBuilder::new().keep_workers(true);
    let first = keeping().run(run_sync(pid, ())).unwrap();
    end_default_workers();
    let second = keeping().run(run_sync(pid, ())).unwrap();
    assert_ne!(first, second);
    wait_until_gone(first);
    run(async {});
    assert_eq!(children(), []);
}

fn the_workers_of_another_context_end_with_their_block_in_a_run_that_keeps_workers() {
    seedbed::init();
    let _alone = alone();
    end_default_workers();
    RunBuilder::new().keep_workers(true).run(async {
        let config = WorkerConfig::new();
        open_worker_context(config, |workers| async move {
            workers.run_sync(pid, ()).await.unwrap()
        })
        .await;
    });
    assert_eq!(children(), []);
}

suite! {
    the_default_limiter_has_a_token_for_each_processor,
    a_call_holds_its_token_until_the_job_is_over,
    a_cache_scope_holds_for_the_nurseries_opened_inside_whoever_spawns,
    concurrent_runs_share_workers_and_the_last_one_ends_them,
    runs_that_keep_their_workers_share_them,
    kept_workers_end_with_their_configuration,
    the_workers_of_another_context_end_with_their_block_in_a_run_that_keeps_workers,
}
