//! The statistics of a context, compared with a slow model and case by case.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::common::stage::kill;
use crate::common::{
    end_default_workers, endless, pid, test, until_empty, wait_until_gone, with_workers,
    with_workers_that_stay,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use seedbed::worker::{
    WorkerErrorKind, WorkerStatistics, WorkerStatus, default_context_statistics,
};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext, run_sync};
use serde::{Deserialize, Serialize, Serializer};

fn crash(_: ()) {
    std::process::exit(3)
}

fn fail(_: ()) {
    panic!("as asked")
}

#[derive(Deserialize)]
struct Unspeakable;

impl Serialize for Unspeakable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("unspeakable"))
    }
}

fn hear(_: Unspeakable) {}

/// A step of the model test.
#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    Panic,
    Crash,
    /// Runs a job after which its worker retires.
    Retire,
    /// Runs two calls at once, so that there are several workers.
    Two,
    /// Kills an idle worker from outside.
    Kill(usize),
    /// Cancels a killable call that has been polled once.
    Cancel,
    /// Drops a call that has been polled once.
    Drop,
    Unencodable,
    /// Makes a call whose worker, if a new one is needed, fails to start.
    FailStart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Call),
        1 => Just(Step::Panic),
        1 => Just(Step::Crash),
        2 => Just(Step::Retire),
        3 => Just(Step::Two),
        3 => (0..8usize).prop_map(Step::Kill),
        1 => Just(Step::Cancel),
        1 => Just(Step::Drop),
        1 => Just(Step::Unencodable),
        1 => Just(Step::FailStart),
    ];
    prop::collection::vec(step, 1..16)
}

/// The slow model: the workers, and the part of their state that a context can know.
#[derive(Default)]
struct Model {
    /// The longest idle worker comes first.
    idle: Vec<Idle>,
    counts: WorkerStatistics,
}

#[derive(Clone, Copy)]
struct Idle {
    pid: u32,
    /// How the worker ended, if the context has not noticed that.
    ended: Option<Ended>,
}

#[derive(Clone, Copy)]
enum Ended {
    Retired,
    Crashed,
}

impl Model {
    fn bury(&mut self, worker: Idle) {
        self.counts.living -= 1;
        match worker.ended {
            Some(Ended::Retired) => self.counts.retired += 1,
            Some(Ended::Crashed) => self.counts.crashed += 1,
            None => self.counts.dismissed += 1,
        }
    }

    fn prune(&mut self) {
        let is_gone = |worker: &mut Idle| worker.ended.is_some();
        for worker in self.idle.extract_if(.., is_gone).collect::<Vec<_>>() {
            self.bury(worker);
        }
    }

    /// Returns the worker that the next call uses, if it needs no new one.
    fn draw(&mut self) -> Option<u32> {
        while let Some(worker) = self.idle.pop() {
            match worker.ended {
                None => return Some(worker.pid),
                Some(_) => self.bury(worker),
            }
        }
        None
    }

    /// Models a call that takes an idle worker, or starts one.
    fn enter(&mut self) -> Option<u32> {
        self.prune();
        let drawn = self.draw();
        if drawn.is_none() {
            self.counts.started += 1;
            self.counts.living += 1;
        }
        drawn
    }

    /// Whether the worker came up during the only poll of its call. On a busy machine that poll may
    /// take long.
    fn came_up(&self, workers: &WorkerContext) -> bool {
        workers.statistics().started > self.counts.started
    }

    fn put(&mut self, pid: u32) {
        self.idle.push(Idle { pid, ended: None });
    }

    /// Returns the statistics that the context must report. Sums of bytes and times are not
    /// modelled.
    fn statistics(&mut self) -> WorkerStatistics {
        self.prune();
        self.counts.idle_workers = self.idle.len();
        self.counts
    }

    /// Models the shutdown of the context.
    fn close(&mut self) {
        while let Some(worker) = self.idle.pop() {
            self.bury(worker);
        }
    }
}

/// The folder through which a context's jobs and closures communicate.
struct Place(tempfile::TempDir);

impl Place {
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn no_start(&self) -> PathBuf {
        self.0.path().join("no start")
    }
}

static RETIRES: AtomicBool = AtomicBool::new(false);

fn config(place: &Place) -> WorkerConfig {
    #[allow(clippy::ptr_arg)] // its data is a `PathBuf`, so this is what it gets
    fn come_up(sign: &PathBuf) {
        assert!(!sign.exists(), "no start is wanted");
    }
    WorkerConfig::new()
        .no_idle_timeout()
        .init_with(place.no_start(), come_up)
        .retire(|_: &WorkerStatus| RETIRES.load(Relaxed))
}

