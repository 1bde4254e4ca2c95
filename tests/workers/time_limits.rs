//! The time limit of a job: what it counts, and what it leaves behind.
//!
//! A limit of zero is over when the job begins, so it shows without waiting when that is.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common;
use crate::common::{endless, pid, poll_with_yields, test, wait_until_gone, with_workers};
use rustix::process::{Signal, getpid, kill_process};
use seedbed::worker::WorkerErrorKind;
use seedbed::{
    CancelScope, CapacityLimiter, WorkerConfig, WorkerContext, WorkerError, move_on_after, run_sync,
};
use serde::{Deserialize, Serialize};

const NEVER: Duration = Duration::from_secs(3600);

/// A job that reports that it has begun, and waits until it may end.
fn pass(folder: PathBuf) -> u32 {
    wait_at(&folder);
    std::process::id()
}

#[allow(clippy::ptr_arg)] // an `init` closure gets a reference to its data
fn wait_at(folder: &PathBuf) {
    std::fs::write(folder.join("begun"), std::process::id().to_string()).unwrap();
    while !folder.join("go").exists() {
        std::thread::yield_now();
    }
}

async fn begun(folder: &Path) -> u32 {
    loop {
        match std::fs::read_to_string(folder.join("begun")) {
            Ok(pid) if !pid.is_empty() => return pid.parse().unwrap(),
            _ => smol::future::yield_now().await,
        }
    }
}

async fn times_out(workers: &WorkerContext, limit: Duration) -> WorkerError {
    let call = workers.run_sync(endless, ()).time_limit(limit);
    let error = call.await.unwrap_err();
    assert_eq!(error.kind(), WorkerErrorKind::TimedOut, "{error}");
    error
}

fn a_job_that_reaches_its_limit_is_killed_reaped_and_described() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let limiter = CapacityLimiter::new(1);
        let limit = Duration::from_millis(20);
        let call = workers.run_sync(endless, ()).limiter(&limiter);
        let error = call.time_limit(limit).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::TimedOut);
        assert!(error.job().unwrap().ends_with("endless"));
        assert!(error.ran_for().unwrap() >= limit);
        let exit = error.exit().unwrap();
        assert_eq!(exit.signal_name(), Some("SIGKILL"));
        let text = error.to_string();
        for part in ["endless", "20ms", &exit.pid().to_string()] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(!Path::new(&format!("/proc/{}", exit.pid())).exists());
        assert_eq!(limiter.borrowed(), 0);
        let statistics = workers.statistics();
        assert_eq!(
            (statistics.jobs_failed, statistics.jobs_timed_out),
            (1, 1),
            "{statistics:?}"
        );
        assert_eq!((statistics.killed, statistics.living), (1, 0));
    }));
}

fn a_job_within_its_limit_keeps_its_worker() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for limit in [NEVER, Duration::MAX] {
            let first = workers.run_sync(pid, ()).time_limit(limit).await.unwrap();
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
        }
        assert_eq!(workers.statistics().jobs_timed_out, 0);
    }));
}

/// Twenty calls under a limit around each of them used to fail because of their place in the queue.
fn the_wait_for_the_limiter_does_not_count() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let limiter = CapacityLimiter::new(1);
        let token = limiter.acquire().await;
        let call = workers.run_sync(endless, ()).limiter(&limiter);
        let mut call = call.time_limit(Duration::ZERO).into_future();
        assert!(!poll_with_yields(&mut call, 100).await);
        drop(token);
        assert_eq!(call.await.unwrap_err().kind(), WorkerErrorKind::TimedOut);
    }));
}

fn the_start_of_a_worker_does_not_count() {
    test(async {
        let folder = tempfile::tempdir().unwrap();
        let config = WorkerConfig::new().init_with(folder.path().to_owned(), wait_at);
        with_workers(config, |workers| async move {
            let call = workers.run_sync(endless, ()).time_limit(Duration::ZERO);
            let mut call = call.into_future();
            let started = smol::future::or(async { Ok(begun(folder.path()).await) }, async {
                Err((&mut call).await)
            });
            let worker = started.await.expect("the job has not begun");
            assert!(!poll_with_yields(&mut call, 100).await);
            std::fs::write(folder.path().join("go"), "").unwrap();
            let error = call.await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::TimedOut);
            assert_eq!(error.exit().unwrap().pid(), worker);
        })
        .await;
    });
}

fn each_call_has_its_own_time_in_the_same_worker_and_in_a_new_one() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        let killed = times_out(&workers, Duration::ZERO).await;
        assert_eq!(killed.exit().unwrap().pid(), first);
        let second = workers.run_sync(pid, ()).time_limit(NEVER).await.unwrap();
        assert_ne!(second, first);
        times_out(&workers, Duration::from_millis(1)).await;
    }));
}

