//! Workers that a launcher starts, here on the same machine: through `env`, `sh` and the like.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::future::IntoFuture;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{children, is_alive, pid, test, wait_until_gone, with_workers};
use rustix::process::{Pid, Signal, getppid, kill_process};
use seedbed::worker::{
    Descriptor, Launcher, SharedBytes, WorkerErrorKind, WorkerType, check_cancelled,
};
use seedbed::{WorkerConfig, WorkerContext, WorkerError};
use smol::future::{or, poll_once, yield_now};

/// A launcher that starts workers on this machine. Its lease is as short as can be.
fn here() -> Launcher {
    Launcher::command(["env"]).lease(Duration::from_secs(1))
}

fn config() -> WorkerConfig {
    WorkerConfig::new().launcher(here())
}

/// A launcher that runs a shell script, in which `"$@"` is the command that starts the worker.
fn script(script: &str) -> Launcher {
    Launcher::command(["sh", "-c", script, "sh"]).lease(Duration::from_secs(1))
}

fn guardian(_: ()) -> i32 {
    getppid().unwrap().as_raw_nonzero().get()
}

/// Sends a signal to the guardian, and waits for the end.
fn signal_guardian(signal: i32) {
    let signal = Signal::from_named_raw(signal).unwrap();
    kill_process(getppid().unwrap(), signal).unwrap();
    common::endless(());
}

fn abort(_: ()) {
    std::process::abort()
}

async fn fails<T: std::fmt::Debug>(
    call: impl IntoFuture<Output = Result<T, WorkerError>>,
) -> String {
    call.into_future().await.unwrap_err().to_string()
}

#[test]
fn a_launched_worker_is_kept_for_the_next_call_and_ends_with_its_context() {
    let (worker, guardian) = test(with_workers(config(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        for _ in 0..20 {
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        }
        let guardian = workers.run_sync(guardian, ()).await.unwrap();
        assert_eq!(workers.statistics().started, 1);
        (worker, guardian)
    }));
    assert!(!is_alive(worker), "the context has waited for it");
    wait_until_gone(guardian.cast_unsigned());
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Blob(#[serde(with = "serde_bytes_like")] Vec<u8>);

/// Encodes bytes in one piece, as `serde_bytes` does: piece by piece takes long in a test build.
mod serde_bytes_like {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[test]
fn values_of_every_size_go_there_and_back() {
    test(with_workers(config(), |workers| async move {
        for length in [
            0,
            1,
            1000,
            32 * 1024 - 1,
            128 * 1024,
            128 * 1024 + 1,
            1 << 20,
            9_999_999,
        ] {
            let bytes: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let Blob(back) = workers
                .run_sync(|blob: Blob| blob, Blob(bytes.clone()))
                .await
                .unwrap();
            assert!(back == bytes, "{length} bytes");
        }
    }));
}

#[test]
fn shared_memory_is_copied_in_both_directions() {
    test(with_workers(config(), |workers| async move {
        let sealed = |bytes: &[u8]| {
            let mut writer = SharedBytes::writer().unwrap();
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        };
        let bytes: Vec<u8> = (0..300_000).map(|n| (n / 7) as u8).collect();
        let both = (
            sealed(&bytes),
            SharedBytes::from(bytes.clone()),
            sealed(b"few"),
        );
        let swap = |(a, b, c): (SharedBytes, SharedBytes, SharedBytes)| (c, b, a);
        let (few, owned, many) = workers.run_sync(swap, both).await.unwrap();
        assert_eq!(&*few, b"few");
        assert!(*owned == bytes && *many == bytes);
    }));
}

#[test]
fn a_descriptor_is_refused_in_an_argument_and_in_a_result_and_the_worker_goes_on() {
    test(with_workers(config(), |workers| async move {
        let file = || Descriptor::from(fs::File::open("/proc/self/comm").unwrap());
        let error = workers
            .run_sync(|_: Descriptor<fs::File>| (), file())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::EncodeArgument);
        assert!(
            error.to_string().contains("cannot leave this machine"),
            "{error}"
        );
        let open = |()| Descriptor::from(fs::File::open("/proc/self/comm").unwrap());
        let error = workers.run_sync(open, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::EncodeResult);
        assert!(
            error.to_string().contains("cannot leave the machine"),
            "{error}"
        );
        let (sender, _receiver) = seedbed::worker::channel::<u32>(1).unwrap();
        let error = workers
            .run_sync(|_: seedbed::worker::Sender<u32>| (), sender)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::EncodeArgument);
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
        assert_eq!(workers.statistics().started, 1);
    }));
}

#[test]
fn a_crash_is_an_error_that_names_the_host_and_the_next_call_has_another_worker() {
    test(with_workers(config(), |workers| async move {
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
    }));
}

#[test]
fn a_panic_is_an_error_and_the_worker_goes_on() {
    test(with_workers(config(), |workers| async move {
        let error = workers
            .run_sync(|()| -> () { panic!("no paint") }, ())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Panicked);
        assert!(error.to_string().contains("no paint"), "{error}");
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
        assert_eq!(workers.statistics().started, 1);
    }));
}

