//! Workers that end while no job runs in them, and workers that do not end when they are killed.

use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common;
use crate::common::sandbox::refuse;
use crate::common::stage::{
    Stage, forever, helper, kill, leave_a_byte, part, signal, state_of, succeeds, until_ended,
    within,
};
use crate::common::{
    endless, is_alive, pid, test, wait_until_gone, with_workers, with_workers_that_stay,
    workers as children,
};
use rustix::process::Signal;
use seedbed::worker::{WorkerErrorKind, WorkerStatus};
use seedbed::{CapacityLimiter, WorkerConfig, WorkerContext, move_on_after, run_sync};

/// Waits until this process has that number of workers, zombies included. Makes no call, and asks
/// for no statistics.
async fn until_there_are(number: usize) {
    let there_are = async {
        while children().len() != number {
            smol::future::yield_now().await;
        }
    };
    within(there_are).await;
}

/// Makes two idle workers, and returns their process ids, the one used last at the end.
async fn two_idle(workers: &WorkerContext) -> [u32; 2] {
    let mut stages = [Stage::new(), Stage::new()];
    let [first, second] = stages.each_ref().map(|stage| {
        smol::spawn(
            workers
                .run_sync(common::stage::halting_pid, stage.path())
                .into_future(),
        )
    });
    for stage in &stages {
        stage.reached().await;
    }
    stages[0].release();
    let first = first.await.unwrap();
    stages[1].release();
    [first, second.await.unwrap()]
}

/// A worker that had ended while it was idle stayed a zombie, with its descriptors, until the next
/// call of its context or the next look at the statistics.
fn workers_that_time_out_are_reaped_without_a_call() {
    let config = WorkerConfig::new().idle_timeout(Duration::from_millis(1));
    test(with_workers(config, |workers| async move {
        two_idle(&workers).await;
        until_there_are(0).await;
        let statistics = workers.statistics();
        assert_eq!((statistics.living, statistics.timed_out), (0, 2));
    }));
}

/// A dead worker behind a living one that had been idle for longer was never looked at.
fn an_idle_worker_that_is_killed_is_reaped_whichever_it_is() {
    for which in 0..2 {
        test(with_workers(WorkerConfig::new(), |workers| async move {
            let mut pids = two_idle(&workers).await.to_vec();
            let killed = pids.remove(which);
            let before = common::descriptors().len();
            kill(killed);
            until_there_are(1).await;
            within(async {
                while common::descriptors().len() >= before {
                    smol::future::yield_now().await;
                }
            })
            .await;
            assert_eq!(children(), pids);
            assert_eq!(workers.statistics().idle_workers, 1);
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), pids[0]);
        }));
    }
}

fn workers_of_the_default_context_are_reaped_without_a_call() {
    test(async {
        let first = run_sync(pid, ()).await.unwrap();
        kill(first);
        until_there_are(0).await;
        assert_ne!(run_sync(pid, ()).await.unwrap(), first);
        common::end_default_workers();
    });
}

/// The statistics counted idle workers that had ended behind a living one.
fn the_statistics_never_count_a_worker_that_has_ended() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let [_, second] = two_idle(&workers).await;
        kill(second);
        until_ended(second);
        let statistics = workers.statistics();
        assert_eq!((statistics.idle_workers, statistics.living), (1, 1));
        assert_eq!(statistics.crashed, 1);
    }));
}

/// The report of a retire closure must not be lost when its worker is reaped before the next call.
fn the_panic_of_a_retire_closure_fails_the_next_call_after_its_worker_was_reaped() {
    let config = WorkerConfig::new().retire(|_: &WorkerStatus| panic!("no idea"));
    test(with_workers(config, |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        until_there_are(0).await;
        let statistics = workers.statistics();
        assert_eq!((statistics.idle_workers, statistics.crashed), (0, 1));
        let error = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Retire);
        assert_eq!(error.panic().unwrap().message(), "no idea");
        assert_eq!(workers.statistics().jobs_failed, 1);
        workers.run_sync(pid, ()).await.unwrap();
    }));
}

