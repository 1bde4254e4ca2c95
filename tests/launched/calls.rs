//! Calls of launched workers: values, settings, and the other kinds of calls.

use std::fs;
use std::future::IntoFuture;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use seedbed::WorkerConfig;
use seedbed::worker::{Descriptor, SharedBytes, WorkerErrorKind, check_cancelled};
use smol::future::yield_now;

use crate::common::stage::{staged, within};
use crate::common::{is_alive, pid, test, wait_until_gone, with_workers};
use crate::*;

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
fn a_launched_worker_is_kept_for_the_next_call_and_ends_with_its_context() {
    let (worker, guardian) = test(within(with_workers(config(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        for _ in 0..20 {
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        }
        let guardian = workers.run_sync(guardian, ()).await.unwrap();
        assert_eq!(workers.statistics().started, 1);
        (worker, guardian)
    })));
    assert!(!is_alive(worker), "the context has waited for it");
    wait_until_gone(guardian.cast_unsigned());
}

#[test]
fn values_of_every_size_go_there_and_back() {
    staged(config(), |workers| async move {
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
    });
}

#[test]
fn shared_memory_is_copied_in_both_directions() {
    staged(config(), |workers| async move {
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
    });
}

#[test]
fn a_descriptor_is_refused_in_an_argument_and_in_a_result_and_the_worker_goes_on() {
    staged(config(), |workers| async move {
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
    });
}

#[test]
fn a_panic_is_an_error_and_the_worker_goes_on() {
    staged(config(), |workers| async move {
        let error = workers
            .run_sync(|()| -> () { panic!("no paint") }, ())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Panicked);
        assert!(error.to_string().contains("no paint"), "{error}");
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
        assert_eq!(workers.statistics().started, 1);
    });
}

#[test]
fn a_time_limit_ends_a_job_and_a_request_to_end_is_heard() {
    staged(config(), |workers| async move {
        let limit = Duration::from_millis(20);
        let call = workers
            .run_sync(crate::common::endless, ())
            .time_limit(limit);
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
    staged(config, |workers| async move {
        let Blob(result) = workers.run_sync(large, 4 << 20).await.unwrap();
        assert_eq!(result.len(), 4 << 20);
    });
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
    staged(config, |workers| async move {
        let variable = |name: String| std::env::var(name).ok();
        let variable =
            async |name: &str| workers.run_sync(variable, name.to_owned()).await.unwrap();
        assert_eq!(variable("COLOUR").await.as_deref(), Some("it's green"));
        assert_eq!(variable("PATH").await, None);
        assert_eq!(variable("SEEDBED_GUARDIAN").await, None);
        assert_eq!(variable("SEEDBED_WORKER").await, None);
        let directory = |()| -> PathBuf { std::env::current_dir().unwrap() };
        assert_eq!(workers.run_sync(directory, ()).await.unwrap(), there);
        let name = |()| crate::common::name_of(std::process::id());
        assert_eq!(workers.run_sync(name, ()).await.unwrap(), "far-worker");
        let input = |()| std::io::read_to_string(std::io::stdin()).unwrap();
        assert_eq!(workers.run_sync(input, ()).await.unwrap(), "");
    });
}

#[test]
fn maps_async_jobs_and_workers_started_ahead_use_launched_workers_too() {
    staged(config(), |workers| async move {
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
    });
}
