//! Workers that are killed, stopped or crash in each phase: before the hello, between jobs, and
//! while they receive, run, send, and retire. Each case ends in a specific error or in a result,
//! and a concurrent call is not affected.
//!
//! A stopped worker is no error: its call goes on when the worker does, a killable call kills the
//! worker when it is cancelled, and shutdown kills it after the grace period.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use crate::common;
use crate::common::stage::{
    self, Bystander, Stage, announce, halt, helper, kill, signal, staged, stop,
};
use crate::common::{children, is_alive, pid, test, with_workers};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use seedbed::worker::{WorkerErrorKind, WorkerStatus};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The phase in which a job halts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum When {
    Decoding,
    Running,
    Encoding,
}

const PHASES_OF_A_JOB: [When; 3] = [When::Decoding, When::Running, When::Encoding];

/// The behaviour of the worker in that phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    /// Announces itself, and waits until it is released.
    Halt,
    Abort,
}

type Plan = (When, What, PathBuf);

fn act(plan: &Plan, now: When) {
    match plan {
        (when, _, _) if *when != now => {}
        (_, What::Halt, stage) => halt(stage),
        (_, What::Abort, _) => std::process::abort(),
    }
}

/// An argument that is decoded as planned.
struct Argument(Plan);

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let plan = Plan::deserialize(from)?;
        act(&plan, When::Decoding);
        Ok(Argument(plan))
    }
}

/// A result that is encoded as planned.
#[derive(Deserialize)]
struct Outcome(Plan, u32);

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        act(&self.0, When::Encoding);
        (&self.0, self.1).serialize(to)
    }
}

/// A job that follows the plan, and returns the process id of its worker.
fn as_planned(Argument(plan): Argument) -> Outcome {
    act(&plan, When::Running);
    Outcome(plan, std::process::id())
}

type Call<T> = Pin<Box<dyn Future<Output = Result<T, seedbed::WorkerError>>>>;

fn planned(workers: &WorkerContext, plan: Plan) -> Call<u32> {
    let call = workers
        .run_sync(as_planned, Argument(plan))
        .limiter(&CapacityLimiter::unlimited());
    let call = call.into_future();
    Box::pin(async move { call.await.map(|Outcome(_, pid)| pid) })
}

/// Polls a call until its job has arrived at the stage.
async fn reached<T>(stage: &Stage, call: &mut Call<T>) -> u32 {
    let ended = async {
        let ended = call.await.map(|_| ());
        panic!("the call ended: {ended:?}")
    };
    smol::future::or(stage.reached(), ended).await
}

fn a_worker_killed_in_any_phase_of_a_job_is_broken() {
    staged(WorkerConfig::new(), |workers| async move {
        let bystander = Bystander::of(&workers).await;
        for when in PHASES_OF_A_JOB {
            let stage = Stage::new();
            let mut call = planned(&workers, (when, What::Halt, stage.path()));
            let victim = reached(&stage, &mut call).await;
            kill(victim);
            let error = call.await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken, "{when:?}: {error}");
            let exit = error.exit().unwrap();
            assert_eq!((exit.pid(), exit.signal_name()), (victim, Some("SIGKILL")));
        }
        bystander.ends_unharmed().await;
        workers.run_sync(pid, ()).await.unwrap();
    });
}

fn a_worker_that_crashes_in_any_phase_of_a_job_is_broken() {
    let config = WorkerConfig::new().capture_stderr(true);
    staged(config, |workers| async move {
        let bystander = Bystander::of(&workers).await;
        for when in PHASES_OF_A_JOB {
            let error = planned(&workers, (when, What::Abort, PathBuf::new())).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken, "{when:?}: {error}");
            assert_eq!(error.exit().unwrap().signal_name(), Some("SIGABRT"));
        }
        bystander.ends_unharmed().await;
        workers.run_sync(pid, ()).await.unwrap();
    });
}