fn retire(_: ()) -> u32 {
    RETIRES.store(true, Relaxed);
    std::process::id()
}

fn meet(folder: PathBuf) -> u32 {
    std::fs::write(folder.join(std::process::id().to_string()), "").unwrap();
    while std::fs::read_dir(&folder).unwrap().count() < 2 {
        std::thread::yield_now();
    }
    std::process::id()
}

async fn take(step: Step, workers: &WorkerContext, model: &mut Model, place: &Place) {
    match step {
        Step::Call => {
            let drawn = model.enter();
            let worker = workers.run_sync(pid, ()).await.unwrap();
            assert_eq!(worker, drawn.unwrap_or(worker));
            model.counts.jobs_done += 1;
            model.put(worker);
        }
        Step::Panic => {
            // Starts a worker whose process id is known.
            let drawn = model.enter();
            let worker = workers.run_sync(pid, ()).await.unwrap();
            assert_eq!(worker, drawn.unwrap_or(worker));
            model.counts.jobs_done += 1;
            model.put(worker);
            let error = workers.run_sync(fail, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Panicked);
            model.prune();
            model.counts.jobs_failed += 1;
        }
        Step::Crash => {
            model.enter();
            let error = workers.run_sync(crash, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken);
            model.counts.jobs_failed += 1;
            model.counts.living -= 1;
            model.counts.crashed += 1;
        }
        Step::Retire => {
            let drawn = model.enter();
            let worker = workers.run_sync(retire, ()).await.unwrap();
            assert_eq!(worker, drawn.unwrap_or(worker));
            wait_until_gone(worker);
            model.counts.jobs_done += 1;
            model.idle.push(Idle {
                pid: worker,
                ended: Some(Ended::Retired),
            });
        }
        Step::Two => {
            let folder = tempfile::tempdir_in(place.path()).unwrap();
            let limiter = CapacityLimiter::unlimited();
            let call = || {
                workers
                    .run_sync(meet, folder.path().to_owned())
                    .limiter(&limiter)
                    .into_future()
            };
            model.enter();
            model.enter();
            let (one, two) = smol::future::zip(call(), call()).await;
            let (one, two) = (one.unwrap(), two.unwrap());
            let last = workers.run_sync(pid, ()).await.unwrap();
            model.put(if last == one { two } else { one });
            model.put(last);
            model.prune();
            model.counts.jobs_done += 3;
        }
        Step::Kill(which) => {
            let count = model.idle.len().max(1);
            let Some(worker) = model.idle.get_mut(which % count) else {
                return;
            };
            if worker.ended.is_none() {
                kill(worker.pid);
                wait_until_gone(worker.pid);
                worker.ended = Some(Ended::Crashed);
            }
        }
        Step::Cancel => {
            model.prune();
            let scope = CancelScope::new();
            let call = scope.run(workers.run_sync(endless, ()).kill_on_cancel(true));
            let mut call = Box::pin(call);
            assert!(smol::future::poll_once(&mut call).await.is_none());
            assert_eq!(workers.statistics().running_workers, 1);
            scope.cancel();
            assert!(call.await.is_none());
            model.counts.jobs_cancelled += 1;
            match (model.draw(), model.came_up(workers)) {
                (Some(_), false) => {
                    model.counts.living -= 1;
                    model.counts.killed += 1;
                }
                (None, true) => {
                    model.counts.started += 1;
                    model.counts.killed += 1;
                }
                (None, false) => model.counts.failed_starts += 1,
                (Some(_), true) => panic!("there was one"),
            }
        }
        Step::Drop => {
            model.prune();
            let mut call = Box::pin(workers.run_sync(pid, ()).into_future());
            let answered = smol::future::poll_once(&mut call).await;
            drop(call);
            while workers.statistics().running_workers > 0 {
                smol::future::yield_now().await;
            }
            match (model.draw(), model.came_up(workers)) {
                // The job finished in the background, if not at once.
                (Some(worker), false) => {
                    model.counts.jobs_done += 1;
                    model.put(worker);
                }
                (None, true) => {
                    model.counts.started += 1;
                    model.counts.living += 1;
                    model.put(workers.run_sync(pid, ()).await.unwrap());
                    model.counts.jobs_done += 2;
                }
                (None, false) => {
                    assert!(answered.is_none());
                    model.counts.jobs_cancelled += 1;
                    model.counts.failed_starts += 1;
                }
                (Some(_), true) => panic!("there was one"),
            }
        }
        Step::Unencodable => {
            model.prune();
            let error = workers.run_sync(hear, Unspeakable).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::EncodeArgument);
            model.counts.jobs_failed += 1;
        }
        Step::FailStart => {
            std::fs::write(place.no_start(), "").unwrap();
            let outcome = workers.run_sync(pid, ()).await;
            std::fs::remove_file(place.no_start()).unwrap();
            model.prune();
            match model.draw() {
                Some(worker) => {
                    assert_eq!(outcome.unwrap(), worker);
                    model.counts.jobs_done += 1;
                    model.put(worker);
                }
                None => {
                    assert_eq!(outcome.unwrap_err().kind(), WorkerErrorKind::Init);
                    model.counts.jobs_failed += 1;
                    model.counts.failed_starts += 1;
                }
            }
        }
    }
}

