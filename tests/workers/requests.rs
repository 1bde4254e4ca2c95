//! Jobs that are asked to end: by calls with `kill_after`, and by `shutdown_within`.

use std::future::{Future, IntoFuture, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::common;
use crate::common::gate::{self, Gate, begin, stopped_when_pending};
use crate::common::stage::within;
use crate::common::{pid, test, with_workers};
use seedbed::worker::{
    CancelledError, RemoteError, WorkerErrorKind, WorkerStatus, cancelled, check_cancelled,
};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext, move_on_after, run_sync};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

/// Ends when it is asked to.
fn polite(gate: PathBuf) -> Result<(), CancelledError> {
    begin(&gate);
    loop {
        check_cancelled()?;
        std::thread::yield_now();
    }
}

/// Never ends.
fn deaf(gate: PathBuf) {
    begin(&gate);
    loop {
        std::thread::park();
    }
}

/// Waits at the gate and does not ask.
fn pass(gate: PathBuf) -> u32 {
    begin(&gate);
    gate::pass(&gate);
    std::process::id()
}

/// Waits at the gate, and then asks.
fn pass_and_ask(gate: PathBuf) -> bool {
    pass(gate);
    cancelled()
}

/// Makes a directory in the gate's folder, which is removed when the job returns.
fn with_directory(gate: PathBuf) -> Result<(), RemoteError> {
    let _directory = tempfile::tempdir_in(&gate)?;
    begin(&gate);
    loop {
        check_cancelled()?;
        std::thread::yield_now();
    }
}

fn is_asked(_: ()) -> bool {
    cancelled()
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Awaits a call in a scope that is cancelled when the job has begun. Returns what the scope does,
/// and the job's process.
async fn cancelled_at<F: IntoFuture>(gate: &Gate, call: F) -> (Option<F::Output>, u32) {
    let scope = CancelScope::new();
    let cancel = async {
        let pid = gate.begun().await;
        scope.cancel();
        pid
    };
    within(smol::future::zip(scope.run(call), cancel)).await
}

/// A context whose one worker has had this many jobs.
async fn with_worker_after<Fut: Future>(jobs: usize, body: impl FnOnce(WorkerContext) -> Fut) {
    with_workers(WorkerConfig::new(), |workers| async move {
        for _ in 0..jobs {
            workers.run_sync(pid, ()).await.unwrap();
        }
        body(workers).await;
    })
    .await;
}

fn a_job_that_heeds_returns_its_result_and_its_worker_serves_the_next_call() {
    test(async {
        for jobs in 0..4 {
            with_worker_after(jobs, |workers| async move {
                let gate = Gate::new();
                let call = workers.run_sync(polite, gate.path()).kill_after(LONG);
                let (outcome, job) = cancelled_at(&gate, call).await;
                assert_eq!(outcome.unwrap().unwrap(), Err(CancelledError));
                assert_eq!(workers.run_sync(pid, ()).await.unwrap(), job);
                assert!(!workers.run_sync(is_asked, ()).await.unwrap());
                let statistics = workers.statistics();
                assert_eq!((statistics.killed, statistics.jobs_cancelled), (0, 0));
                assert_eq!(statistics.jobs_done, jobs as u64 + 3);
            })
            .await;
        }
    });
}

fn a_job_that_heeds_drops_what_it_owns() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let gate = Gate::new();
        let call = workers
            .run_sync(with_directory, gate.path())
            .kill_after(LONG);
        let (outcome, _) = cancelled_at(&gate, call).await;
        let error = outcome.unwrap().unwrap().unwrap_err();
        assert_eq!(error.message(), CancelledError.to_string());
        let left = std::fs::read_dir(gate.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["begun"], "the directory is removed");
    }));
}

fn a_job_that_does_not_heed_is_killed_when_the_patience_is_over() {
    test(async {
        for jobs in 0..3 {
            with_worker_after(jobs, |workers| async move {
                let gate = Gate::new();
                let call = workers.run_sync(deaf, gate.path());
                let call = call.kill_after(Duration::from_millis(20));
                let (outcome, job) = cancelled_at(&gate, call).await;
                assert!(outcome.is_none());
                assert!(!exists(job), "not even a zombie is left");
                let statistics = workers.statistics();
                assert_eq!((statistics.killed, statistics.jobs_cancelled), (1, 1));
                assert_eq!(statistics.jobs_failed, 0);
                assert_eq!(statistics.running_workers, 0);
            })
            .await;
        }
    });
}

fn a_job_that_ends_without_asking_returns_its_result() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for _ in 0..3 {
            let gate = Gate::new();
            let (scope, call) = (CancelScope::new(), workers.run_sync(pass, gate.path()));
            let call = scope.run(call.kill_after(LONG));
            let cancel = async {
                let pid = gate.begun().await;
                scope.cancel();
                gate.open();
                pid
            };
            let (outcome, job) = within(smol::future::zip(call, cancel)).await;
            assert_eq!(outcome.unwrap().unwrap(), job);
        }
    }));
}

