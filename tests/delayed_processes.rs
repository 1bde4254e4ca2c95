//! Programs as jobs: what a process gets, when it runs, and that it ends with its tree.

mod common;

use std::future::pending;
use std::path::Path;
use std::time::Duration;

use common::programs::{sh, test};
use common::{poll_with_yields, wait_until_gone};
use rustix::thread::sched_getaffinity;
use seedbed::CancelScope;
use seedbed::delayed::{Cores, JobErrorKind, Memory, Resources, ZERO, each, open, try_open};
use seedbed::process::{Command, Output, ProcessErrorKind, Stdio};
use smol::future::{yield_now, zip};

/// One core that this process may use, and memory.
fn one_core() -> Resources {
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..1024).find(|&cpu| allowed.is_set(cpu));
    Resources::none().cores(first).memory(Memory::gib(1))
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

/// A script whose child outlives it. The child's number is in the file `child`.
fn script_with_child(folder: &Path) -> String {
    let folder = folder.display();
    format!("cd '{folder}'; sleep 1000 & echo $! > new; mv new child; wait")
}

/// Waits until a script has written this file, and returns its text.
async fn written(folder: &Path, file: &str) -> String {
    loop {
        match std::fs::read_to_string(folder.join(file)) {
            Ok(text) => return text,
            Err(_) => yield_now().await,
        }
    }
}

#[test]
fn a_process_and_its_children_are_restricted_to_the_cores_and_the_memory_of_the_allocation() {
    test(open(one_core(), async |jobs| {
        let limits = "nproc; ulimit -d; ulimit -Hd; sh -c 'nproc; ulimit -d'";
        let limited = jobs.on(Cores(1) & Memory::mib(64));
        let output = limited.run_process(sh(limits).capture_stdout(true)).await;
        assert_eq!(text(output.unwrap()), "1\n65536\n65536\n1\n65536\n");
    }));
}

#[test]
fn a_process_without_resources_has_the_limits_of_this_process() {
    test(async {
        let limits = || sh("nproc; ulimit -d").capture_stdout(true);
        let expected = text(limits().await.unwrap());
        open(one_core(), async |jobs| {
            let output = jobs.on(ZERO).run_process(limits()).await.unwrap();
            assert_eq!(text(output), expected);
        })
        .await;
    });
}

#[test]
fn a_program_that_needs_more_memory_than_it_has_fails_and_harms_no_other() {
    test(open(one_core(), async |jobs| {
        let takes_much = "x=$(head -c 200000000 /dev/zero | tr '\\0' a); echo ${#x}";
        let takes_much = || sh(takes_much).capture_stdout(true).capture_stderr(true);
        let small = jobs.on(Cores(1) & Memory::mib(64));
        let error = small.run_process(takes_much()).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (JobErrorKind::Failed, 1));
        let process = error.process().unwrap();
        assert_eq!(process.kind(), ProcessErrorKind::Failed);
        assert!(process.output().unwrap().stdout.is_empty());
        let all = jobs.run_process(takes_much()).await.unwrap();
        assert_eq!(text(all), "200000000\n");
    }));
}

#[test]
fn processes_wait_for_their_resources_in_order_and_have_the_name_of_their_program() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    test(open(one_core(), async move |jobs| {
        let path = folder.display();
        let first = format!("cd '{path}'; echo > begun; while [ ! -e go ]; do sleep 0.01; done");
        let first = jobs.run_process(sh(&first));
        let second = jobs.run_process(sh(&format!("cd '{path}'; test -e go")));
        written(folder, "begun").await;
        let statistics = jobs.statistics();
        assert_eq!((statistics.running, statistics.queued), (1, 1));
        let head = statistics.head.unwrap();
        assert!(head.starts_with("`sh` waits for 1 core"), "{head}");
        std::fs::write(folder.join("go"), "").unwrap();
        each((first, second)).await.unwrap();
        assert_eq!(jobs.statistics().succeeded, 2);
    }));
}

#[test]
fn a_process_that_reaches_its_time_limit_ends_with_its_tree_and_its_output_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("echo begun; {}", script_with_child(folder.path()));
    test(open(one_core(), async move |jobs| {
        let brief = jobs.time_limit(Duration::from_millis(100));
        let process = sh(&script).capture_stdout(true);
        let error = brief.run_process(process).await.unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::TimedOut);
        let output = error.process().unwrap().output().unwrap();
        assert!(output.stdout.is_empty() || output.stdout == b"begun\n");
        // A busy machine may not have come as far as that.
        if let Ok(child) = std::fs::read_to_string(folder.path().join("child")) {
            wait_until_gone(child.trim().parse().unwrap());
        }
        // The shorter of two limits holds.
        let sleep = sh("exec sleep 1000").time_limit(Duration::from_millis(1));
        let patient = jobs.time_limit(Duration::from_secs(1000));
        let error = patient.run_process(sleep).await.unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::TimedOut);
        assert!(error.to_string().contains("1ms"), "{error}");
    }));
}