fn start_sleeper(_: ()) -> (u32, u32) {
    let mut command = Command::new("sleep");
    let quiet = || Stdio::null();
    command
        .arg("60")
        .stdin(quiet())
        .stdout(quiet())
        .stderr(quiet());
    (std::process::id(), command.spawn().unwrap().id())
}

/// The group of a worker that had ended while it was idle lived on until the next call.
fn the_processes_of_a_worker_end_when_it_is_killed_while_idle() {
    let config = WorkerConfig::new().kill_tree(true);
    test(with_workers(config, |workers| async move {
        let (worker, sleeper) = workers.run_sync(start_sleeper, ()).await.unwrap();
        kill(worker);
        wait_until_gone(sleeper);
        until_there_are(0).await;
    }));
}

/// A job that was handed to a worker which had been killed and was about to end was reported as
/// broken, although it had not begun.
fn a_job_for_an_idle_worker_that_was_just_killed_is_run_once_by_another_worker() {
    fn run(file: PathBuf) -> u32 {
        leave_a_byte(file);
        std::process::id()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("runs");
        for round in 0..100 {
            let idle = workers.run_sync(pid, ()).await.unwrap();
            while state_of(idle) != Some('S') {} // it waits for the next job in the kernel
            kill(idle);
            let other = workers.run_sync(run, file.clone()).await.unwrap();
            assert_ne!(other, idle);
            assert_eq!(std::fs::metadata(&file).unwrap().len(), round + 1);
        }
    }));
}

/// Like libraries that do not want to be debugged.
fn ask_to_be_traced(_: ()) -> u32 {
    // SAFETY: this request takes no pointers.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }, 0);
    std::process::id()
}

/// The kernel's answer that such a worker is stopped was a panic in the program, or was never asked
/// for, so that the call did not end.
fn a_job_that_asks_to_be_traced_and_is_stopped_is_broken_and_nothing_else() {
    fn abort(_: ()) {
        ask_to_be_traced(());
        std::process::abort()
    }
    fn start_a_process(_: ()) {
        ask_to_be_traced(());
        // SIGCHLD stops this thread, unless another one takes it; then SIGUSR1 does.
        Command::new("true").status().unwrap();
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(libc::SIGUSR1) };
        loop {
            std::thread::park();
        }
    }
    for (aborts, is_new) in [(true, true), (true, false), (false, true), (false, false)] {
        test(with_workers(WorkerConfig::new(), |workers| async move {
            if !is_new {
                workers.run_sync(pid, ()).await.unwrap();
            }
            let call = async {
                if aborts {
                    workers.run_sync(abort, ()).await
                } else {
                    workers.run_sync(start_a_process, ()).await
                }
            };
            let error = within(call).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
            assert!(error.to_string().contains("PTRACE_TRACEME"), "{error}");
            workers.run_sync(pid, ()).await.unwrap();
        }));
    }
}

fn an_idle_worker_that_is_traced_and_stopped_is_replaced() {
    for looks in [false, true] {
        test(with_workers(WorkerConfig::new(), |workers| async move {
            let traced = workers.run_sync(ask_to_be_traced, ()).await.unwrap();
            // It answers without having been stopped, and is a worker like another until then.
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), traced);
            // It stops, or dies if another thread of it, which is not traced, takes the signal.
            signal(traced, Signal::USR1);
            while !matches!(state_of(traced), Some('t' | 'Z') | None) {}
            if looks {
                assert!(workers.statistics().idle_workers <= 1);
            }
            let other = within(workers.run_sync(pid, ()).into_future())
                .await
                .unwrap();
            assert_ne!(other, traced);
        }));
    }
}

const MODULE: &str = "ends";

/// Runs the rest of a test in a process of its own, which may refuse system calls to itself.
fn in_a_sandbox(name: &str, body: impl FnOnce()) {
    match part() {
        None => _ = succeeds(helper(MODULE, name, "sandbox")),
        Some(_) => body(),
    }
}