fn a_call_to_a_worker_stopped_in_any_phase_of_a_job_goes_on_when_it_does() {
    staged(WorkerConfig::new(), |workers| async move {
        let bystander = Bystander::of(&workers).await;
        for when in PHASES_OF_A_JOB {
            let mut stage = Stage::new();
            let mut call = planned(&workers, (when, What::Halt, stage.path()));
            let worker = reached(&stage, &mut call).await;
            stop(worker);
            stage.release();
            assert!(smol::future::poll_once(&mut call).await.is_none());
            signal(worker, Signal::CONT);
            assert_eq!(call.await.unwrap(), worker);
        }
        bystander.ends_unharmed().await;
    });
}

fn a_worker_stopped_in_any_phase_of_a_job_can_be_killed_by_its_call() {
    staged(WorkerConfig::new(), |workers| async move {
        let bystander = Bystander::of(&workers).await;
        for when in PHASES_OF_A_JOB {
            let (stage, scope) = (Stage::new(), CancelScope::new());
            let call = workers
                .run_sync(as_planned, Argument((when, What::Halt, stage.path())))
                .limiter(&CapacityLimiter::unlimited())
                .kill_on_cancel(true);
            let cancel = async {
                let worker = stage.reached().await;
                stop(worker);
                scope.cancel();
                worker
            };
            let (outcome, worker) = smol::future::zip(scope.run(call), cancel).await;
            assert!(outcome.is_none());
            assert!(!common::workers().contains(&worker), "it has been reaped");
        }
        bystander.ends_unharmed().await;
        workers.run_sync(pid, ()).await.unwrap();
    });
}

const MUCH: usize = 16 << 20;

/// A configuration whose arguments go through the connection: workers with few descriptors get no
/// shared memory.
fn by_connection() -> WorkerConfig {
    WorkerConfig::new().open_file_limit(64)
}

/// Begins a call to a stopped worker, with an argument that does not fit into the connection.
async fn half_sent(workers: &WorkerContext) -> (u32, Call<(usize, u32)>) {
    fn weigh(bytes: String) -> (usize, u32) {
        (bytes.len(), std::process::id())
    }
    let worker = workers.run_sync(pid, ()).await.unwrap();
    stop(worker);
    let call = workers.run_sync(weigh, "x".repeat(MUCH));
    let mut call: Call<(usize, u32)> = Box::pin(call.into_future());
    assert!(smol::future::poll_once(&mut call).await.is_none());
    (worker, call)
}

fn a_worker_killed_while_it_receives_is_replaced_or_broken_and_the_job_runs_once_at_most() {
    staged(by_connection(), |workers| async move {
        let (victim, call) = half_sent(&workers).await;
        kill(victim);
        match call.await {
            Ok((length, other)) => {
                assert_eq!(length, MUCH);
                assert_ne!(other, victim);
            }
            // The argument did not go through the connection.
            Err(error) => assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}"),
        }
        workers.run_sync(pid, ()).await.unwrap();
    });
}

fn a_call_to_a_worker_stopped_while_it_receives_goes_on_when_it_does() {
    staged(by_connection(), |workers| async move {
        let (worker, call) = half_sent(&workers).await;
        signal(worker, Signal::CONT);
        assert_eq!(call.await.unwrap(), (MUCH, worker));
    });
}

/// Makes a worker return more than its connection holds, and waits until the worker blocks because
/// nothing reads it.
async fn half_received(workers: &WorkerContext, kill: bool) -> (u32, Call<usize>) {
    fn produce(stage: PathBuf) -> String {
        // Without a descriptor, the worker cannot send shared memory in place of the bytes.
        let nothing = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Fsize, nothing).unwrap();
        announce(&stage);
        "x".repeat(MUCH)
    }
    let stage = Stage::new();
    let call = workers.run_sync(produce, stage.path()).kill_on_cancel(kill);
    let call = call.into_future();
    let mut call: Call<usize> = Box::pin(async move { call.await.map(|bytes| bytes.len()) });
    let worker = reached(&stage, &mut call).await;
    while stage::state_of(worker) != Some('S') {
        std::thread::yield_now(); // blocks the executor's thread on purpose
    }
    (worker, call)
}

