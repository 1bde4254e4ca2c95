//! Async jobs: `run_async` and `open_loops`.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common;
use crate::common::gate::stopped_when_pending;
use crate::common::stage::within;
use crate::common::{pid, test, with_workers};
use seedbed::cancel::{current_cancel_reason, current_effective_deadline, move_on_at};
use seedbed::time::{current_time, sleep_forever};
use seedbed::worker::{WorkerErrorKind, WorkerStatus, cancelled, current_default_worker_limiter};
use seedbed::{
    CancelScope, CapacityLimiter, WorkerConfig, WorkerContext, on_cancel, open_nursery, run_async,
    shield, sleep,
};
use smol::io::{AsyncReadExt, AsyncWriteExt};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

/// A folder in which jobs leave files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn has(&self, file: &str) -> bool {
        self.0.path().join(file).exists()
    }

    /// Waits until a job has written its process id into this file.
    async fn pid_in(&self, file: &str) -> u32 {
        loop {
            match std::fs::read_to_string(self.0.path().join(file)) {
                Ok(pid) if !pid.is_empty() => return pid.parse().unwrap(),
                _ => smol::future::yield_now().await,
            }
        }
    }

    fn files(&self) -> BTreeSet<String> {
        let files = std::fs::read_dir(self.0.path()).unwrap();
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// Writes this process's id into a file.
fn note(folder: &Path, file: &str) {
    let unfinished = folder.join(format!(".{file}.{}", std::process::id()));
    std::fs::write(&unfinished, std::process::id().to_string()).unwrap();
    std::fs::rename(unfinished, folder.join(file)).unwrap();
}

/// Waits forever. If it is cancelled, cleans up.
async fn wait_and_clean_up(folder: PathBuf) {
    note(&folder, "begun");
    on_cancel(sleep_forever(), async {
        sleep(Duration::from_millis(1)).await;
        let reason = current_cancel_reason().unwrap();
        assert!(reason.message().unwrap().contains("asked it to end"));
        note(&folder, "cleaned up");
    })
    .await;
}

/// Cannot be cancelled.
async fn stay(folder: PathBuf) {
    note(&folder, "begun");
    shield(sleep_forever()).await;
}

/// Waits until its caller is cancelled, and returns a value all the same.
async fn finish(folder: PathBuf) -> u32 {
    note(&folder, "begun");
    let asked = async {
        while !cancelled() {
            sleep(Duration::from_millis(1)).await;
        }
        7
    };
    shield(asked).await
}

async fn own_pid(_: ()) -> u32 {
    sleep(Duration::ZERO).await;
    std::process::id()
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Awaits a call in a scope that is cancelled when the job has begun.
async fn cancelled_at<F: IntoFuture>(folder: &Folder, call: F) -> (Option<F::Output>, u32) {
    let scope = CancelScope::new();
    let cancel = async {
        let pid = folder.pid_in("begun").await;
        scope.cancel();
        pid
    };
    within(smol::future::zip(scope.run(call), cancel)).await
}

fn an_async_job_has_tasks_timers_and_io() {
    async fn echo(text: String) -> String {
        let (mut ours, mut theirs) = smol::net::unix::UnixStream::pair().unwrap();
        open_nursery(|n| async move {
            n.spawn(async move {
                let mut bytes = vec![0; text.len()];
                sleep(Duration::from_millis(1)).await;
                theirs.read_exact(&mut bytes).await.unwrap();
                bytes.make_ascii_uppercase();
                theirs.write_all(&bytes).await.unwrap();
            });
            ours.write_all(b"words").await.unwrap();
            let mut answer = String::new();
            ours.read_to_string(&mut answer).await.unwrap();
            answer
        })
        .await
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for _ in 0..3 {
            let echo = workers.run_async(echo, "words".to_owned());
            assert_eq!(within(echo.into_future()).await.unwrap(), "WORDS");
        }
        assert_eq!(workers.statistics().started, 1);
    }));
}

fn async_and_sync_jobs_use_the_same_workers() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        for _ in 0..5 {
            assert_eq!(workers.run_async(own_pid, ()).await.unwrap(), first);
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
        }
    }));
}

