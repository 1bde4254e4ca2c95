//! The cache of workers: which one is used, when workers exit, and how a context ends.

use std::time::Duration;

use crate::common;
use crate::common::stage::leave_a_byte;
use crate::common::{pid, test, until_empty, with_workers, with_workers_that_stay};
use seedbed::worker::{WorkerErrorKind, WorkerStatus, default_context_statistics};
use seedbed::{
    CapacityLimiter, WorkerConfig, WorkerContext, cache_scope, open_worker_context, run_sync,
};

/// Gives a context two idle workers, and returns their process ids. The one used last comes last.
async fn two_workers(workers: &WorkerContext) -> [u32; 2] {
    fn meet(folder: std::path::PathBuf) -> u32 {
        std::fs::write(folder.join(std::process::id().to_string()), "").unwrap();
        while std::fs::read_dir(&folder).unwrap().count() < 2 {
            std::thread::yield_now();
        }
        std::process::id()
    }
    let folder = tempfile::tempdir().unwrap();
    let limiter = CapacityLimiter::unlimited();
    let call = || {
        workers
            .run_sync(meet, folder.path().to_owned())
            .limiter(&limiter)
            .into_future()
    };
    let (one, two) = smol::future::zip(call(), call()).await;
    let (one, two) = (one.unwrap(), two.unwrap());
    let last = workers.run_sync(pid, ()).await.unwrap();
    [if last == one { two } else { one }, last]
}

fn the_worker_used_last_is_used_next() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let [cold, warm] = two_workers(&workers).await;
        assert_ne!(cold, warm);
        for _ in 0..3 {
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), warm);
        }
        assert_eq!(workers.statistics().idle_workers, 2);
    }));
}

fn an_idle_worker_exits_after_its_timeout_and_is_replaced_silently() {
    test(with_workers(
        WorkerConfig::new().idle_timeout(Duration::from_millis(20)),
        |workers| async move {
            let first = workers.run_sync(pid, ()).await.unwrap();
            until_empty(&workers).await;
            assert!(!common::is_alive(first));
            assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
        },
    ));
}

fn a_job_that_meets_an_idle_timeout_is_run_once_by_another_worker() {
    test(with_workers(
        WorkerConfig::new().idle_timeout(Duration::ZERO),
        |workers| async move {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("runs");
            for _ in 0..200 {
                workers.run_sync(leave_a_byte, path.clone()).await.unwrap();
                // Covers the moment at which the worker exits.
                smol::Timer::after(Duration::from_micros(900)).await;
            }
            assert_eq!(std::fs::read(path).unwrap().len(), 200);
            until_empty(&workers).await;
        },
    ));
}

/// Regression: a new worker counted its idle timeout from the moment at which it was ready. If the
/// parent was busy for longer, each worker had exited when its job came, and the next one was
/// started, without end. (Sometimes the call hung instead: an event of the reactor was lost that
/// came while the thread was busy.)
fn a_new_worker_waits_for_the_job_that_it_was_started_for() {
    #[allow(clippy::ptr_arg)] // its data is a `PathBuf`, so this is what it gets
    fn leave_a_trace(folder: &std::path::PathBuf) {
        std::fs::write(folder.join(std::process::id().to_string()), "").unwrap();
    }
    test(async {
        for _ in 0..4 {
            let folder = tempfile::tempdir().unwrap();
            let config = WorkerConfig::new()
                .idle_timeout(Duration::ZERO)
                .init_with(folder.path().to_owned(), leave_a_trace);
            with_workers(config, |workers| async move {
                let call = workers.run_sync(pid, ()).into_future();
                let busy = async {
                    loop {
                        std::thread::sleep(Duration::from_millis(30)); // on purpose on the executor's thread
                        smol::future::yield_now().await;
                    }
                };
                smol::future::or(call, busy).await.unwrap();
            })
            .await;
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    });
}

fn a_single_use_worker_serves_once() {
    test(with_workers(
        WorkerConfig::new().single_use(),
        |workers| async move {
            let mut pids = Vec::new();
            for _ in 0..4 {
                pids.push(workers.run_sync(pid, ()).await.unwrap());
            }
            pids.sort_unstable();
            pids.dedup();
            assert_eq!(pids.len(), 4);
        },
    ));
}

fn a_worker_retires_after_its_number_of_jobs() {
    test(with_workers(
        WorkerConfig::new().retire_after(2),
        |workers| async move {
            let mut pids = Vec::new();
            for _ in 0..6 {
                pids.push(workers.run_sync(pid, ()).await.unwrap());
            }
            assert!(
                pids[0] == pids[1] && pids[2] == pids[3] && pids[4] == pids[5],
                "{pids:?}"
            );
            assert!(pids[1] != pids[2] && pids[3] != pids[4], "{pids:?}");
        },
    ));
}

fn a_worker_that_holds_too_much_memory_retires_after_the_job() {
    fn leak(bytes: usize) -> u32 {
        std::mem::forget(vec![1u8; bytes]);
        std::process::id()
    }
    test(with_workers(
        WorkerConfig::new().retire_above_memory(128 << 20),
        |workers| async move {
            let first = workers.run_sync(leak, 1 << 20).await.unwrap();
            assert_eq!(workers.run_sync(leak, 256 << 20).await.unwrap(), first);
            assert_ne!(workers.run_sync(leak, 0).await.unwrap(), first);
        },
    ));
}

fn the_first_retire_closure_that_returns_true_ends_the_worker() {
    let config = WorkerConfig::new()
        .retire(|_: &WorkerStatus| false)
        .retire_with(3u64, |most: &u64, worker| {
            worker.age() < Duration::from_secs(3600) && worker.jobs() >= *most
        });
    test(with_workers(config, |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
        assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
    }));
}