fn a_worker_killed_while_it_sends_is_broken_and_half_a_result_is_discarded() {
    staged(WorkerConfig::new(), |workers| async move {
        let (victim, call) = half_received(&workers, false).await;
        kill(victim);
        stage::until_ended(victim);
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert_eq!(error.exit().unwrap().pid(), victim);
        workers.run_sync(pid, ()).await.unwrap();
    });
}

fn a_call_to_a_worker_stopped_while_it_sends_goes_on_when_it_does() {
    staged(WorkerConfig::new(), |workers| async move {
        let (worker, mut call) = half_received(&workers, false).await;
        stop(worker);
        assert!(smol::future::poll_once(&mut call).await.is_none());
        signal(worker, Signal::CONT);
        assert_eq!(call.await.unwrap(), MUCH);
    });
}

fn a_worker_stopped_while_it_sends_or_receives_can_be_killed_by_its_call() {
    staged(by_connection(), |workers| async move {
        let (worker, call) = half_received(&workers, true).await;
        stop(worker);
        drop(call);
        common::wait_until_gone(worker);
        let worker = workers.run_sync(pid, ()).await.unwrap();
        stop(worker);
        let scope = CancelScope::new();
        let call = workers
            .run_sync(|bytes: String| bytes.len(), "x".repeat(MUCH))
            .kill_on_cancel(true);
        let mut call = Box::pin(scope.run(call));
        assert!(smol::future::poll_once(&mut call).await.is_none());
        scope.cancel();
        assert!(call.await.is_none());
        assert!(!common::workers().contains(&worker), "it has been reaped");
        workers.run_sync(pid, ()).await.unwrap();
    });
}

/// Stops the idle worker of a context, gives it a killable call, and cancels the call.
async fn cancel_a_call_of_a_stopped_worker(workers: &WorkerContext, worker: u32) {
    stop(worker);
    let scope = CancelScope::new();
    let mut call = Box::pin(scope.run(workers.run_sync(pid, ()).kill_on_cancel(true)));
    assert!(smol::future::poll_once(&mut call).await.is_none());
    scope.cancel();
    assert!(call.await.is_none());
    assert!(!common::workers().contains(&worker), "it has been reaped");
}

fn a_worker_that_is_stopped_between_jobs_delays_its_call_or_is_killed() {
    staged(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        stop(worker);
        assert_eq!(workers.statistics().idle_workers, 1, "it has not ended");
        let mut call: Call<u32> = Box::pin(workers.run_sync(pid, ()).into_future());
        assert!(smol::future::poll_once(&mut call).await.is_none());
        signal(worker, Signal::CONT);
        assert_eq!(call.await.unwrap(), worker);
        cancel_a_call_of_a_stopped_worker(&workers, worker).await;
        assert_ne!(workers.run_sync(pid, ()).await.unwrap(), worker);
    });
}

fn shutdown_kills_stopped_workers_after_the_grace_period() {
    let config = WorkerConfig::new().grace_period(Duration::from_millis(50));
    staged(config, |workers| async move {
        stop(workers.run_sync(pid, ()).await.unwrap());
        let error = workers.shutdown().await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Shutdown);
        let text = error.to_string();
        assert!(text.contains("0 non-zero exits and 1 killed"), "{text}");
    });
}

/// A thread that the job has left crashes the worker while no call waits for it.
fn a_worker_that_crashes_between_jobs_is_replaced_and_reported_by_shutdown() {
    fn leave_a_bomb(stage: PathBuf) -> u32 {
        std::thread::spawn(move || {
            halt(&stage);
            std::process::abort()
        });
        std::process::id()
    }
    let config = WorkerConfig::new().capture_stderr(true);
    staged(config, |workers| async move {
        for before_the_end in [false, true] {
            let mut stage = Stage::new();
            let first = workers.run_sync(leave_a_bomb, stage.path()).await.unwrap();
            assert_eq!(stage.reached().await, first);
            stage.release();
            stage::until_ended(first);
            if before_the_end {
                let error = workers.shutdown().await.unwrap_err();
                assert_eq!(error.kind(), WorkerErrorKind::Shutdown);
                let text = error.to_string();
                assert!(text.contains("1 non-zero exits and 0 killed"), "{text}");
            } else {
                assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
            }
        }
    });
}

