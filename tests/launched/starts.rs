//! Launchers that start no worker, or not at once.

use std::fs;
use std::future::IntoFuture;
use std::io::Write;
use std::time::Duration;

use seedbed::WorkerConfig;
use seedbed::worker::{Launcher, WorkerErrorKind, WorkerType};
use smol::future::yield_now;

use crate::common::stage::{staged, within};
use crate::common::{children, pid, test, with_workers};
use crate::*;

#[test]
fn what_is_printed_before_the_hook_is_passed_over() {
    let launcher = script(r#"echo "Welcome to n1"; head -c 70000 /dev/urandom; exec "$@""#);
    staged(
        WorkerConfig::new().launcher(launcher),
        |workers| async move {
            assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
        },
    );
}

#[test]
fn a_launcher_that_starts_no_worker_is_an_error_with_what_it_said() {
    test(within(async {
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
    }));
}

#[test]
fn another_build_is_an_error_that_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other build");
    fs::copy("/proc/self/exe", &other).unwrap();
    let append = fs::File::options().append(true).open(&other);
    append.unwrap().write_all(b"one byte more").unwrap();
    let launcher = here().executable(&other);
    staged(
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
    );
}

#[test]
fn a_copy_of_the_program_under_another_path_is_the_same_build() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("a copy");
    fs::copy("/proc/self/exe", &copy).unwrap();
    let launcher = here().executable(&copy);
    staged(
        WorkerConfig::new().launcher(launcher),
        |workers| async move {
            let executed = |()| fs::read_link("/proc/self/exe").unwrap();
            assert_eq!(workers.run_sync(executed, ()).await.unwrap(), copy);
        },
    );
}

#[test]
fn a_launcher_that_never_comes_up_is_given_up_after_the_start_timeout() {
    let launcher = script("exec sleep 1000");
    let config = WorkerConfig::new()
        .launcher(launcher)
        .start_timeout(Duration::from_millis(50));
    staged(config, |workers| async move {
        let error = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        assert!(error.to_string().contains("with_queue"), "{error}");
    });
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
    staged(config, |workers| async move {
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
    });
}

#[test]
fn a_call_that_is_cancelled_in_a_queue_leaves_it() {
    staged(
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
    );
}

#[test]
fn a_fork_server_cannot_be_combined_with_a_launcher() {
    test(within(async {
        let config = config().worker_type(WorkerType::ForkServer);
        let refused = seedbed::open_worker_context(config, |workers| async move {
            workers.run_sync(pid, ()).await.unwrap_err()
        });
        let error = refused.await;
        assert_eq!(error.kind(), WorkerErrorKind::Config);
        assert!(error.to_string().contains("WorkerType::Auto"), "{error}");
    }));
}