fn a_cancelled_job_cleans_up_and_its_worker_serves_the_next_call() {
    test(async {
        for jobs in 0..4 {
            with_workers(WorkerConfig::new(), |workers| async move {
                for _ in 0..jobs {
                    workers.run_sync(pid, ()).await.unwrap();
                }
                let folder = Folder::new();
                let call = workers.run_async(wait_and_clean_up, folder.path());
                let (outcome, job) = cancelled_at(&folder, call).await;
                assert!(outcome.is_none());
                assert!(folder.has("cleaned up"));
                assert_eq!(workers.run_async(own_pid, ()).await.unwrap(), job);
                assert_eq!(workers.run_sync(pid, ()).await.unwrap(), job);
                assert_eq!(workers.statistics().killed, 0);
            })
            .await;
        }
    });
}

fn a_cancelled_job_that_completes_returns_its_value() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = Folder::new();
        let call = workers.run_async(finish, folder.path());
        let (outcome, _) = cancelled_at(&folder, call).await;
        assert_eq!(outcome.unwrap().unwrap(), 7);
    }));
}

fn a_job_whose_clean_up_takes_too_long_is_killed_after_the_grace_period() {
    let config = WorkerConfig::new().grace_period(Duration::from_millis(20));
    test(with_workers(config, |workers| async move {
        let folder = Folder::new();
        let call = workers.run_async(stay, folder.path());
        let (outcome, job) = cancelled_at(&folder, call).await;
        assert!(outcome.is_none());
        assert!(!exists(job));
        assert_eq!(workers.statistics().jobs_cancelled, 1);
    }));
}

fn a_call_that_kills_waits_for_no_clean_up() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = Folder::new();
        let call = workers.run_async(stay, folder.path()).kill_on_cancel(true);
        let (outcome, job) = cancelled_at(&folder, call).await;
        assert!(outcome.is_none());
        assert!(!exists(job));
    }));
}

fn the_error_of_a_job_says_what_happened() {
    async fn panic(_: ()) {
        sleep(Duration::ZERO).await;
        panic!("on purpose");
    }
    async fn exit(_: ()) {
        sleep(Duration::ZERO).await;
        std::process::exit(3);
    }
    async fn wait(_: ()) {
        sleep_forever().await;
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let error = workers.run_async(panic, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Panicked);
        assert!(error.to_string().contains("on purpose"), "{error}");
        assert!(error.job().unwrap().ends_with("panic"), "{error}");
        let error = workers.run_async(exit, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert_eq!(error.exit().unwrap().code(), Some(3));
        let limited = workers.run_async(wait, ());
        let limited = limited.time_limit(Duration::from_millis(20));
        let error = limited.await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::TimedOut);
        assert!(workers.run_async(own_pid, ()).await.is_ok());
    }));
}

fn a_job_sees_the_deadline_of_its_caller() {
    async fn time_left(_: ()) -> Option<Duration> {
        let deadline = current_effective_deadline()?;
        Some(deadline.saturating_duration_since(current_time()))
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert_eq!(workers.run_async(time_left, ()).await.unwrap(), None);
        let deadline = current_time() + LONG;
        let seen = move_on_at(deadline, workers.run_async(time_left, ())).await;
        let seen = seen.unwrap().unwrap().expect("there is a deadline");
        assert!(seen <= LONG && seen > LONG / 2, "{seen:?}");
    }));
}

fn a_worker_may_retire_after_an_async_job() {
    fn always(_: &WorkerStatus) -> bool {
        true
    }
    let config = WorkerConfig::new().retire(always);
    test(with_workers(config, |workers| async move {
        let first = workers.run_async(own_pid, ()).await.unwrap();
        assert_ne!(workers.run_async(own_pid, ()).await.unwrap(), first);
    }));
}

/// The job of a worker calls a job of its own worker.
async fn nested(folder: PathBuf) {
    note(&folder, "outer");
    let _ = run_async(wait_and_clean_up, folder).await;
}