/// Runs `body` with workers that halt in their retire closure after each job.
fn with_workers_that_halt_in_retire<Fut>(body: impl FnOnce(WorkerContext, Stage) -> Fut)
where
    Fut: Future<Output = ()>,
{
    #[allow(clippy::ptr_arg)] // its data is a `PathBuf`, so this is what it gets
    fn stay(stage: &PathBuf, _: &WorkerStatus) -> bool {
        halt(stage);
        false
    }
    test(stage::within(async {
        let stage = Stage::new();
        let config = WorkerConfig::new().retire_with(stage.path(), stay);
        with_workers(config, |workers| body(workers, stage)).await;
    }));
}

fn a_worker_killed_while_it_retires_is_replaced() {
    with_workers_that_halt_in_retire(|workers, stage| async move {
        for _ in 0..3 {
            let first = workers.run_sync(pid, ()).await.unwrap();
            assert_eq!(stage.reached().await, first, "after its job was answered");
            kill(first);
            stage::until_ended(first);
        }
    });
}

/// The worker has not read the job. This used to be an error.
fn a_job_given_to_a_worker_that_is_killed_while_it_retires_is_run_by_another() {
    with_workers_that_halt_in_retire(|workers, mut stage| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        assert_eq!(stage.reached().await, first);
        let mut call: Call<u32> = Box::pin(workers.run_sync(pid, ()).into_future());
        assert!(smol::future::poll_once(&mut call).await.is_none());
        kill(first);
        assert_ne!(call.await.unwrap(), first);
        stage.release();
        workers.run_sync(pid, ()).await.unwrap();
    });
}

fn a_worker_that_crashes_while_it_retires_does_not_fail_its_job() {
    let config = WorkerConfig::new()
        .capture_stderr(true)
        .retire(|_: &WorkerStatus| std::process::abort());
    staged(config, |workers| async move {
        for _ in 0..3 {
            let first = workers.run_sync(pid, ()).await.unwrap();
            stage::until_ended(first);
        }
    });
}

fn a_worker_that_is_stopped_while_it_retires_delays_its_call_or_is_killed() {
    with_workers_that_halt_in_retire(|workers, mut stage| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        assert_eq!(stage.reached().await, first);
        stop(first);
        let mut call: Call<u32> = Box::pin(workers.run_sync(pid, ()).into_future());
        assert!(smol::future::poll_once(&mut call).await.is_none());
        stage.release();
        signal(first, Signal::CONT);
        assert_eq!(call.await.unwrap(), first);
        cancel_a_call_of_a_stopped_worker(&workers, first).await;
    });
}

