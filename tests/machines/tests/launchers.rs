//! Checks the promises of launchers, through `ssh` and through Slurm's `srun`.
//!
//! `tests/machines/run` sets the variables of the environment that these tests need.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process};
use seedbed::worker::{Launcher, WorkerErrorKind};
use seedbed::{CancelScope, WorkerConfig, WorkerContext, open_worker_context};
use smol::future::{yield_now, zip};

/// Slurm has few cores, and the tests count processes.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("`tests/machines/run` sets {name}; run the tests with it"))
}

fn ssh(host: &str) -> Launcher {
    let config = variable("SEEDBED_SSH_CONFIG");
    let launcher = Launcher::command(["ssh", "-T", "-F", &config, host]).for_shell();
    launcher.directory(std::env::current_dir().unwrap())
}

fn srun(options: &[&str]) -> Launcher {
    variable("SLURM_CONF");
    Launcher::srun(options)
}

/// Runs a test with workers of each launcher, one after the other, and checks that it leaves no
/// process behind.
fn with_each<F>(test: F)
where
    F: AsyncFn(&WorkerContext),
{
    seedbed::init();
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let launchers = [
        ("ssh", ssh("seedbed-loopback")),
        ("ssh with a greeting", ssh("seedbed-noisy")),
        ("srun", srun(&["--mem=100"])),
        (
            "srun on the other node",
            srun(&["--nodelist=n2", "--mem=100"]),
        ),
    ];
    for (name, launcher) in launchers {
        println!("through {name}");
        let config = WorkerConfig::new()
            .launcher(launcher.lease(Duration::from_secs(2)))
            .start_timeout(Duration::from_secs(60));
        smol::block_on(open_worker_context(config, async |workers| {
            test(&workers).await;
        }));
        assert_no_child_is_left();
    }
}

/// Reaping the launching program may take a moment longer than the block.
fn assert_no_child_is_left() {
    let limit = Instant::now() + Duration::from_secs(20);
    let children = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let lists = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        lists.collect::<String>()
    };
    while !children().is_empty() {
        assert!(Instant::now() < limit, "left behind: {}", children());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|state| !state.is_empty() && !state.trim_start().starts_with('Z'))
}

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn endless(_: ()) {
    loop {
        std::thread::park();
    }
}

fn signal_guardian(signal: i32) {
    kill_process(getppid().unwrap(), Signal::from_named_raw(signal).unwrap()).unwrap();
    endless(());
}

#[test]
fn calls_are_answered_by_one_worker_that_is_kept() {
    with_each(async |workers| {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        for length in [0, 1000, 3000, 200_000, 3_000_000] {
            let text = "x".repeat(length);
            assert!(
                workers
                    .run_sync(|text: String| text, text.clone())
                    .await
                    .unwrap()
                    == text
            );
        }
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        assert_eq!(workers.statistics().started, 1);
    });
}

#[test]
fn the_worker_is_in_the_directory_of_the_program() {
    with_each(async |workers| {
        let directory = |()| -> PathBuf { std::env::current_dir().unwrap() };
        let here = std::env::current_dir().unwrap();
        assert_eq!(workers.run_sync(directory, ()).await.unwrap(), here);
    });
}

#[test]
fn the_status_of_a_worker_is_told_whatever_the_launcher_makes_of_it() {
    with_each(async |workers| {
        for code in [0, 1, 7, 255] {
            let leave = |code: i32| -> () { std::process::exit(code) };
            let error = workers.run_sync(leave, code).await.unwrap_err();
            assert_eq!(error.exit().unwrap().code(), Some(code), "{error}");
        }
        let abort = |()| -> () { std::process::abort() };
        let error = workers.run_sync(abort, ()).await.unwrap_err();
        assert_eq!(
            error.exit().unwrap().signal_name(),
            Some("SIGABRT"),
            "{error}"
        );
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    });
}

#[test]
fn a_cancelled_call_returns_after_the_end_of_its_worker() {
    with_each(async |workers| {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let scope = CancelScope::new();
        let call = workers.run_sync(endless, ()).kill_on_cancel(true);
        let cancel = async {
            yield_now().await;
            scope.cancel();
        };
        let (value, ()) = zip(scope.run(call.into_future()), cancel).await;
        assert!(value.is_none());
        assert!(!is_alive(worker));
    });
}

#[test]
fn a_worker_without_its_guardian_has_ended_when_its_call_has() {
    with_each(async |workers| {
        for signal in [Signal::KILL, Signal::STOP, Signal::TERM] {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            let error = workers
                .run_sync(signal_guardian, signal.as_raw())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
            assert!(!is_alive(worker), "{error}");
        }
    });
}

/// As when the client crashes, or the network loses it.
#[test]
fn a_worker_whose_client_is_killed_has_ended_when_its_call_has() {
    with_each(async |workers| {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let kill = async {
            yield_now().await;
            let children = std::fs::read_dir("/proc/self/task")
                .unwrap()
                .filter_map(|task| {
                    std::fs::read_to_string(task.ok()?.path().join("children")).ok()
                });
            for child in children.collect::<String>().split_whitespace() {
                let child = Pid::from_raw(child.parse().unwrap()).unwrap();
                let _ = kill_process(child, Signal::KILL);
            }
        };
        let (result, ()) = zip(workers.run_sync(endless, ()).into_future(), kill).await;
        let error = result.unwrap_err();
        assert!(
            error.to_string().contains("the connection to it was lost"),
            "{error}"
        );
        assert!(!is_alive(worker));
    });
}

/// srun ends with status 0 then, and Slurm gives its processes half a minute.
#[test]
fn a_worker_whose_node_is_set_down_ends_and_its_call_fails() {
    seedbed::init();
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let machines = PathBuf::from(variable("SEEDBED_MACHINES"));
    let launcher = srun(&["--nodelist=n2", "--mem=100"]).lease(Duration::from_secs(2));
    let config = WorkerConfig::new().launcher(launcher);
    smol::block_on(open_worker_context(
        config,
        async |workers: WorkerContext| {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            let down = async {
                yield_now().await;
                run(&machines, "node-down");
            };
            let (result, ()) = zip(workers.run_sync(endless, ()).into_future(), down).await;
            let ended = !is_alive(worker);
            run(&machines, "node-up");
            result.unwrap_err();
            assert!(ended);
        },
    ));
    assert_no_child_is_left();
}

fn run(machines: &Path, program: &str) {
    let status = Command::new(machines.join(program))
        .arg("n2")
        .status()
        .unwrap();
    assert!(status.success(), "{program}: {status}");
}

#[test]
fn a_launcher_without_a_connection_or_a_program_is_an_error_that_says_so() {
    seedbed::init();
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let launchers = [
        (ssh("seedbed-no-such-host"), "no connection"),
        (
            ssh("seedbed-loopback").executable("/no/such/program"),
            "Launcher::executable",
        ),
        (
            ssh("seedbed-loopback").directory("/no/such/directory"),
            "ended with status",
        ),
        (srun(&["--partition=no-such-one"]), "ended with status 1"),
    ];
    for (launcher, wanted) in launchers {
        let config = WorkerConfig::new()
            .launcher(launcher)
            .start_timeout(Duration::from_secs(60));
        let error = smol::block_on(open_worker_context(
            config,
            async |workers: WorkerContext| workers.run_sync(pid, ()).await.unwrap_err(),
        ));
        assert_eq!(error.kind(), WorkerErrorKind::Start, "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
        assert_no_child_is_left();
    }
}