/// The request of each call comes while the job runs or after it has ended, and the next job runs
/// in the same worker.
fn a_request_that_comes_too_late_does_not_concern_the_next_job() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        for _ in 0..100 {
            let scope = CancelScope::new();
            let call = workers.run_sync(pid, ()).kill_after(LONG);
            let mut call = pin!(scope.run(call));
            let polled = poll_fn(|cx| {
                let polled = call.as_mut().poll(cx);
                scope.cancel();
                Poll::Ready(polled)
            });
            let outcome = match polled.await {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => within(call).await,
            };
            assert_eq!(outcome.unwrap().unwrap(), first);
            assert!(!workers.run_sync(is_asked, ()).await.unwrap());
        }
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    }));
}

fn a_job_is_not_asked_if_its_call_has_no_patience() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for _ in 0..3 {
            let (scope, gate) = (CancelScope::new(), Gate::new());
            let call = workers.run_sync(pass_and_ask, gate.path()).kill_after(LONG);
            let call = scope.run(call.kill_on_cancel(false)); // which comes last
            let cancel = async {
                gate.begun().await;
                scope.cancel();
                smol::future::yield_now().await; // lets the call see it
                gate.open();
            };
            let (outcome, ()) = within(smol::future::zip(call, cancel)).await;
            assert!(!outcome.unwrap().unwrap());
        }
    }));
}

fn every_thread_of_a_job_sees_the_request() {
    fn in_a_thread(gate: PathBuf) -> Result<(), CancelledError> {
        std::thread::spawn(|| polite(gate)).join().unwrap()
    }
    test(async {
        for jobs in 0..3 {
            with_worker_after(jobs, |workers| async move {
                let gate = Gate::new();
                let call = workers.run_sync(in_a_thread, gate.path()).kill_after(LONG);
                let (outcome, _) = cancelled_at(&gate, call).await;
                assert_eq!(outcome.unwrap().unwrap(), Err(CancelledError));
            })
            .await;
        }
    });
}

/// The time limit and `kill_all` end a job that has been asked as they end any other.
fn a_job_that_was_asked_can_be_killed_for_other_reasons_too() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let gate = Gate::new();
        let call = workers.run_sync(deaf, gate.path()).kill_after(LONG);
        let call = call.time_limit(Duration::from_millis(50));
        let (outcome, _) = cancelled_at(&gate, call).await;
        let error = outcome.unwrap().unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::TimedOut);

        let gate = Gate::new();
        let call = workers.run_sync(deaf, gate.path()).kill_after(LONG);
        let kill = async {
            gate.begun().await;
            smol::future::yield_now().await; // the call has been cancelled
            workers.kill_all();
        };
        let both = smol::future::zip(cancelled_at(&gate, call), kill);
        let ((outcome, _), ()) = within(both).await;
        assert_eq!(
            outcome.unwrap().unwrap_err().kind(),
            WorkerErrorKind::Broken
        );
    }));
}

fn a_worker_that_is_starting_for_a_cancelled_call_is_killed_at_once() {
    fn stay(_: &()) {
        loop {
            std::thread::park();
        }
    }
    let config = WorkerConfig::new().init_with((), stay);
    test(with_workers(config, |workers| async move {
        let scope = CancelScope::new();
        let call = scope.run(workers.run_sync(pid, ()).kill_after(LONG));
        let cancel = async {
            while common::workers().is_empty() {
                smol::future::yield_now().await;
            }
            scope.cancel();
        };
        let (outcome, ()) = within(smol::future::zip(call, cancel)).await;
        assert!(outcome.is_none());
        assert_eq!(workers.statistics().jobs_cancelled, 1);
    }));
}

fn a_dropped_call_asks_its_job_in_the_background() {
    test(async {
        for jobs in 0..3 {
            with_worker_after(jobs, |workers| async move {
                let (gate, limiter) = (Gate::new(), CapacityLimiter::new(1));
                let call = workers.run_sync(polite, gate.path()).limiter(&limiter);
                let call = smol::spawn(call.kill_after(LONG).into_future());
                let job = gate.begun().await;
                call.cancel().await;
                drop(within(limiter.acquire()).await);
                assert_eq!(workers.run_sync(pid, ()).await.unwrap(), job);
            })
            .await;
        }
    });
}

fn a_dropped_call_kills_a_deaf_job_in_the_background() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (gate, limiter) = (Gate::new(), CapacityLimiter::new(1));
        let call = workers.run_sync(deaf, gate.path()).limiter(&limiter);
        let call = smol::spawn(call.kill_after(Duration::from_millis(20)).into_future());
        let job = gate.begun().await;
        call.cancel().await;
        drop(within(limiter.acquire()).await);
        assert!(!exists(job));
        assert_eq!(workers.statistics().killed, 1);
    }));
}