/// A worker that has closed its connection and does not exit.
fn a_worker_that_closes_its_connection_and_stops_is_killed() {
    fn close_and_stop(_: ()) {
        for fd in 0..4096 {
            // SAFETY: unsound on purpose, because the descriptors have owners. The test is what
            // such a job brings about.
            unsafe { libc::close(fd) };
        }
        rustix::process::kill_process(rustix::process::getpid(), Signal::STOP).unwrap();
        loop {
            std::thread::park(); // the signal may stop another thread first
        }
    }
    staged(WorkerConfig::new(), |workers| async move {
        let error = workers.run_sync(close_and_stop, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert_eq!(error.exit().unwrap().signal_name(), Some("SIGKILL"));
        workers.run_sync(pid, ()).await.unwrap();
    });
}

const MODULE: &str = "faults";

fn a_worker_that_ends_before_the_hello_is_an_error_that_names_the_signal() {
    let Some(way) = stage::part() else {
        let name = "a_worker_that_ends_before_the_hello_is_an_error_that_names_the_signal";
        for way in ["killed", "aborted"] {
            let mut helper = helper(MODULE, name, way);
            helper.env(stage::BEFORE_THE_HOOK, way);
            stage::succeeds(helper);
        }
        return;
    };
    let signal = match way.as_str() {
        "killed" => "SIGKILL",
        _ => "SIGABRT",
    };
    // `test` would start a worker first.
    stage::before_the_hook();
    seedbed::init();
    smol::block_on(stage::within(with_workers(
        WorkerConfig::new(),
        |workers| async move {
            for _ in 0..3 {
                let error = workers.run_sync(pid, ()).await.unwrap_err();
                assert_eq!(error.kind(), WorkerErrorKind::Start, "{error}");
                assert_eq!(error.exit().unwrap().signal_name(), Some(signal));
                assert_eq!(children(), []);
            }
        },
    )));
}

/// A unit test of `worker::spawn::start` covers the time limit of a call that may not kill its
/// worker.
fn a_worker_stopped_before_the_hello_can_be_killed_by_its_call_and_by_shutdown() {
    if stage::part().is_none() {
        let name = "a_worker_stopped_before_the_hello_can_be_killed_by_its_call_and_by_shutdown";
        let mut helper = helper(MODULE, name, "caller");
        helper.env(stage::BEFORE_THE_HOOK, "stopped");
        stage::succeeds(helper);
        return;
    }
    stage::before_the_hook();
    seedbed::init();
    smol::block_on(stage::within(async {
        let stopped = with_workers(WorkerConfig::new(), |workers| async move {
            let scope = CancelScope::new();
            let mut call = Box::pin(scope.run(workers.run_sync(pid, ()).kill_on_cancel(true)));
            let stopped = loop {
                assert!(smol::future::poll_once(&mut call).await.is_none());
                let children = children();
                let stopped = children
                    .into_iter()
                    .find(|&pid| stage::state_of(pid) == Some('T'));
                if let Some(stopped) = stopped {
                    break stopped;
                }
                smol::future::yield_now().await;
            };
            scope.cancel();
            assert!(call.await.is_none());
            stopped
        })
        .await;
        assert!(!is_alive(stopped));
        assert_eq!(children(), []);
    }));
}

suite! {
    a_worker_killed_in_any_phase_of_a_job_is_broken,
    a_worker_that_crashes_in_any_phase_of_a_job_is_broken,
    a_call_to_a_worker_stopped_in_any_phase_of_a_job_goes_on_when_it_does,
    a_worker_stopped_in_any_phase_of_a_job_can_be_killed_by_its_call,
    a_worker_killed_while_it_receives_is_replaced_or_broken_and_the_job_runs_once_at_most,
    a_call_to_a_worker_stopped_while_it_receives_goes_on_when_it_does,
    a_worker_killed_while_it_sends_is_broken_and_half_a_result_is_discarded,
    a_call_to_a_worker_stopped_while_it_sends_goes_on_when_it_does,
    a_worker_stopped_while_it_sends_or_receives_can_be_killed_by_its_call,
    a_worker_that_is_stopped_between_jobs_delays_its_call_or_is_killed,
    shutdown_kills_stopped_workers_after_the_grace_period,
    a_worker_that_crashes_between_jobs_is_replaced_and_reported_by_shutdown,
    a_worker_killed_while_it_retires_is_replaced,
    a_job_given_to_a_worker_that_is_killed_while_it_retires_is_run_by_another,
    a_worker_that_crashes_while_it_retires_does_not_fail_its_job,
    a_worker_that_is_stopped_while_it_retires_delays_its_call_or_is_killed,
    a_worker_that_closes_its_connection_and_stops_is_killed,
    a_worker_that_ends_before_the_hello_is_an_error_that_names_the_signal,
    a_worker_stopped_before_the_hello_can_be_killed_by_its_call_and_by_shutdown,
}
