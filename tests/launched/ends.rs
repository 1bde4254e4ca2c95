//! The ends of launched workers: jobs, guardians and programs that are killed, stopped or dropped.

use std::collections::BTreeSet;
use std::fs;
use std::future::IntoFuture;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use seedbed::{WorkerConfig, WorkerContext, WorkerError};
use smol::future::{or, poll_once, yield_now};

use crate::common::stage::{staged, within};
use crate::common::{children, is_alive, pid, test, wait_until_gone, with_workers};
use crate::*;

async fn fails<T: std::fmt::Debug>(
    call: impl IntoFuture<Output = Result<T, WorkerError>>,
) -> String {
    call.into_future().await.unwrap_err().to_string()
}

#[test]
fn a_crash_is_an_error_that_names_the_host_and_the_next_call_has_another_worker() {
    staged(config(), |workers| async move {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let error = workers.run_sync(abort, ()).await.unwrap_err();
        assert_eq!(error.exit().unwrap().signal_name(), Some("SIGABRT"));
        assert_eq!(error.exit().unwrap().host(), Some(host.trim()));
        assert!(
            error.to_string().contains(&format!(" on {})", host.trim())),
            "{error}"
        );
        let leave = |code: i32| -> () { std::process::exit(code) };
        let error: WorkerError = workers.run_sync(leave, 7).await.unwrap_err();
        assert_eq!(error.exit().unwrap().code(), Some(7));
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    });
}

/// Lets a job send a signal to its guardian. Checks that its worker has ended when its call has.
async fn fails_without_guardian(workers: &WorkerContext, signal: Signal) -> String {
    let worker = workers.run_sync(pid, ()).await.unwrap();
    let error = fails(workers.run_sync(signal_guardian, signal.as_raw())).await;
    assert!(!is_alive(worker), "{error}");
    error
}

/// Checks that a worker has ended when its call has, if its guardian gets this signal, and that the
/// next call has another one.
fn ends_with_its_lease(signal: Signal) {
    staged(config(), |workers| async move {
        let error = fails_without_guardian(&workers, signal).await;
        assert!(
            error.contains("the connection to it was lost and its lease is over"),
            "{error}"
        );
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    });
}

#[test]
fn a_worker_whose_guardian_is_killed_has_ended_when_its_call_has() {
    ends_with_its_lease(Signal::KILL);
}

/// A stopped guardian can do nothing, so the kernel kills it.
#[test]
fn a_worker_whose_guardian_is_stopped_has_ended_when_its_call_has() {
    ends_with_its_lease(Signal::STOP);
}

#[test]
fn a_signal_of_the_engine_ends_the_worker_and_the_error_says_so() {
    staged(config(), |workers| async move {
        for (signal, name) in [
            (Signal::TERM, "SIGTERM"),
            (Signal::INT, "SIGINT"),
            (Signal::HUP, "SIGHUP"),
        ] {
            let error = fails_without_guardian(&workers, signal).await;
            assert!(
                error.contains(&format!("its engine sent {name}")),
                "{error}"
            );
        }
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    });
}