#[test]
fn cancelling_a_block_ends_its_processes_with_their_trees() {
    let folder = tempfile::tempdir().unwrap();
    let script = script_with_child(folder.path());
    test(async {
        let scope = CancelScope::new();
        let block = open(one_core(), async |jobs| {
            drop(jobs.run_process(sh(&script)));
            drop(jobs.run_process(sh("sleep 1000")));
            pending::<()>().await;
        });
        let cancelling = async {
            let child = written(folder.path(), "child").await;
            scope.cancel();
            child.trim().parse::<u32>().unwrap()
        };
        let (ended, child) = zip(scope.run(block), cancelling).await;
        assert!(ended.is_none() && common::children().is_empty());
        wait_until_gone(child);
    });
}

#[test]
fn an_error_of_the_body_ends_the_processes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    test(async move {
        let ended: Result<(), u32> = try_open(one_core(), async |jobs| {
            let script = script_with_child(folder);
            drop(jobs.run_process(sh(&script)));
            Err(written(folder, "child").await.trim().parse().unwrap())
        })
        .await;
        assert!(common::children().is_empty());
        wait_until_gone(ended.unwrap_err());
    });
}

#[test]
fn a_process_that_must_not_be_killed_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    test(async move {
        let scope = CancelScope::new();
        let block = open(one_core(), async |jobs| {
            let path = folder.display();
            let script = format!(
                "cd '{path}'; echo > begun; while [ ! -e go ]; do sleep 0.01; done; echo > done"
            );
            let patient = jobs.kill_on_cancel(false);
            drop(patient.run_process(sh(&script)));
            pending::<()>().await;
        });
        let cancelling = async {
            written(folder, "begun").await;
            scope.cancel();
            yield_now().await;
            std::fs::write(folder.join("go"), "").unwrap();
        };
        let (ended, ()) = zip(scope.run(block), cancelling).await;
        assert!(ended.is_none());
        assert!(folder.join("done").exists());
    });
}

#[test]
fn a_block_that_is_dropped_or_cancelled_at_any_moment_leaves_no_process() {
    let script = "sleep 1000 & echo begun; wait";
    for polls in [0, 1, 2, 3, 5, 10, 30, 100, 300] {
        let block = || {
            open(one_core(), async |jobs| {
                drop(jobs.run_process(sh(script).capture_stdout(true)));
                drop(jobs.run_process(sh(script).input("unread")));
                drop(jobs.on(ZERO).run_process(sh(script).stdout(Stdio::null())));
                pending::<()>().await;
            })
        };
        test(async {
            assert!(!poll_with_yields(block(), polls).await);
        });
        test(async {
            let scope = CancelScope::new();
            let cancelling = async {
                for _ in 0..polls {
                    yield_now().await;
                }
                scope.cancel();
            };
            let (ended, ()) = zip(scope.run(block()), cancelling).await;
            assert!(ended.is_none() && common::children().is_empty());
        });
    }
}

#[test]
fn a_program_that_fails_runs_once_and_one_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs");
    test(open(one_core(), async move |jobs| {
        let jobs = jobs.retry(3);
        let script = format!("echo once >> '{}'; echo oh no >&2; exit 3", path.display());
        let fails = jobs.run_process(sh(&script).capture_stderr(true));
        let error = fails.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.job()),
            (JobErrorKind::Failed, Some("sh"))
        );
        assert_eq!(
            error.to_string(),
            "`sh` exited with code 3 and wrote `oh no`; call check(false) if that is no failure"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "once\n");
        let missing = jobs.run_process(Command::new("/no/such/program"));
        let error = missing.await.unwrap_err();
        assert_eq!(error.process().unwrap().kind(), ProcessErrorKind::Start);
        assert_eq!(jobs.statistics().failed, 2);
    }));
}

#[test]
fn more_output_than_is_kept_is_an_error_with_its_beginning() {
    test(open(one_core(), async |jobs| {
        let endless = sh("exec yes").capture_stdout(true).capture_limit(5);
        let error = jobs.run_process(endless).await.unwrap_err();
        let process = error.process().unwrap();
        assert_eq!(process.kind(), ProcessErrorKind::OutputTooLarge);
        assert_eq!(process.output().unwrap().stdout, b"y\ny\ny");
    }));
}

#[test]
fn a_process_tells_what_it_has_cost() {
    test(open(one_core(), async |jobs| {
        // The shell waits for the other process, whose time counts, too.
        let counts = sh("awk 'BEGIN { while (i < 1000000) i++ }'; true");
        let value = jobs.run_process(counts);
        (&value).await.unwrap();
        let cost = value.statistics().unwrap();
        assert!(!(cost.cpu_user + cost.cpu_system).is_zero(), "{cost:?}");
        assert!(!cost.wall.is_zero());
        assert_eq!(
            (cost.attempts, cost.peak_memory, cost.worker_pid),
            (1, None, None)
        );
        let total = jobs.statistics().total;
        assert_eq!(total.cpu_user, cost.cpu_user);
    }));
}

#[test]
fn a_program_that_can_never_fit_is_not_started() {
    test(open(one_core(), async |jobs| {
        let value = jobs.on(Cores(2)).run_process(Command::new("true"));
        let error = value.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (JobErrorKind::Impossible, 0)
        );
        assert_eq!(error.job(), Some("true"));
    }));
}