/// Lets a job lose its guardian in some way. Checks that its worker has ended when its call has.
async fn assert_ends_without_guardian(workers: &WorkerContext, signal: Signal) -> String {
    let worker = workers.run_sync(pid, ()).await.unwrap();
    let error = fails(workers.run_sync(signal_guardian, signal.as_raw())).await;
    assert!(!is_alive(worker), "{error}");
    error
}

#[test]
fn a_worker_whose_guardian_is_killed_has_ended_when_its_call_has() {
    test(with_workers(config(), |workers| async move {
        let error = assert_ends_without_guardian(&workers, Signal::KILL).await;
        assert!(error.contains("the connection to it was lost"), "{error}");
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    }));
}

/// A stopped guardian can do nothing, so the kernel kills it.
#[test]
fn a_worker_whose_guardian_is_stopped_has_ended_when_its_call_has() {
    test(with_workers(config(), |workers| async move {
        let error = assert_ends_without_guardian(&workers, Signal::STOP).await;
        assert!(error.contains("its lease is over"), "{error}");
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    }));
}

#[test]
fn a_signal_of_the_engine_ends_the_worker_and_the_error_says_so() {
    test(with_workers(config(), |workers| async move {
        for (signal, name) in [
            (Signal::TERM, "SIGTERM"),
            (Signal::INT, "SIGINT"),
            (Signal::HUP, "SIGHUP"),
        ] {
            let error = assert_ends_without_guardian(&workers, signal).await;
            assert!(
                error.contains(&format!("its engine sent {name}")),
                "{error}"
            );
        }
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    }));
}