/// As when the network loses the connection, and the launching program with it.
#[test]
fn a_worker_whose_launching_program_is_killed_has_ended_when_its_call_has() {
    // The shell stays between this process and the guardian, and passes nothing on when it is
    // killed.
    let launcher = script(r#"cat | "$@" | cat"#);
    staged(
        WorkerConfig::new().launcher(launcher),
        |workers| async move {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            let call = fails(workers.run_sync(crate::common::endless, ()));
            let killed = async {
                yield_now().await;
                for cat in children().into_iter().flat_map(crate::common::children_of) {
                    if crate::common::name_of(cat) == "cat" {
                        let cat = Pid::from_raw(cat.cast_signed()).unwrap();
                        kill_process(cat, Signal::KILL).unwrap();
                    }
                }
                std::future::pending().await
            };
            let error = or(call, killed).await;
            assert!(!is_alive(worker));
            assert!(error.contains("the connection to it was lost"), "{error}");
        },
    );
}

#[test]
fn a_cancelled_call_kills_its_worker_and_returns_after_its_end() {
    staged(config(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let scope = seedbed::CancelScope::new();
        let call = workers
            .run_sync(crate::common::endless, ())
            .kill_on_cancel(true);
        let cancelled = async {
            yield_now().await;
            scope.cancel();
        };
        let both = async { smol::future::zip(scope.run(call.into_future()), cancelled).await };
        assert!(both.await.0.is_none());
        assert!(!is_alive(worker));
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    });
}

#[test]
fn a_call_may_be_dropped_at_every_poll() {
    staged(config(), |workers| async move {
        for polls in 0..40 {
            let call = workers
                .run_sync(i32::abs, -3)
                .kill_on_cancel(polls % 2 == 0);
            crate::common::poll_with_yields(call.into_future(), polls).await;
        }
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    });
}

/// A worker that was made for a call which is dropped before it looks once lived on.
#[test]
fn a_call_that_is_dropped_when_its_worker_has_just_come_up_leaves_no_worker() {
    test(within(async {
        for wait in [0, 1, 5, 20, 60] {
            with_workers(config(), |workers| async move {
                let call = workers.run_sync(pid, ()).kill_on_cancel(true);
                let mut call = Box::pin(call.into_future());
                assert!(poll_once(&mut call).await.is_none());
                while !has_worker() {
                    yield_now().await;
                }
                // The answer is on its way. Any wait is right; some of them hit the moment.
                std::thread::sleep(Duration::from_millis(wait));
                drop(call);
            })
            .await;
        }
    }));
}

#[test]
fn with_kill_tree_the_processes_of_a_job_end_with_its_worker() {
    fn with_child(_: ()) -> u32 {
        Command::new("setsid")
            .args(["sleep", "1000"])
            .spawn()
            .unwrap()
            .id()
    }
    staged(config().kill_tree(true), |workers| async move {
        let child = workers.run_sync(with_child, ()).await.unwrap();
        let call = workers
            .run_sync(crate::common::endless, ())
            .time_limit(Duration::from_millis(20));
        call.await.unwrap_err();
        wait_until_gone(child);
    });
}

#[test]
fn captured_standard_error_is_in_the_error() {
    fn complain(_: ()) {
        eprintln!("no more paint");
        std::process::abort()
    }
    staged(config().capture_stderr(true), |workers| async move {
        let error = workers.run_sync(complain, ()).await.unwrap_err();
        assert!(error.to_string().contains("no more paint"), "{error}");
    });
}

/// Appends a line to a file, then ends in the way that the number says, or returns.
fn record_and_end((path, call, way): (PathBuf, u32, u32)) -> u32 {
    let line = format!("{call}\n");
    let mut file = fs::File::options()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(line.as_bytes()).unwrap();
    match way {
        0 => abort(()),
        1 => signal_guardian(Signal::TERM.as_raw()),
        2 => signal_guardian(Signal::KILL.as_raw()),
        _ => {}
    }
    call
}

#[test]
fn with_kills_at_random_each_job_runs_once_and_a_killed_one_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs");
    staged(config(), |workers| async move {
        let mut random = fastrand::Rng::with_seed(7);
        let mut calls: Vec<(u32, u32)> = (0..60).map(|call| (call, random.u32(1..100))).collect();
        for (_, way) in &mut calls {
            *way = match *way {
                1..=9 => 0,
                10..=19 => 1,
                20..=21 => 2,
                _ => 3,
            };
        }
        for both in calls.chunks(2) {
            let results = both.iter().map(|&(call, way)| {
                let workers = workers.clone();
                let path = path.clone();
                smol::spawn(async move {
                    (
                        call,
                        way,
                        workers.run_sync(record_and_end, (path, call, way)).await,
                    )
                })
            });
            for result in results.collect::<Vec<_>>() {
                let (call, way, result) = result.await;
                match result {
                    Ok(value) => assert_eq!((value, way), (call, 3)),
                    Err(error) => assert!(way < 3, "{error}"),
                }
            }
        }
        let runs = fs::read_to_string(&path).unwrap();
        let distinct: BTreeSet<&str> = runs.lines().collect();
        assert_eq!((runs.lines().count(), distinct.len()), (60, 60));
    });
}

/// Not a test of its own: the program that the tests below signal.
#[test]
#[ignore = "the tests below run it in a process of its own"]
fn program_with_a_job() {
    seedbed::init();
    smol::block_on(seedbed::open_worker_context(
        config(),
        |workers| async move {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            let guardian = workers.run_sync(guardian, ()).await.unwrap();
            println!("\npids {worker} {guardian}");
            workers.run_sync(crate::common::endless, ()).await
        },
    ))
    .unwrap();
}

/// Runs that program, sends it a signal, and waits until its worker and its guardian have ended.
fn nothing_is_left_after(signal: Signal) {
    let _alone = crate::common::alone();
    let mut program = Command::new("/proc/self/exe");
    program.args([
        "--exact",
        "ends::program_with_a_job",
        "--ignored",
        "--nocapture",
    ]);
    let mut program = program.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let pids = lines.map(Result::unwrap).find_map(|line| {
        let pids = line.strip_prefix("pids ")?.split(' ');
        Some(pids.map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
    });
    kill_process(Pid::from_child(&program), signal).unwrap();
    pids.unwrap().into_iter().for_each(wait_until_gone);
    program.kill().unwrap(); // does nothing if it was killed before
    program.wait().unwrap();
}

#[test]
fn nothing_is_left_of_a_program_that_is_killed() {
    nothing_is_left_after(Signal::KILL);
}

#[test]
fn the_workers_of_a_program_that_is_stopped_end_with_their_leases() {
    nothing_is_left_after(Signal::STOP);
}

#[test]
fn a_call_works_after_one_that_was_dropped_when_its_worker_came_up() {
    staged(config(), |workers| async move {
        let mut call = Box::pin(
            workers
                .run_sync(crate::common::endless, ())
                .kill_on_cancel(true)
                .into_future(),
        );
        while workers.statistics().living == 0 {
            assert!(poll_once(&mut call).await.is_none());
            yield_now().await;
        }
        drop(call);
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    });
}
