//! The working directory, environment and inherited descriptors of workers.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::future::IntoFuture;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::common::refusals::{assert_start_error, os_error, refused};
use crate::common::{test, with_workers};
use rustix::io::{FdFlags, fcntl_setfd};
use seedbed::WorkerConfig;

fn config() -> WorkerConfig {
    WorkerConfig::new().capture_stderr(true)
}
static SEEN: OnceLock<(PathBuf, Option<OsString>)> = OnceLock::new();

fn see() {
    SEEN.get_or_init(surroundings);
}

fn surroundings() -> (PathBuf, Option<OsString>) {
    (
        std::env::current_dir().unwrap(),
        std::env::var_os("SEEDBED_TEST"),
    )
}

fn workers_have_the_directory_and_the_environment_that_they_are_given_from_preload_on() {
    fn look(_: ()) -> Vec<(PathBuf, Option<OsString>)> {
        vec![SEEN.get().unwrap().clone(), surroundings()]
    }
    test(async {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let config = config().current_dir(&folder).env("SEEDBED_TEST", "given");
        let config = config.retire_after(1);
        for config in [config.clone().preload(see), config.init(see)] {
            let expected = (folder.clone(), Some(OsString::from("given")));
            with_workers(config, |workers| async move {
                for _ in 0..2 {
                    let seen = workers.run_sync(look, ()).await.unwrap();
                    assert_eq!(seen, [expected.clone(), expected.clone()]);
                }
            })
            .await;
        }
        assert_ne!(std::env::current_dir().unwrap(), folder);
        assert_eq!(std::env::var_os("SEEDBED_TEST"), None);
    });
}

fn a_missing_directory_is_a_start_error_with_the_kernels_reason() {
    test(async {
        let error = refused(config().current_dir("/no/such/place")).await;
        assert_start_error(&error, r#"current_dir("/no/such/place")"#);
        assert_eq!(os_error(&error), Some(libc::ENOENT));
        let error = refused(config().current_dir("/dev/null")).await;
        assert_eq!(os_error(&error), Some(libc::ENOTDIR));
        let name = OsStr::from_bytes(b"/no/\xff");
        let error = refused(config().current_dir(name)).await;
        assert_start_error(&error, r#"current_dir("/no/\xFF")"#);
    });
}

fn environment_variables_can_be_set_removed_and_cleared() {
    fn names(_: ()) -> Vec<Vec<u8>> {
        let mut names: Vec<_> = std::env::vars_os()
            .map(|(name, _)| name.into_vec())
            .collect();
        names.sort();
        names
    }
    fn value(name: String) -> Option<Vec<u8>> {
        std::env::var_os(name).map(OsString::into_vec)
    }
    test(async {
        let odd = OsStr::from_bytes(b"\xff=\xfe");
        let set = config()
            .env("A", "1")
            .env("A", odd)
            .env("B", "")
            .env_remove("PATH");
        with_workers(set, |workers| async move {
            let value = |name: &str| workers.run_sync(value, name.to_owned()).into_future();
            assert_eq!(
                value("A").await.unwrap().as_deref(),
                Some(&b"\xff=\xfe"[..])
            );
            assert_eq!(value("B").await.unwrap().as_deref(), Some(&b""[..]));
            assert_eq!(value("PATH").await.unwrap(), None);
            assert!(value("CARGO_MANIFEST_DIR").await.is_ok());
        })
        .await;
        let cleared = config().env("A", "1").env_clear().env("B", "2");
        with_workers(cleared, |workers| async move {
            let names = workers.run_sync(names, ()).await.unwrap();
            assert_eq!(names, [b"B".to_vec()]);
        })
        .await;
    });
}

/// Such descriptors once stayed open in workers without a way to close them: a pipe did not end,
/// and a file stayed locked.
fn descriptors_that_would_be_inherited_can_be_closed() {
    fn has_open(path: PathBuf) -> bool {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut targets = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.any(|target| target == path)
    }
    test(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("file");
        let file = File::create(&path).unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        for (close, preload) in [(false, false), (true, false), (true, true)] {
            let mut config = config().close_inherited_descriptors(close);
            if preload {
                config = config.preload(see);
            }
            let path = path.clone();
            with_workers(config, |workers| async move {
                for _ in 0..2 {
                    let found = workers.run_sync(has_open, path.clone()).await;
                    assert_eq!(found.unwrap(), !close);
                }
                workers.shutdown().await.unwrap();
            })
            .await;
        }
        drop(file);
    });
}

suite! {
    descriptors_that_would_be_inherited_can_be_closed,
    workers_have_the_directory_and_the_environment_that_they_are_given_from_preload_on,
    a_missing_directory_is_a_start_error_with_the_kernels_reason,
    environment_variables_can_be_set_removed_and_cleared,
}