/// Checks the invariants that hold while no call is in progress, and returns the part of the
/// statistics that is modelled.
fn modelled(mut statistics: WorkerStatistics) -> WorkerStatistics {
    let WorkerStatistics {
        retired,
        timed_out,
        dismissed,
        killed,
        crashed,
        living,
        ..
    } = statistics;
    let ended = retired + timed_out + dismissed + killed + crashed;
    assert_eq!(statistics.started, living + ended);
    assert_eq!(living, statistics.idle_workers as u64);
    assert_eq!(statistics.running_workers, 0);
    statistics.bytes_sent = 0;
    statistics.bytes_received = 0;
    statistics
}

fn the_statistics_match_a_slow_model_after_each_step() {
    seedbed::init();
    let mut runner = TestRunner::new(Config {
        cases: 10,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    });
    let outcome = runner.run(&steps(), |steps| {
        let place = Place(tempfile::tempdir().unwrap());
        test(with_workers(config(&place), |workers| async move {
            let mut model = Model::default();
            for step in steps {
                take(step, &workers, &mut model, &place).await;
                let statistics = modelled(workers.statistics());
                assert_eq!(statistics, model.statistics(), "after {step:?}");
            }
            // The shutdown reports an error if a worker was killed from outside.
            let _ = workers.shutdown().await;
            model.close();
            assert_eq!(modelled(workers.statistics()), model.statistics());
        }));
        Ok(())
    });
    outcome.unwrap();
}

fn a_worker_that_was_idle_for_too_long_has_timed_out() {
    let config = WorkerConfig::new().idle_timeout(Duration::from_millis(1));
    test(with_workers(config, |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        until_empty(&workers).await;
        let statistics = workers.statistics();
        assert_eq!((statistics.timed_out, statistics.living), (1, 0));
    }));
}

/// A shutdown also tells workers to exit that are exiting already.
fn a_worker_that_exited_before_it_was_told_to_was_not_dismissed() {
    test(with_workers(
        WorkerConfig::new().single_use(),
        |workers| async move {
            wait_until_gone(workers.run_sync(pid, ()).await.unwrap());
            workers.shutdown().await.unwrap();
            let statistics = workers.statistics();
            assert_eq!((statistics.retired, statistics.dismissed), (1, 0));
        },
    ));
}

fn a_retire_closure_that_panics_is_a_crash() {
    let config = WorkerConfig::new().retire(|_: &WorkerStatus| panic!("no idea"));
    test(with_workers(config, |workers| async move {
        wait_until_gone(workers.run_sync(pid, ()).await.unwrap());
        assert_eq!(workers.statistics().living, 0);
        let error = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Retire);
        let statistics = workers.statistics();
        assert_eq!((statistics.crashed, statistics.retired), (1, 0));
        assert_eq!((statistics.jobs_done, statistics.jobs_failed), (1, 1));
    }));
}

fn workers_killed_by_a_shutdown_count_as_killed() {
    let config = with_workers_that_stay(WorkerConfig::new());
    let config = config.grace_period(Duration::from_millis(1));
    test(with_workers(config, |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        workers.shutdown().await.unwrap_err();
        let statistics = workers.statistics();
        assert_eq!((statistics.killed, statistics.dismissed), (1, 0));
    }));
}

fn a_worker_that_violates_the_protocol_counts_as_killed() {
    fn scribble(_: ()) {
        for fd in 3..4096 {
            // SAFETY: not kept to, as the descriptors have owners; writing to what is not ours is
            // the test.
            unsafe { libc::write(fd, [42u8; 64].as_ptr().cast(), 64) };
        }
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let error = workers.run_sync(scribble, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Protocol);
        let statistics = workers.statistics();
        assert_eq!((statistics.killed, statistics.crashed), (1, 0));
    }));
}