/// As when the network loses the connection, and the launching program with it.
#[test]
fn a_worker_whose_launching_program_is_killed_has_ended_when_its_call_has() {
    // The shell stays between this process and the guardian, and passes nothing on when it is
    // killed.
    let launcher = script(r#"cat | "$@" | cat"#);
    test(with_workers(
        WorkerConfig::new().launcher(launcher),
        |workers| async move {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            let call = fails(workers.run_sync(common::endless, ()));
            let killed = async {
                yield_now().await;
                for cat in children().into_iter().flat_map(common::children_of) {
                    if common::name_of(cat) == "cat" {
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
    ));
}

#[test]
fn a_cancelled_call_kills_its_worker_and_returns_after_its_end() {
    test(with_workers(config(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let scope = seedbed::CancelScope::new();
        let call = workers.run_sync(common::endless, ()).kill_on_cancel(true);
        let cancelled = async {
            yield_now().await;
            scope.cancel();
        };
        let both = async { smol::future::zip(scope.run(call.into_future()), cancelled).await };
        assert!(both.await.0.is_none());
        assert!(!is_alive(worker));
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    }));
}

#[test]
fn a_time_limit_ends_a_job_and_a_request_to_end_is_heard() {
    test(with_workers(config(), |workers| async move {
        let limit = Duration::from_millis(20);
        let call = workers.run_sync(common::endless, ()).time_limit(limit);
        assert_eq!(call.await.unwrap_err().kind(), WorkerErrorKind::TimedOut);
        let polite = |()| {
            while check_cancelled().is_ok() {
                std::thread::yield_now();
            }
        };
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let scope = seedbed::CancelScope::new();
        let call = workers
            .run_sync(polite, ())
            .kill_after(Duration::from_secs(1000));
        let asked = async {
            yield_now().await;
            scope.cancel();
        };
        smol::future::zip(scope.run(call.into_future()), asked).await;
        assert_eq!(
            workers.run_sync(pid, ()).await.unwrap(),
            worker,
            "it has heeded, and lives"
        );
    }));
}

#[test]
fn a_call_may_be_dropped_at_every_poll() {
    test(with_workers(config(), |workers| async move {
        for polls in 0..40 {
            let call = workers
                .run_sync(i32::abs, -3)
                .kill_on_cancel(polls % 2 == 0);
            common::poll_with_yields(call.into_future(), polls).await;
        }
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    }));
}

/// Returns whether a guardian has started a worker.
fn has_worker() -> bool {
    let mut guardians = children().into_iter();
    guardians.any(|guardian| !common::children_of(guardian).is_empty())
}

/// A worker that was made for a call which is dropped before it looks once lived on.
#[test]
fn a_call_that_is_dropped_when_its_worker_has_just_come_up_leaves_no_worker() {
    test(async {
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
    });
}

/// The guardian of a worker that had retired once gave up the result, when the lease was over.
#[test]
fn a_result_that_takes_longer_than_the_lease_on_its_way_arrives_also_from_a_retired_worker() {
    let folder = tempfile::tempdir().unwrap();
    let slow_link = format!(
        r#""$@" | while dd bs=65536 count=1 of={0} status=none && [ -s {0} ]; do cat {0}; sleep 0.05; done"#,
        folder.path().join("piece").display()
    );
    let large = |length: usize| Blob(vec![7; length]);
    let config = WorkerConfig::new()
        .launcher(script(&slow_link))
        .single_use();
    test(with_workers(config, |workers| async move {
        let Blob(result) = workers.run_sync(large, 4 << 20).await.unwrap();
        assert_eq!(result.len(), 4 << 20);
    }));
}

#[test]
fn what_is_printed_before_the_hook_is_passed_over() {
    let launcher = script(r#"echo "Welcome to n1"; head -c 70000 /dev/urandom; exec "$@""#);
    test(with_workers(
        WorkerConfig::new().launcher(launcher),
        |workers| async move {
            assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
        },
    ));
}

#[test]
fn a_launcher_that_starts_no_worker_is_an_error_with_what_it_said() {
    test(async {
        let says = async |launcher: Launcher, wanted: &[&str]| {
            let config = WorkerConfig::new().launcher(launcher);
            let error = with_workers(config, |workers| async move {
                workers.run_sync(pid, ()).await.unwrap_err()
            });
            let error = error.await;
            assert_eq!(error.kind(), WorkerErrorKind::Start, "{error}");
            for wanted in wanted {
                assert!(error.to_string().contains(wanted), "{error}");
            }
        };
        says(
            Launcher::command(["/no/such/launcher"]),
            &["/no/such/launcher", "No such file"],
        )
        .await;
        says(
            script("echo Permission denied; exit 3"),
            &["status 3", "Permission denied", "standard error"],
        )
        .await;
        says(script("exit 255"), &["status 255", "no connection"]).await;
        says(
            here().executable("/no/such/program"),
            &["status 127", "Launcher::executable"],
        )
        .await;
        says(script("kill -9 $$"), &["signal 9"]).await;
        says(here().executable("/bin/true"), &["status 0", "hook"]).await;
        says(
            here().directory("/no/such/directory"),
            &["ended with status"],
        )
        .await;
    });
}

#[test]
fn another_build_is_an_error_that_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other build");
    fs::copy("/proc/self/exe", &other).unwrap();
    let append = fs::File::options().append(true).open(&other);
    append.unwrap().write_all(b"one byte more").unwrap();
    let launcher = here().executable(&other);
    test(with_workers(
        WorkerConfig::new().launcher(launcher),
        |workers| async move {
            let error = workers.run_sync(pid, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::ImageMismatch);
            let ours = fs::read_link("/proc/self/exe").unwrap();
            for path in [&other, &ours] {
                assert!(
                    error.to_string().contains(path.to_str().unwrap()),
                    "{error}"
                );
            }
        },
    ));
}

#[test]
fn a_copy_of_the_program_under_another_path_is_the_same_build() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("a copy");
    fs::copy("/proc/self/exe", &copy).unwrap();
    let launcher = here().executable(&copy);
    test(with_workers(
        WorkerConfig::new().launcher(launcher),
        |workers| async move {
            let executed = |()| fs::read_link("/proc/self/exe").unwrap();
            assert_eq!(workers.run_sync(executed, ()).await.unwrap(), copy);
        },
    ));
}

#[test]
fn a_launcher_that_never_comes_up_is_given_up_after_the_start_timeout() {
    let launcher = script("exec sleep 1000");
    let config = WorkerConfig::new()
        .launcher(launcher)
        .start_timeout(Duration::from_millis(50));
    test(with_workers(config, |workers| async move {
        let error = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        assert!(error.to_string().contains("with_queue"), "{error}");
    }));
}

#[test]
fn a_launcher_with_a_queue_may_take_longer_than_the_start_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let (waits, turn) = (folder.path().join("waits"), folder.path().join("turn"));
    let wait = format!(
        r#": > {}; while [ ! -e {} ]; do sleep 0.01; done; exec "$@""#,
        waits.display(),
        turn.display()
    );
    let config = WorkerConfig::new()
        .launcher(script(&wait).with_queue())
        .start_timeout(Duration::from_secs(2));
    test(with_workers(config, |workers| async move {
        let turn_comes = async {
            while !waits.exists() {
                yield_now().await;
            }
            // A call that is cancelled in the queue leaves it.
            fs::write(turn, "").unwrap();
        };
        let call = workers.run_sync(i32::abs, -3);
        let (value, ()) = smol::future::zip(call.into_future(), turn_comes).await;
        assert_eq!(value.unwrap(), 3);
    }));
}

#[test]
fn a_call_that_is_cancelled_in_a_queue_leaves_it() {
    test(with_workers(
        WorkerConfig::new().launcher(script("exec sleep 1000").with_queue()),
        |workers| async move {
            let scope = seedbed::CancelScope::new();
            let call = workers.run_sync(pid, ()).kill_on_cancel(true);
            let cancelled = async {
                while children().is_empty() {
                    yield_now().await;
                }
                scope.cancel();
            };
            let (value, ()) = smol::future::zip(scope.run(call.into_future()), cancelled).await;
            assert!(value.is_none());
            assert_eq!(workers.statistics().living, 0);
        },
    ));
}

#[test]
fn a_launched_worker_has_the_environment_the_directory_and_the_name_of_its_context() {
    let folder = tempfile::tempdir().unwrap();
    let there = fs::canonicalize(folder.path()).unwrap();
    let config = config()
        .name("far")
        .env("COLOUR", "it's green")
        .env_remove("PATH")
        .current_dir(&there);
    test(with_workers(config, |workers| async move {
        let variable = |name: String| std::env::var(name).ok();
        let variable =
            async |name: &str| workers.run_sync(variable, name.to_owned()).await.unwrap();
        assert_eq!(variable("COLOUR").await.as_deref(), Some("it's green"));
        assert_eq!(variable("PATH").await, None);
        assert_eq!(variable("SEEDBED_GUARDIAN").await, None);
        assert_eq!(variable("SEEDBED_WORKER").await, None);
        let directory = |()| -> PathBuf { std::env::current_dir().unwrap() };
        assert_eq!(workers.run_sync(directory, ()).await.unwrap(), there);
        let name = |()| common::name_of(std::process::id());
        assert_eq!(workers.run_sync(name, ()).await.unwrap(), "far-worker");
        let input = |()| std::io::read_to_string(std::io::stdin()).unwrap();
        assert_eq!(workers.run_sync(input, ()).await.unwrap(), "");
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
    test(with_workers(
        config().kill_tree(true),
        |workers| async move {
            let child = workers.run_sync(with_child, ()).await.unwrap();
            let call = workers
                .run_sync(common::endless, ())
                .time_limit(Duration::from_millis(20));
            call.await.unwrap_err();
            wait_until_gone(child);
        },
    ));
}

#[test]
fn captured_standard_error_is_in_the_error() {
    fn complain(_: ()) {
        eprintln!("no more paint");
        std::process::abort()
    }
    test(with_workers(
        config().capture_stderr(true),
        |workers| async move {
            let error = workers.run_sync(complain, ()).await.unwrap_err();
            assert!(error.to_string().contains("no more paint"), "{error}");
        },
    ));
}

#[test]
fn maps_async_jobs_and_workers_started_ahead_use_launched_workers_too() {
    test(with_workers(config(), |workers| async move {
        workers.prestart(2).await.unwrap();
        assert_eq!(workers.statistics().idle_workers, 2);
        let results: Vec<_> = workers.map_sync(i32::abs, -50..0).collect().await;
        let results: Vec<i32> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, (1..=50).rev().collect::<Vec<_>>());
        async fn has_deadline(_: ()) -> bool {
            seedbed::cancel::current_effective_deadline().is_some()
        }
        let limit = Duration::from_secs(1000);
        let seen = seedbed::fail_after(limit, workers.run_async(has_deadline, ()).into_future());
        assert!(seen.await.unwrap().unwrap());
    }));
}

#[test]
fn a_fork_server_cannot_be_combined_with_a_launcher() {
    test(async {
        let config = config().worker_type(WorkerType::ForkServer);
        let refused = seedbed::open_worker_context(config, |workers| async move {
            workers.run_sync(pid, ()).await.unwrap_err()
        });
        let error = refused.await;
        assert_eq!(error.kind(), WorkerErrorKind::Config);
        assert!(error.to_string().contains("WorkerType::Auto"), "{error}");
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
    test(with_workers(config(), |workers| async move {
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
    }));
}

/// Not a test of its own: the program that the next test kills.
#[test]
#[ignore = "the next test runs it in a process of its own"]
fn program_that_is_killed() {
    seedbed::init();
    smol::block_on(seedbed::open_worker_context(
        config(),
        |workers| async move {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            let guardian = workers.run_sync(guardian, ()).await.unwrap();
            println!("\npids {worker} {guardian}");
            workers.run_sync(common::endless, ()).await
        },
    ))
    .unwrap();
}

#[test]
fn nothing_is_left_of_a_program_that_is_killed() {
    let _alone = common::alone();
    let mut program = Command::new("/proc/self/exe");
    program.args([
        "--exact",
        "program_that_is_killed",
        "--ignored",
        "--nocapture",
    ]);
    let mut program = program.stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufReader::new(program.stdout.take().unwrap());
    let pids = std::io::BufRead::lines(lines).find_map(|line| {
        let line = line.unwrap();
        let pids = line.strip_prefix("pids ")?;
        Some(
            pids.split(' ')
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<u32>>(),
        )
    });
    assert!(program.try_wait().unwrap().is_none());
    program.kill().unwrap();
    program.wait().unwrap();
    pids.unwrap().into_iter().for_each(wait_until_gone);
}

#[test]
fn a_call_that_waits_tells_nothing_wrong_of_its_worker() {
    test(with_workers(config(), |workers| async move {
        let mut call = Box::pin(
            workers
                .run_sync(common::endless, ())
                .kill_on_cancel(true)
                .into_future(),
        );
        while workers.statistics().living == 0 {
            assert!(poll_once(&mut call).await.is_none());
            yield_now().await;
        }
        drop(call);
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    }));
}