/// Sends SIGKILL by number, which the sandbox does not refuse.
fn end(pid: u32) {
    kill(pid);
    until_ended(pid);
}

/// The call of a worker that could not be killed waited for that worker's end, with its limiter
/// token, for as long as the job ran.
fn a_cancelled_call_ends_although_its_worker_cannot_be_killed() {
    let name = "a_cancelled_call_ends_although_its_worker_cannot_be_killed";
    in_a_sandbox(name, || {
        let config = WorkerConfig::new().kill_timeout(Duration::from_millis(10));
        test(with_workers(config, |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
            refuse(libc::SYS_pidfd_send_signal, libc::EPERM);
            let (stage, limiter) = (Stage::new(), CapacityLimiter::new(1));
            let call = workers
                .run_sync(forever, stage.path())
                .limiter(&limiter)
                .kill_on_cancel(true);
            let worker = within(stage.cancel_on_arrival(call)).await;
            assert_eq!(limiter.borrowed(), 0);
            assert!(is_alive(worker));
            assert_eq!(workers.statistics().killed, 1);
            workers.run_sync(pid, ()).await.unwrap();
            end(worker);
        }));
    });
}

/// A shutdown waited for workers that it could not kill.
fn a_shutdown_ends_although_a_worker_cannot_be_killed() {
    let name = "a_shutdown_ends_although_a_worker_cannot_be_killed";
    in_a_sandbox(name, || {
        let config = with_workers_that_stay(WorkerConfig::new())
            .grace_period(Duration::ZERO)
            .kill_timeout(Duration::from_millis(10));
        test(with_workers(config, |workers| async move {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            refuse(libc::SYS_pidfd_send_signal, libc::EPERM);
            let error = within(workers.shutdown()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Shutdown);
            assert!(error.to_string().contains("1 killed"), "{error}");
            end(worker);
        }));
    });
}

/// A program that shuts itself in has changed its credentials, so its next call needs a new worker,
/// for which there is no descriptor. A worker that was forked even so was never killed, and its
/// call never ended.
fn without_descriptors_a_call_that_needs_a_worker_is_an_error() {
    let name = "without_descriptors_a_call_that_needs_a_worker_is_an_error";
    ends_with_an_error(name, WorkerConfig::new(), libc::EPERM);
}

fn without_descriptors_a_call_that_needs_a_worker_with_a_tree_is_an_error() {
    let name = "without_descriptors_a_call_that_needs_a_worker_with_a_tree_is_an_error";
    ends_with_an_error(name, WorkerConfig::new().kill_tree(true), libc::ENOSYS);
}

fn ends_with_an_error(name: &str, config: WorkerConfig, errno: i32) {
    in_a_sandbox(name, || {
        test(with_workers(config.single_use(), |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
            refuse(libc::SYS_pidfd_open, errno);
            let stage = Stage::new();
            let call = workers.run_sync(forever, stage.path()).kill_on_cancel(true);
            let error = within(call.into_future()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Start);
            assert!(error.to_string().contains("process descriptor"), "{error}");
        }));
    });
}

/// A killable call that is dropped leaves its worker to the background, whatever becomes of it.
fn a_dropped_call_whose_worker_cannot_be_killed_harms_no_other() {
    let name = "a_dropped_call_whose_worker_cannot_be_killed_harms_no_other";
    in_a_sandbox(name, || {
        test(with_workers(WorkerConfig::new(), |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
            refuse(libc::SYS_pidfd_send_signal, libc::EPERM);
            let stage = Stage::new();
            let call = workers.run_sync(forever, stage.path()).kill_on_cancel(true);
            let call = smol::spawn(call.into_future());
            let worker = stage.reached().await;
            drop(call);
            workers.run_sync(pid, ()).await.unwrap();
            end(worker);
        }));
    });
}