fn an_answer_that_has_arrived_counts_however_late_it_is_read() {
    let config = WorkerConfig::new().single_use();
    test(with_workers(config, |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(1);
        let call = workers.run_sync(pass, folder.path().to_owned());
        let mut call = call.time_limit(limit).into_future();
        let started = smol::future::or(async { Ok(begun(folder.path()).await) }, async {
            Err((&mut call).await)
        });
        let worker = started.await.expect("a second is enough to begin");
        // From here on, nothing polls the call until its limit is over.
        let over = Instant::now() + limit;
        std::fs::write(folder.path().join("go"), "").unwrap();
        wait_until_gone(worker);
        while Instant::now() < over {
            std::thread::yield_now();
        }
        assert_eq!(call.await.unwrap(), worker);
    }));
}

fn stop(_: ()) {
    kill_process(getpid(), Signal::STOP).unwrap();
    endless(())
}

fn a_frozen_worker_reaches_its_limit_too() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let call = workers.run_sync(stop, ());
        let error = call.time_limit(Duration::from_millis(20)).await;
        assert_eq!(error.unwrap_err().kind(), WorkerErrorKind::TimedOut);
    }));
}

fn a_cancelled_call_that_is_not_killable_ends_at_its_limit() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let call = workers.run_sync(endless, ());
        let call = call.time_limit(Duration::from_millis(20));
        let outcome = move_on_after(Duration::from_millis(1), call).await;
        // The scope may have been cancelled before the job was handed over.
        if let Some(result) = outcome {
            assert_eq!(result.unwrap_err().kind(), WorkerErrorKind::TimedOut);
        }
    }));
}

fn a_killable_call_is_cancelled_before_its_limit() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (scope, folder) = (CancelScope::new(), tempfile::tempdir().unwrap());
        let call = workers.run_sync(pass, folder.path().to_owned());
        let call = scope.run(call.kill_on_cancel(true).time_limit(NEVER));
        let cancel = async {
            begun(folder.path()).await;
            scope.cancel();
        };
        assert!(smol::future::zip(call, cancel).await.0.is_none());
        let statistics = workers.statistics();
        assert_eq!(
            (statistics.jobs_cancelled, statistics.jobs_timed_out),
            (1, 0)
        );
    }));
}

fn the_limit_of_a_dropped_call_ends_its_job_in_the_background() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let call = workers.run_sync(pass, folder.path().to_owned());
        let mut call = call.time_limit(Duration::from_millis(20)).into_future();
        let started = smol::future::or(async { Ok(begun(folder.path()).await) }, async {
            Err((&mut call).await)
        });
        drop(call_of(started.await, call));
        // Nothing opens the gate. The context's end would wait forever for a job without a limit.
    }));
}

/// The call, unless the machine was so busy that it has timed out already.
fn call_of<C, R>(started: Result<u32, R>, call: C) -> Option<C> {
    started.is_ok().then_some(call)
}

/// A virtual clock jumps over a job, which lives in real time.
fn the_limit_is_real_time_in_a_run_with_a_virtual_clock() {
    seedbed::init();
    let _alone = common::alone();
    common::end_default_workers();
    let clock = seedbed::testing::MockClock::autojump();
    seedbed::RunBuilder::new().clock(clock).run(async {
        let folder = tempfile::tempdir().unwrap();
        let call = run_sync(pass, folder.path().to_owned()).time_limit(NEVER);
        let jump = async {
            begun(folder.path()).await;
            seedbed::sleep(10 * NEVER).await;
            std::fs::write(folder.path().join("go"), "").unwrap();
        };
        smol::future::zip(call.into_future(), jump).await.0.unwrap();
        let error = run_sync(endless, ()).time_limit(Duration::from_millis(20));
        assert_eq!(error.await.unwrap_err().kind(), WorkerErrorKind::TimedOut);
    });
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Failure {
    Odd(u32),
    Worker(String),
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        Failure::Worker(format!("{:?}", error.kind()))
    }
}

fn half(n: u32) -> Result<u32, Failure> {
    match n {
        13 => std::process::exit(13),
        n if n % 2 == 1 => Err(Failure::Odd(n)),
        n => Ok(n / 2),
    }
}

fn flatten_makes_one_result_of_two() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let half = |n| workers.run_sync(half, n).time_limit(NEVER).flatten();
        assert_eq!(half(8).await, Ok(4));
        assert_eq!(half(7).await, Err(Failure::Odd(7)));
        assert_eq!(half(13).await, Err(Failure::Worker("Broken".into())));
    }));
}

suite! {
    a_job_that_reaches_its_limit_is_killed_reaped_and_described,
    a_job_within_its_limit_keeps_its_worker,
    the_wait_for_the_limiter_does_not_count,
    the_start_of_a_worker_does_not_count,
    each_call_has_its_own_time_in_the_same_worker_and_in_a_new_one,
    an_answer_that_has_arrived_counts_however_late_it_is_read,
    a_frozen_worker_reaches_its_limit_too,
    a_cancelled_call_that_is_not_killable_ends_at_its_limit,
    a_killable_call_is_cancelled_before_its_limit,
    the_limit_of_a_dropped_call_ends_its_job_in_the_background,
    the_limit_is_real_time_in_a_run_with_a_virtual_clock,
    flatten_makes_one_result_of_two,
}