fn a_retire_closure_that_panics_spares_its_job_and_fails_the_next() {
    for wait in [false, true] {
        let config = WorkerConfig::new().retire(|_: &WorkerStatus| panic!("no idea"));
        test(open_worker_context(config, |workers| async move {
            let first = workers.run_sync(pid, ()).await.unwrap();
            if wait {
                common::wait_until_gone(first);
            }
            let error = workers.run_sync(pid, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Retire);
            assert_eq!(error.panic().unwrap().message(), "no idea");
            assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
            let error = workers.shutdown().await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Shutdown);
            assert!(
                error.to_string().contains("1 non-zero exits and 0 killed"),
                "{error}"
            );
        }));
    }
}

/// Regression: `statistics()`, and each call while several workers were idle, checked the longest
/// idle worker by reading its last frame, and discarded that. The panic was never reported, and a
/// worker that had announced its exit was counted as idle and hid those behind it.
fn checking_idle_workers_removes_exited_ones_and_keeps_a_panic_report() {
    let config = WorkerConfig::new().idle_timeout(Duration::ZERO);
    test(with_workers(config, |workers| async move {
        two_workers(&workers).await;
        common::workers()
            .into_iter()
            .for_each(common::wait_until_gone);
        assert_eq!(workers.statistics().idle_workers, 0);
    }));
    let config = WorkerConfig::new().retire(|_: &WorkerStatus| panic!("no idea"));
    test(with_workers(config, |workers| async move {
        common::wait_until_gone(workers.run_sync(pid, ()).await.unwrap());
        assert_eq!(workers.statistics().idle_workers, 0);
        assert_eq!(workers.statistics().idle_workers, 0);
        let error = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Retire);
    }));
}

fn an_init_closure_that_panics_fails_the_call_that_needed_the_worker() {
    let config = WorkerConfig::new().init(|| panic!("no toner"));
    test(with_workers(config, |workers| async move {
        for _ in 0..2 {
            let error = workers.run_sync(pid, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Init);
            assert_eq!(error.panic().unwrap().message(), "no toner");
            assert_eq!(workers.statistics().idle_workers, 0);
        }
    }));
}

fn init_closures_run_once_in_their_order_with_their_data() {
    static LOG: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());
    #[allow(clippy::ptr_arg)] // the data is a `String`, so this is what the closure gets
    fn log(text: &String) {
        LOG.lock().unwrap().push_str(text);
    }
    let config = WorkerConfig::new()
        .init_with("one ".to_owned(), log)
        .init(|| log(&"two ".to_owned()))
        .init_with("three".to_owned(), log);
    test(with_workers(config, |workers| async move {
        for _ in 0..2 {
            let read = workers
                .run_sync(|()| LOG.lock().unwrap().clone(), ())
                .await
                .unwrap();
            assert_eq!(read, "one two three");
        }
    }));
}

fn data_that_cannot_be_encoded_is_an_error_before_anything_starts() {
    #[derive(serde::Deserialize)]
    struct Unspeakable;
    impl serde::Serialize for Unspeakable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("unspeakable"))
        }
    }
    test(async {
        let config = || WorkerConfig::new().init_with(Unspeakable, |_: &Unspeakable| {});
        let refused = seedbed::worker::configure_default_context(config()).unwrap_err();
        assert_eq!(refused.kind(), WorkerErrorKind::EncodeArgument);
        with_workers(config(), |workers| async move {
            let error = workers.run_sync(pid, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::EncodeArgument);
            assert!(error.to_string().contains("unspeakable"));
            assert!(common::children().is_empty());
        })
        .await;
    });
}

fn a_context_is_closed_after_its_block_and_its_statistics_still_work() {
    test(async {
        let workers = open_worker_context(WorkerConfig::new(), |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
            assert_eq!(workers.statistics().idle_workers, 1);
            workers
        })
        .await;
        assert!(
            common::children().is_empty(),
            "the block's end waits for the workers' ends"
        );
        assert_eq!(
            workers.run_sync(pid, ()).await.unwrap_err().kind(),
            WorkerErrorKind::Closed
        );
        let statistics = workers.statistics();
        assert_eq!(
            (statistics.idle_workers, statistics.running_workers),
            (0, 0)
        );
        workers.shutdown().await.unwrap();
    });
}