/// Runs `body` with workers that report to the stage in an init closure, and stay there.
fn with_workers_that_hang_in_init<Fut>(body: impl FnOnce(WorkerContext, Stage) -> Fut)
where
    Fut: Future<Output = ()>,
{
    test(async {
        let stage = Stage::new(); // inside of the test, so that no other one finds its pipe
        let config = WorkerConfig::new();
        let config = config.init_with(stage.path(), |stage: &PathBuf| forever(stage.clone()));
        with_workers(config, |workers| body(workers, stage)).await;
    });
}

fn prestarted_workers_serve_the_first_calls() {
    for prepares in [false, true] {
        let config = WorkerConfig::new().idle_timeout(Duration::from_millis(1));
        let config = if prepares { config.init(|| ()) } else { config };
        test(with_workers(config, |workers| async move {
            within(workers.prestart(3)).await.unwrap();
            let statistics = workers.statistics();
            assert_eq!((statistics.started, statistics.idle_workers), (3, 3));
            assert_eq!((statistics.running_workers, statistics.jobs_done), (0, 0));
            until_there_are(3).await; // a forked worker has its name a moment later
            let started = children();
            workers.prestart(2).await.unwrap(); // there are enough
            let first = workers.run_sync(pid, ()).await.unwrap();
            assert!(started.contains(&first));
            assert_eq!(workers.statistics().started, 3);
            workers.shutdown().await.unwrap();
            let error = workers.prestart(1).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Closed);
        }));
    }
}

fn an_error_of_a_prestarted_worker_is_that_of_a_call() {
    let config = WorkerConfig::new().init(|| panic!("no toner"));
    test(with_workers(config, |workers| async move {
        let error = within(workers.prestart(2)).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Init);
        assert_eq!(error.panic().unwrap().message(), "no toner");
        assert_eq!(workers.statistics().failed_starts, 2);
        assert!(children().is_empty());
    }));
}

fn a_cancelled_or_dropped_prestart_leaves_no_worker_that_is_not_ready() {
    for is_dropped in [false, true] {
        with_workers_that_hang_in_init(|workers, stage| async move {
            let ahead = workers.clone();
            let start = async move { ahead.prestart(1).await };
            if is_dropped {
                let start = smol::spawn(start);
                stage.reached().await;
                drop(start);
                until_there_are(0).await;
            } else {
                within(stage.cancel_on_arrival(start)).await;
                assert!(children().is_empty());
                assert_eq!(workers.statistics().failed_starts, 1);
            }
        });
    }
}

/// One context's calls kept those of another waiting, unless each of them named a limiter.
fn the_limiter_of_a_context_is_that_of_its_calls() {
    let limiter = CapacityLimiter::new(1);
    let config = WorkerConfig::new().limiter(&limiter);
    test(with_workers(config, |workers| async move {
        let token = limiter.acquire().await;
        let mut call = Box::pin(workers.run_sync(pid, ()).into_future());
        assert!(smol::future::poll_once(&mut call).await.is_none());
        assert_eq!(limiter.statistics().waiting, 1);
        let other = CapacityLimiter::new(1);
        workers.run_sync(pid, ()).limiter(&other).await.unwrap();
        drop(token);
        call.await.unwrap();
    }));
}

/// Without `kill_all`, nothing but the job ended the call, and with it the context.
fn killing_all_workers_ends_their_calls_and_later_calls_have_new_workers() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let unlimited = CapacityLimiter::unlimited();
        let [idle, busy] = two_idle(&workers).await;
        let stages = [Stage::new(), Stage::new()];
        let call = |stage: &Stage| {
            let call = workers.run_sync(forever, stage.path()).limiter(&unlimited);
            smol::spawn(call.into_future())
        };
        let call_in_progress = call(&stages[0]);
        assert_eq!(stages[0].reached().await, busy);
        let dropped = call(&stages[1]);
        assert_eq!(stages[1].reached().await, idle);
        drop(dropped); // its job goes on in the background
        let single = workers.run_sync(pid, ()).limiter(&unlimited).await.unwrap();
        workers.kill_all();
        let error = within(call_in_progress).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert!(error.to_string().contains("kill_all"), "{error}");
        assert_eq!(error.exit().unwrap().signal_name(), Some("SIGKILL"));
        until_there_are(0).await;
        // Another thread reaps the worker of the dropped call, and counts its end after that.
        within(async {
            while workers.statistics().killed != 3 {
                smol::future::yield_now().await;
            }
        })
        .await;
        let other = workers.run_sync(pid, ()).await.unwrap();
        assert!(![idle, busy, single].contains(&other));
    }));
}