fn cancellation_reaches_the_workers_of_a_worker() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = Folder::new();
        let call = workers.run_async(nested, folder.path());
        let (outcome, inner) = cancelled_at(&folder, call).await;
        assert!(outcome.is_none());
        assert!(folder.has("cleaned up"));
        assert_ne!(folder.pid_in("outer").await, inner);
        assert!(!exists(inner), "it ends with the run of its parent");
    }));
}

fn the_workers_of_a_worker_end_with_it() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = Folder::new();
        let call = workers.run_async(nested, folder.path());
        let kill = async {
            let inner = folder.pid_in("begun").await;
            let outer = folder.pid_in("outer").await;
            let outer = rustix::process::Pid::from_raw(outer.cast_signed()).unwrap();
            rustix::process::kill_process(outer, rustix::process::Signal::KILL).unwrap();
            inner
        };
        let both = smol::future::zip(call.into_future(), kill);
        let (outcome, inner) = within(both).await;
        assert_eq!(outcome.unwrap_err().kind(), WorkerErrorKind::Broken);
        common::wait_until_gone(inner);
        assert!(!folder.has("cleaned up"));
    }));
}

fn a_shutdown_within_a_limit_cancels_async_jobs() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = Folder::new();
        let call = workers.run_async(wait_and_clean_up, folder.path());
        let shut_down = async {
            folder.pid_in("begun").await;
            workers.shutdown_within(LONG).await
        };
        let both = smol::future::zip(call.into_future(), shut_down);
        let (outcome, ended) = within(both).await;
        assert_eq!(outcome.unwrap_err().kind(), WorkerErrorKind::Closed);
        ended.unwrap();
        assert!(folder.has("cleaned up"));
    }));
}

fn a_dropped_call_cancels_its_job_in_the_background() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (folder, limiter) = (Folder::new(), CapacityLimiter::new(1));
        let call = workers.run_async(wait_and_clean_up, folder.path());
        let call = smol::spawn(call.limiter(&limiter).into_future());
        let job = folder.pid_in("begun").await;
        call.cancel().await;
        drop(within(limiter.acquire()).await);
        assert!(folder.has("cleaned up"));
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), job);
    }));
}

fn an_async_call_may_be_cancelled_or_dropped_at_every_pending_point() {
    fn is_asked(_: ()) -> bool {
        cancelled()
    }
    test(within(async {
        for (drops, warm) in [(false, false), (false, true), (true, false), (true, true)] {
            for k in 1.. {
                let limiter = CapacityLimiter::new(1);
                let stopped = with_workers(WorkerConfig::new(), async |workers: WorkerContext| {
                    if warm {
                        workers.run_async(own_pid, ()).await.unwrap();
                        workers.run_async(own_pid, ()).await.unwrap();
                    }
                    let call = workers.run_async(own_pid, ()).limiter(&limiter);
                    let stopped = stopped_when_pending(call, k, drops).await;
                    // No late request concerns them.
                    assert!(!workers.run_sync(is_asked, ()).await.unwrap());
                    assert!(workers.run_async(own_pid, ()).await.is_ok());
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

/// Notes its process, and waits.
async fn serve(folder: PathBuf) {
    let pid = std::process::id();
    note(&folder, &format!("loop {pid}"));
    on_cancel(sleep_forever(), async {
        note(&folder, &format!("ended {pid}"));
    })
    .await;
}

/// Waits until there are this many files in a folder.
async fn until_files(folder: &Folder, count: usize) {
    while folder
        .files()
        .iter()
        .filter(|file| !file.starts_with('.'))
        .count()
        < count
    {
        smol::future::yield_now().await;
    }
}

fn loops_run_in_processes_of_their_own_and_end_with_the_block() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = Folder::new();
        let body = async {
            until_files(&folder, 3).await;
            assert_eq!(workers.statistics().running_workers, 3);
            assert_eq!(current_default_worker_limiter().borrowed(), 0);
            "value"
        };
        let block = workers.open_loops(3, serve, folder.path()).open(body);
        assert_eq!(within(block).await.unwrap(), "value");
        assert_eq!(workers.statistics().running_workers, 0);
        let files = folder.files();
        let ended = files.iter().filter(|file| file.starts_with("ended"));
        assert_eq!(ended.count(), 3, "{files:?}");
    }));
}

fn loops_end_when_their_block_is_cancelled() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (scope, folder) = (CancelScope::new(), Folder::new());
        let block = scope.run(workers.open_loops(2, serve, folder.path()));
        let cancel = async {
            until_files(&folder, 2).await;
            scope.cancel();
        };
        let (outcome, ()) = within(smol::future::zip(block, cancel)).await;
        assert!(outcome.is_none());
        assert_eq!(workers.statistics().running_workers, 0);
        assert_eq!(folder.files().len(), 4);
    }));
}