fn the_end_of_a_context_waits_for_jobs_in_progress() {
    fn wait_for(path: std::path::PathBuf) -> u32 {
        while !path.exists() {
            std::thread::yield_now();
        }
        std::process::id()
    }
    test(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("go");
        let (job, workers) = open_worker_context(WorkerConfig::new(), |workers| {
            let path = path.clone();
            async move {
                let job = smol::spawn(workers.run_sync(wait_for, path.clone()).into_future());
                while workers.statistics().running_workers == 0 {
                    smol::future::yield_now().await;
                }
                smol::spawn(async move { std::fs::write(path, "").unwrap() }).detach();
                (job, workers)
            }
        })
        .await;
        assert_eq!(workers.statistics().running_workers, 0);
        assert!(job.await.unwrap() > 0);
    });
}

fn workers_that_do_not_exit_are_killed_after_the_grace_period() {
    let config = with_workers_that_stay(WorkerConfig::new());
    let config = config.grace_period(Duration::from_millis(100));
    test(open_worker_context(config, |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        let error = workers.shutdown().await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Shutdown);
        assert!(
            error.to_string().contains("0 non-zero exits and 1 killed"),
            "{error}"
        );
    }));
}

fn cache_scopes_have_workers_of_their_own_and_nest() {
    test(async {
        let outer = run_sync(pid, ()).await.unwrap();
        let explicit = open_worker_context(WorkerConfig::new(), |workers| async move {
            cache_scope(WorkerConfig::new(), async {
                let scoped = run_sync(pid, ()).await.unwrap();
                assert_ne!(scoped, outer);
                assert_eq!(default_context_statistics().idle_workers, 1);
                let nested = cache_scope(WorkerConfig::new(), run_sync(pid, ()))
                    .await
                    .unwrap();
                assert!(nested != scoped && nested != outer);
                assert!(!common::is_alive(nested));
                assert_eq!(run_sync(pid, ()).await.unwrap(), scoped);
                workers.run_sync(pid, ()).await.unwrap()
            })
            .await
        });
        assert_ne!(explicit.await, outer);
        assert_eq!(run_sync(pid, ()).await.unwrap(), outer);
        common::end_default_workers();
    });
}

fn a_new_default_configuration_ends_the_old_workers() {
    test(async {
        let first = run_sync(pid, ()).await.unwrap();
        seedbed::worker::configure_default_context(WorkerConfig::new().single_use()).unwrap();
        let second = run_sync(pid, ()).await.unwrap();
        let third = run_sync(pid, ()).await.unwrap();
        assert!(first != second && second != third);
        common::end_default_workers();
        common::wait_until_gone(first);
    });
}

/// Regression: their number was not limited, until the kernel refused another process.
fn the_number_of_slowly_exiting_workers_is_limited() {
    extern "C" fn forever() {
        loop {
            std::thread::park();
        }
    }
    fn stay_at_exit(_: ()) {
        // SAFETY: the function may be called at any time.
        unsafe { libc::atexit(forever) };
    }
    let config = WorkerConfig::new().single_use();
    test(with_workers(config, |workers| async move {
        for _ in 0..400 {
            workers.run_sync(stay_at_exit, ()).await.unwrap();
            let count = common::children().len();
            assert!(count < 300, "{count} processes");
        }
    }));
}

suite! {
    the_number_of_slowly_exiting_workers_is_limited,
    the_worker_used_last_is_used_next,
    an_idle_worker_exits_after_its_timeout_and_is_replaced_silently,
    a_job_that_meets_an_idle_timeout_is_run_once_by_another_worker,
    a_new_worker_waits_for_the_job_that_it_was_started_for,
    a_single_use_worker_serves_once,
    a_worker_retires_after_its_number_of_jobs,
    a_worker_that_holds_too_much_memory_retires_after_the_job,
    the_first_retire_closure_that_returns_true_ends_the_worker,
    a_retire_closure_that_panics_spares_its_job_and_fails_the_next,
    checking_idle_workers_removes_exited_ones_and_keeps_a_panic_report,
    an_init_closure_that_panics_fails_the_call_that_needed_the_worker,
    init_closures_run_once_in_their_order_with_their_data,
    data_that_cannot_be_encoded_is_an_error_before_anything_starts,
    a_context_is_closed_after_its_block_and_its_statistics_still_work,
    the_end_of_a_context_waits_for_jobs_in_progress,
    workers_that_do_not_exit_are_killed_after_the_grace_period,
    cache_scopes_have_workers_of_their_own_and_nest,
    a_new_default_configuration_ends_the_old_workers,
}
