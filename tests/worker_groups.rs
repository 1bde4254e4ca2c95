//! Process groups: what a worker's jobs have started, and whether it ends with the worker.

#[macro_use]
mod common;

use std::future::IntoFuture;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::stage::{kill, signal_of};
use common::{children, endless, is_alive, pid, test, wait_until_gone, with_workers};
use rustix::process::{Pid, getpgid};
use seedbed::{CancelScope, WorkerConfig};

fn config() -> WorkerConfig {
    WorkerConfig::new().capture_stderr(true)
}
/// Starts a process that sleeps for a minute, which is longer than any test.
fn start_sleeper(_: ()) -> u32 {
    let mut command = Command::new("sleep");
    command
        .arg("60")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap().id()
}

fn tree() -> WorkerConfig {
    config().kill_tree(true)
}

fn killing_a_worker_kills_what_its_jobs_have_started() {
    test(with_workers(tree(), |workers| async move {
        let sleeper = workers.run_sync(start_sleeper, ()).await.unwrap();
        assert!(is_alive(sleeper));
        let scope = CancelScope::new();
        let call = workers.run_sync(endless, ()).kill_on_cancel(true);
        let mut call = Box::pin(scope.run(call));
        assert!(smol::future::poll_once(&mut call).await.is_none());
        scope.cancel();
        assert!(call.await.is_none());
        wait_until_gone(sleeper);
    }));
}

fn a_worker_that_crashes_takes_what_its_jobs_have_started_with_it() {
    test(with_workers(tree(), |workers| async move {
        let sleeper = workers.run_sync(start_sleeper, ()).await.unwrap();
        let crash = workers.run_sync(|()| std::process::abort(), ());
        let error: Result<(), _> = crash.await;
        assert_eq!(signal_of(&error.unwrap_err()), Some("SIGABRT"));
        wait_until_gone(sleeper);
    }));
}

fn a_worker_that_leaves_takes_what_its_jobs_have_started_with_it() {
    test(async {
        // Nobody looks at the workers meanwhile.
        for config in [
            tree().single_use(),
            tree().idle_timeout(Duration::from_millis(1)),
        ] {
            with_workers(config, |workers| async move {
                let sleeper = workers.run_sync(start_sleeper, ()).await.unwrap();
                wait_until_gone(sleeper);
                workers.run_sync(pid, ()).await.unwrap();
            })
            .await;
        }
        let sleeper = with_workers(tree(), |workers| async move {
            let sleeper = workers.run_sync(start_sleeper, ()).await.unwrap();
            workers.shutdown().await.expect("it leaves by itself");
            sleeper
        });
        wait_until_gone(sleeper.await);
    });
}

fn a_killable_call_that_is_dropped_leaves_nothing_of_its_jobs_processes() {
    test(async {
        let sleeper = with_workers(tree(), |workers| async move {
            let sleeper = workers.run_sync(start_sleeper, ()).await.unwrap();
            let call = workers
                .run_sync(endless, ())
                .kill_on_cancel(true)
                .into_future();
            let mut call = Box::pin(call);
            assert!(smol::future::poll_once(&mut call).await.is_none());
            drop(call);
            sleeper
        });
        wait_until_gone(sleeper.await);
    });
}

fn without_it_what_a_job_has_started_lives_on_and_so_does_what_has_left_the_group() {
    fn start_in_a_session_of_its_own(_: ()) -> u32 {
        let mut command = Command::new("setsid");
        command.args(["sleep", "60"]).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = command.spawn().unwrap().id();
        while common::name_of(started) != "sleep" {} // then it has left
        started
    }
    test(async {
        let without = with_workers(config(), |workers| async move {
            workers.run_sync(start_sleeper, ()).await.unwrap()
        });
        let left = with_workers(tree(), |workers| async move {
            workers
                .run_sync(start_in_a_session_of_its_own, ())
                .await
                .unwrap()
        });
        for sleeper in [without.await, left.await] {
            assert_eq!(children(), [], "the worker is gone");
            assert!(is_alive(sleeper));
            kill(sleeper);
        }
    });
}

fn a_worker_leads_a_group_of_its_own_only_if_its_tree_is_to_be_killed() {
    fn group(_: ()) -> (i32, i32) {
        let number = |pid: Pid| pid.as_raw_nonzero().get();
        (
            number(getpgid(None).unwrap()),
            number(rustix::process::getpid()),
        )
    }
    let (mine, _) = group(());
    test(async {
        with_workers(tree(), |workers| async move {
            let (group, worker) = workers.run_sync(group, ()).await.unwrap();
            assert_eq!(group, worker);
        })
        .await;
        with_workers(config(), |workers| async move {
            assert_eq!(workers.run_sync(group, ()).await.unwrap().0, mine);
        })
        .await;
    });
}

suite! {
    killing_a_worker_kills_what_its_jobs_have_started,
    a_worker_that_crashes_takes_what_its_jobs_have_started_with_it,
    a_worker_that_leaves_takes_what_its_jobs_have_started_with_it,
    a_killable_call_that_is_dropped_leaves_nothing_of_its_jobs_processes,
    without_it_what_a_job_has_started_lives_on_and_so_does_what_has_left_the_group,
    a_worker_leads_a_group_of_its_own_only_if_its_tree_is_to_be_killed,
}