fn a_call_without_its_limiter_token_is_not_counted() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let cancelled = CancelScope::new();
        cancelled.cancel();
        assert!(cancelled.run(workers.run_sync(pid, ())).await.is_none());
        let none = CapacityLimiter::new(0);
        let mut waiting = Box::pin(workers.run_sync(pid, ()).limiter(&none).into_future());
        assert!(smol::future::poll_once(&mut waiting).await.is_none());
        drop(waiting);
        assert_eq!(workers.statistics(), WorkerStatistics::default());
    }));
}

fn calls_that_wait_for_their_limiter_are_counted_with_their_waits() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let one = CapacityLimiter::new(1);
        workers.run_sync(pid, ()).limiter(&one).await.unwrap();
        let statistics = workers.statistics();
        assert_eq!(statistics.queued, 0);
        assert_eq!(statistics.queue_wait_total, Duration::ZERO);
        for round in 1..=2 {
            let token = one.try_acquire();
            let mut call = Box::pin(workers.run_sync(pid, ()).limiter(&one).into_future());
            assert!(smol::future::poll_once(&mut call).await.is_none());
            assert_eq!(workers.statistics().running_workers, 0);
            drop(token);
            call.await.unwrap();
            let statistics = workers.statistics();
            assert_eq!(statistics.queued, round);
            assert!(statistics.queue_wait_max > Duration::ZERO);
            assert!(statistics.queue_wait_max <= statistics.queue_wait_total);
        }
    }));
}

fn a_call_that_is_cancelled_right_after_its_wait_is_counted() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let one = CapacityLimiter::new(1);
        let token = one.try_acquire();
        let scope = CancelScope::new();
        let call = workers.run_sync(pid, ()).limiter(&one).into_future();
        let cancel = async {
            smol::future::yield_now().await;
            drop(token); // in the same poll, the call gets the token and sees the cancellation
            scope.cancel();
        };
        let ended = scope.run(smol::future::zip(cancel, call)).await;
        assert!(ended.is_none());
        let statistics = workers.statistics();
        assert_eq!((statistics.queued, statistics.jobs_cancelled), (1, 1));
        assert_eq!(one.borrowed(), 0);
    }));
}

fn the_bytes_of_arguments_and_results_are_counted() {
    fn shorten(text: String) -> String {
        text[..100].to_owned()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let call = || workers.run_sync(shorten, "x".repeat(10_000));
        call().await.unwrap();
        let first = workers.statistics();
        // The length of the text, and the text.
        assert!((10_001..10_010).contains(&first.bytes_sent), "{first:?}");
        assert!((101..110).contains(&first.bytes_received), "{first:?}");
        call().await.unwrap();
        let second = workers.statistics();
        assert_eq!(second.bytes_sent, 2 * first.bytes_sent);
        assert_eq!(second.bytes_received, 2 * first.bytes_received);
        // Large values do not travel in their frames.
        let large = workers.run_sync(|text: String| text, "x".repeat(1_000_000));
        large.await.unwrap();
        let third = workers.statistics();
        let (sent, received) = (
            third.bytes_sent - second.bytes_sent,
            third.bytes_received - second.bytes_received,
        );
        assert!((1_000_001..1_000_010).contains(&sent), "{sent}");
        assert!((1_000_001..1_000_010).contains(&received), "{received}");
    }));
}

fn a_new_default_configuration_begins_to_count_anew() {
    test(async {
        run_sync(pid, ()).await.unwrap();
        assert_eq!(default_context_statistics().started, 1);
        end_default_workers();
        assert_eq!(default_context_statistics(), WorkerStatistics::default());
    });
}

suite! {
    the_statistics_match_a_slow_model_after_each_step,
    a_worker_that_was_idle_for_too_long_has_timed_out,
    a_worker_that_exited_before_it_was_told_to_was_not_dismissed,
    a_retire_closure_that_panics_is_a_crash,
    workers_killed_by_a_shutdown_count_as_killed,
    a_worker_that_violates_the_protocol_counts_as_killed,
    a_call_without_its_limiter_token_is_not_counted,
    calls_that_wait_for_their_limiter_are_counted_with_their_waits,
    a_call_that_is_cancelled_right_after_its_wait_is_counted,
    the_bytes_of_arguments_and_results_are_counted,
    a_new_default_configuration_begins_to_count_anew,
}