fn a_loop_that_crashes_is_started_again_and_costs_no_other() {
    /// Is no `Clone`, as a socket is not.
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Place {
        path: PathBuf,
    }

    /// Crashes in the first two processes.
    async fn crash_twice(place: Place) -> u32 {
        for attempt in ["first", "second"] {
            if std::fs::create_dir(place.path.join(attempt)).is_ok() {
                std::process::abort();
            }
        }
        std::process::id()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = Folder::new();
        let path = folder.path();
        let loops = workers.open_loops(2, crash_twice, Place { path });
        let loops = loops.backoff(Duration::ZERO, Duration::ZERO);
        let values = within(loops.into_future()).await.unwrap();
        assert_eq!(values.len(), 2);
        assert_eq!(workers.statistics().crashed, 2);
        assert_eq!(folder.files().len(), 2);
    }));
}

fn a_loop_that_crashes_too_often_ends_the_block_and_the_other_loops() {
    async fn crash(_: PathBuf) {
        std::process::abort();
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = Folder::new();
        let serving = workers.open_loops(1, serve, folder.path());
        let block = serving.open(async {
            until_files(&folder, 1).await;
            let crashing = workers.open_loops(2, crash, folder.path());
            let crashing = crashing.backoff(Duration::ZERO, Duration::ZERO).limit(3);
            crashing.open(sleep_forever()).await.unwrap_err()
        });
        let error = within(block).await.unwrap();
        assert_eq!(error.failures(), 3);
        assert_eq!(error.last().kind(), WorkerErrorKind::Broken);
        assert_eq!(workers.statistics().running_workers, 0);
        assert_eq!(folder.files().len(), 2, "the outer loop has ended in order");
    }));
}

fn a_loop_whose_context_is_shut_down_is_not_started_again() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = Folder::new();
        let block = workers.open_loops(2, serve, folder.path());
        let shut_down = async {
            until_files(&folder, 2).await;
            workers.shutdown_within(LONG).await
        };
        let both = smol::future::zip(block.into_future(), shut_down);
        let (outcome, ended) = within(both).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.last().kind(), WorkerErrorKind::Closed);
        assert_eq!(error.failures(), 1);
        ended.unwrap();
    }));
}

fn no_loops_are_no_values() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let values = workers.open_loops(0, own_pid, ()).await.unwrap();
        assert!(values.is_empty());
        assert!(common::workers().is_empty());
    }));
}

suite! {
    an_async_job_has_tasks_timers_and_io,
    async_and_sync_jobs_use_the_same_workers,
    a_cancelled_job_cleans_up_and_its_worker_serves_the_next_call,
    a_cancelled_job_that_completes_returns_its_value,
    a_job_whose_clean_up_takes_too_long_is_killed_after_the_grace_period,
    a_call_that_kills_waits_for_no_clean_up,
    the_error_of_a_job_says_what_happened,
    a_job_sees_the_deadline_of_its_caller,
    a_worker_may_retire_after_an_async_job,
    cancellation_reaches_the_workers_of_a_worker,
    the_workers_of_a_worker_end_with_it,
    a_shutdown_within_a_limit_cancels_async_jobs,
    a_dropped_call_cancels_its_job_in_the_background,
    an_async_call_may_be_cancelled_or_dropped_at_every_pending_point,
    loops_run_in_processes_of_their_own_and_end_with_the_block,
    loops_end_when_their_block_is_cancelled,
    a_loop_that_crashes_is_started_again_and_costs_no_other,
    a_loop_that_crashes_too_often_ends_the_block_and_the_other_loops,
    a_loop_whose_context_is_shut_down_is_not_started_again,
    no_loops_are_no_values,
}