fn a_worker_may_retire_after_a_job_that_has_heeded() {
    fn always(_: &WorkerStatus) -> bool {
        true
    }
    let config = WorkerConfig::new().retire(always);
    test(with_workers(config, |workers| async move {
        let gate = Gate::new();
        let call = workers.run_sync(polite, gate.path()).kill_after(LONG);
        let (outcome, job) = cancelled_at(&gate, call).await;
        assert_eq!(outcome.unwrap().unwrap(), Err(CancelledError));
        assert_ne!(workers.run_sync(pid, ()).await.unwrap(), job);
    }));
}

/// The job of a worker passes the request on to a job of its own worker.
fn a_request_can_be_passed_on_to_a_worker_of_the_worker() {
    async fn pass_on(gate: PathBuf) -> Result<(), CancelledError> {
        let scope = CancelScope::new();
        let ask = async {
            while !cancelled() {
                seedbed::sleep(Duration::from_millis(1)).await;
            }
            scope.cancel();
        };
        let call = scope.run(run_sync(polite, gate).kill_after(LONG));
        let (outcome, ()) = smol::future::zip(call, ask).await;
        outcome.unwrap().unwrap()
    }
    fn outer(gate: PathBuf) -> Result<(), CancelledError> {
        seedbed::run(pass_on(gate))
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let gate = Gate::new();
        let call = workers.run_sync(outer, gate.path()).kill_after(LONG);
        let (outcome, _) = cancelled_at(&gate, call).await;
        assert_eq!(outcome.unwrap().unwrap(), Err(CancelledError));
    }));
}

fn a_call_with_patience_may_be_cancelled_or_dropped_at_every_pending_point() {
    test(within(async {
        for (drops, warm) in [(false, false), (false, true), (true, false), (true, true)] {
            for k in 1.. {
                let limiter = CapacityLimiter::new(1);
                let stopped = with_workers(WorkerConfig::new(), async |workers: WorkerContext| {
                    if warm {
                        workers.run_sync(pid, ()).await.unwrap();
                        workers.run_sync(pid, ()).await.unwrap();
                    }
                    // Too large to be sent or received at once.
                    let call = workers.run_sync(|text: String| text, "x".repeat(1 << 20));
                    let call = call.kill_after(LONG).limiter(&limiter);
                    let stopped = stopped_when_pending(call, k, drops).await;
                    assert!(!workers.run_sync(is_asked, ()).await.unwrap());
                    stopped
                })
                .await;
                drop(limiter.acquire().await); // comes back, if not at once
                if !stopped {
                    break;
                }
            }
        }
    }));
}

/// Awaits a call in a task of smol's until its job has begun.
async fn begun<A, R>(call: seedbed::worker::RunSync<A, R>, gate: &Gate) -> smol::Task<CallResult<R>>
where
    A: Send + 'static,
    R: Send + 'static,
{
    let call = smol::spawn(call.into_future());
    within(gate.begun()).await;
    call
}

type CallResult<R> = Result<R, seedbed::WorkerError>;

fn a_shutdown_within_a_limit_asks_all_jobs_and_is_graceful_if_they_heed() {
    test(async {
        for jobs in 0..3 {
            with_worker_after(jobs, |workers| async move {
                let gates = [Gate::new(), Gate::new(), Gate::new()];
                let call = |gate: &Gate| workers.run_sync(polite, gate.path());
                let limiter = CapacityLimiter::new(3);
                let first = begun(call(&gates[0]).limiter(&limiter), &gates[0]).await;
                let killable = call(&gates[1]).kill_on_cancel(true).limiter(&limiter);
                let killable = begun(killable, &gates[1]).await;
                let dropped = begun(call(&gates[2]).limiter(&limiter), &gates[2]).await;
                dropped.cancel().await; // its job runs on in the background
                within(workers.shutdown_within(LONG)).await.unwrap();
                for call in [first, killable] {
                    assert_eq!(call.await.unwrap(), Err(CancelledError));
                }
                assert_eq!(limiter.borrowed(), 0);
                let late = workers.run_sync(pid, ()).await.unwrap_err();
                assert_eq!(late.kind(), WorkerErrorKind::Closed);
            })
            .await;
        }
    });
}