fn killing_all_workers_ends_a_call_whose_worker_is_starting() {
    with_workers_that_hang_in_init(|workers, stage| async move {
        let call = smol::spawn(workers.run_sync(pid, ()).into_future());
        stage.reached().await;
        workers.kill_all();
        let error = within(call).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        assert!(error.to_string().contains("kill_all"), "{error}");
        assert_eq!(workers.statistics().failed_starts, 1);
    });
}

/// A context whose block has ended waited for a stuck job with no way to end it.
fn killing_all_workers_ends_a_shutdown_that_waits_for_a_job() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let stage = Stage::new();
        let call = smol::spawn(workers.run_sync(forever, stage.path()).into_future());
        stage.reached().await;
        let kill = async {
            while workers.run_sync(pid, ()).await.is_ok() {} // until the shutdown has begun
            workers.kill_all();
        };
        let (shut_down, ()) = within(smol::future::zip(workers.shutdown(), kill)).await;
        shut_down.unwrap();
        call.await.unwrap_err();
    }));
}

/// The bound is for kills that do not work. One that works takes as long as it takes.
fn a_worker_that_can_be_killed_has_been_reaped_when_its_call_ends() {
    let config = WorkerConfig::new().kill_timeout(Duration::from_secs(3600));
    test(with_workers(config, |workers| async move {
        let call = workers.run_sync(endless, ()).kill_on_cancel(true);
        let ended = move_on_after(Duration::from_millis(1), call.into_future()).await;
        assert!(ended.is_none());
        until_there_are(0).await;
    }));
}

suite![
    workers_that_time_out_are_reaped_without_a_call,
    an_idle_worker_that_is_killed_is_reaped_whichever_it_is,
    workers_of_the_default_context_are_reaped_without_a_call,
    the_statistics_never_count_a_worker_that_has_ended,
    the_panic_of_a_retire_closure_fails_the_next_call_after_its_worker_was_reaped,
    the_processes_of_a_worker_end_when_it_is_killed_while_idle,
    a_job_for_an_idle_worker_that_was_just_killed_is_run_once_by_another_worker,
    a_job_that_asks_to_be_traced_and_is_stopped_is_broken_and_nothing_else,
    an_idle_worker_that_is_traced_and_stopped_is_replaced,
    a_cancelled_call_ends_although_its_worker_cannot_be_killed,
    a_shutdown_ends_although_a_worker_cannot_be_killed,
    without_descriptors_a_call_that_needs_a_worker_is_an_error,
    without_descriptors_a_call_that_needs_a_worker_with_a_tree_is_an_error,
    a_dropped_call_whose_worker_cannot_be_killed_harms_no_other,
    prestarted_workers_serve_the_first_calls,
    an_error_of_a_prestarted_worker_is_that_of_a_call,
    a_cancelled_or_dropped_prestart_leaves_no_worker_that_is_not_ready,
    the_limiter_of_a_context_is_that_of_its_calls,
    killing_all_workers_ends_their_calls_and_later_calls_have_new_workers,
    killing_all_workers_ends_a_call_whose_worker_is_starting,
    killing_all_workers_ends_a_shutdown_that_waits_for_a_job,
    a_worker_that_can_be_killed_has_been_reaped_when_its_call_ends,
];