fn a_shutdown_within_a_limit_kills_jobs_that_do_not_heed_and_counts_them() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let gates = [Gate::new(), Gate::new(), Gate::new()];
        let limiter = CapacityLimiter::new(3);
        let heeds = workers.run_sync(polite, gates[0].path()).limiter(&limiter);
        let heeds = begun(heeds, &gates[0]).await;
        let mut deaf_calls = Vec::new();
        for gate in &gates[1..] {
            let call = workers.run_sync(deaf, gate.path()).limiter(&limiter);
            deaf_calls.push(begun(call, gate).await);
        }
        let limit = Duration::from_millis(200);
        let error = within(workers.shutdown_within(limit)).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Shutdown);
        assert!(error.to_string().contains("2 jobs did not end"), "{error}");
        assert_eq!(heeds.await.unwrap(), Err(CancelledError));
        for call in deaf_calls {
            let error = call.await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken);
            assert!(error.to_string().contains("shutdown_within"), "{error}");
        }
        assert!(common::workers().is_empty());
        workers.shutdown_within(limit).await.unwrap(); // has no further effect
    }));
}

fn a_shutdown_without_a_limit_asks_no_job() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let gate = Gate::new();
        let call = begun(workers.run_sync(pass_and_ask, gate.path()), &gate).await;
        let open = async {
            smol::future::yield_now().await;
            gate.open();
        };
        let (outcome, ()) = within(smol::future::zip(workers.shutdown(), open)).await;
        outcome.unwrap();
        assert!(!call.await.unwrap());
    }));
}

fn a_shutdown_within_a_limit_asks_a_job_whose_worker_is_starting() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let gate = Gate::new();
        let mut call = pin!(workers.run_sync(polite, gate.path()).into_future());
        assert!(smol::future::poll_once(call.as_mut()).await.is_none());
        let both = smol::future::zip(call, workers.shutdown_within(LONG));
        let (outcome, ended) = within(both).await;
        assert_eq!(outcome.unwrap(), Err(CancelledError));
        ended.unwrap();
    }));
}

fn a_shutdown_within_a_limit_may_be_dropped_at_every_pending_point() {
    test(within(async {
        let mut k = 1;
        loop {
            let stopped = with_workers(WorkerConfig::new(), async |workers: WorkerContext| {
                let gate = Gate::new();
                let call = begun(workers.run_sync(polite, gate.path()), &gate).await;
                let stopped = stopped_when_pending(workers.shutdown_within(LONG), k, true).await;
                assert_eq!(
                    call.await.unwrap(),
                    Err(CancelledError),
                    "it has been asked"
                );
                stopped
            })
            .await;
            // Another thread polls the call. If this thread is not scheduled for a while, the call
            // and its worker may end within the first poll of the shutdown, which is then repeated.
            if stopped {
                k += 1;
            } else if k > 1 {
                break;
            }
        }
    }));
}

fn a_process_that_runs_no_job_is_not_asked() {
    assert!(!cancelled());
    assert_eq!(check_cancelled(), Ok(()));
}

fn a_cancelled_caller_with_patience_touches_no_worker() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let call = workers.run_sync(pid, ()).kill_after(LONG);
        let scope = CancelScope::new();
        scope.cancel();
        assert!(scope.run(call).await.is_none());
        let none = CapacityLimiter::new(0);
        let call = workers.run_sync(pid, ()).limiter(&none).kill_after(LONG);
        assert!(
            move_on_after(Duration::from_millis(5), call)
                .await
                .is_none()
        );
        assert!(common::workers().is_empty());
    }));
}

suite! {
    a_shutdown_within_a_limit_asks_all_jobs_and_is_graceful_if_they_heed,
    a_shutdown_within_a_limit_kills_jobs_that_do_not_heed_and_counts_them,
    a_shutdown_without_a_limit_asks_no_job,
    a_shutdown_within_a_limit_asks_a_job_whose_worker_is_starting,
    a_shutdown_within_a_limit_may_be_dropped_at_every_pending_point,
    a_job_that_heeds_returns_its_result_and_its_worker_serves_the_next_call,
    a_job_that_heeds_drops_what_it_owns,
    a_job_that_does_not_heed_is_killed_when_the_patience_is_over,
    a_job_that_ends_without_asking_returns_its_result,
    a_request_that_comes_too_late_does_not_concern_the_next_job,
    a_job_is_not_asked_if_its_call_has_no_patience,
    every_thread_of_a_job_sees_the_request,
    a_job_that_was_asked_can_be_killed_for_other_reasons_too,
    a_worker_that_is_starting_for_a_cancelled_call_is_killed_at_once,
    a_dropped_call_asks_its_job_in_the_background,
    a_dropped_call_kills_a_deaf_job_in_the_background,
    a_worker_may_retire_after_a_job_that_has_heeded,
    a_request_can_be_passed_on_to_a_worker_of_the_worker,
    a_call_with_patience_may_be_cancelled_or_dropped_at_every_pending_point,
    a_process_that_runs_no_job_is_not_asked,
    a_cancelled_caller_with_patience_touches_no_worker,
}
