//! Calls that succeed or fail without harm, and the environment that a job finds in its worker.

use std::io::{Read, Write};
use std::panic::panic_any;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common;
use crate::common::{pid, test, with_workers};
use seedbed::nursery::task_tree;
use seedbed::worker::{WorkerErrorKind, WorkerType};
use seedbed::{CapacityLimiter, WorkerConfig, checkpoint, open_nursery, run_sync};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn double(n: u64) -> u64 {
    2 * n
}

fn a_value_comes_back_from_another_process() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert_eq!(workers.run_sync(double, 21).await.unwrap(), 42);
        assert_ne!(workers.run_sync(pid, ()).await.unwrap(), std::process::id());
    }));
}

fn a_closure_without_captures_works_like_a_function() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let sum = workers.run_sync(|(a, b): (i8, i8)| a + b, (3, -5)).await;
        assert_eq!(sum.unwrap(), -2);
    }));
}

fn calls_run_in_parallel_in_workers_of_their_own() {
    fn meet((folder, me, other): (std::path::PathBuf, String, String)) -> u32 {
        std::fs::write(folder.join(me), "").unwrap();
        while !folder.join(&other).exists() {
            std::thread::yield_now();
        }
        std::process::id()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let limiter = CapacityLimiter::new(2);
        let meeting = |me: &str, other: &str| {
            let argument = (folder.path().to_owned(), me.to_owned(), other.to_owned());
            workers
                .run_sync(meet, argument)
                .limiter(&limiter)
                .into_future()
        };
        let (one, two) = smol::future::zip(meeting("a", "b"), meeting("b", "a")).await;
        assert_ne!(one.unwrap(), two.unwrap());
        assert_eq!(workers.statistics().idle_workers, 2);
    }));
}

fn a_call_can_be_awaited_on_any_executor_and_thread() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let here = workers.clone();
        let spawned = smol::spawn(async move { here.run_sync(double, 1).await.unwrap() });
        assert_eq!(spawned.await, 2);
        let thread = std::thread::spawn(move || {
            // An executor without smol's reactor.
            futures_lite::future::block_on(
                async move { workers.run_sync(double, 2).await.unwrap() },
            )
        });
        assert_eq!(smol::unblock(|| thread.join().unwrap()).await, 4);
    }));
}

/// Regression: fork servers started on smol's global executor, which has one thread. A task there
/// that blocked on its first call waited for itself.
fn a_task_that_blocks_smols_executor_has_its_call_answered() {
    test(async {
        let blocking = smol::spawn(async {
            smol::block_on(with_workers(WorkerConfig::new(), |workers| async move {
                workers.run_sync(double, 21).await.unwrap()
            }))
        });
        assert_eq!(blocking.await, 42);
    });
}

fn statics_of_a_worker_keep_their_values_between_jobs() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    fn count(_: ()) -> u32 {
        CALLS.fetch_add(1, Ordering::Relaxed)
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert_eq!(workers.run_sync(count, ()).await.unwrap(), 0);
        assert_eq!(workers.run_sync(count, ()).await.unwrap(), 1);
        assert_eq!(
            CALLS.load(Ordering::Relaxed),
            0,
            "the parent's static is another one"
        );
    }));
}

fn large_payloads_travel_both_ways() {
    fn louder(mut text: String) -> String {
        text.push('!');
        text
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for size in [1 << 20, 64 << 20] {
            let mut text = "seedbed ".repeat(size / 8);
            let answer = workers.run_sync(louder, text.clone()).await.unwrap();
            text.push('!');
            assert!(answer == text, "{size} bytes came back changed");
        }
    }));
}

/// Regression: an idle worker kept the encoded argument of its last job.
fn a_large_argument_is_freed_when_the_job_ends() {
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages = statm.split(' ').nth(1).unwrap();
        pages.parse::<usize>().unwrap() * rustix::param::page_size()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let length = |text: String| text.len();
        workers.run_sync(length, String::new()).await.unwrap();
        let before = resident();
        let large = "x".repeat(64 << 20);
        workers.run_sync(length, large).await.unwrap();
        assert!(resident() < before + (32 << 20));
    }));
}

fn a_panic_with_any_payload_is_an_error_and_the_worker_stays() {
    fn blow_up(how: u32) -> u32 {
        match how {
            0 => panic!("out of paint"),
            1 => panic!("out of {}", "paint"),
            2 => panic_any(42u64),
            _ => std::process::id(),
        }
    }
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("and again");
        }
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let before = workers.run_sync(blow_up, 9).await.unwrap();
        for (how, message) in [
            (0, "out of paint"),
            (1, "out of paint"),
            (2, "(a payload that is not a string)"),
        ] {
            let error = workers.run_sync(blow_up, how).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Panicked);
            assert_eq!(error.panic().unwrap().message(), message);
            assert!(
                error
                    .panic()
                    .unwrap()
                    .location()
                    .unwrap()
                    .contains("workers/calls.rs")
            );
            assert!(error.job().unwrap().ends_with("blow_up"));
        }
        let error = workers
            .run_sync(|()| -> () { panic_any(Bomb) }, ())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Panicked);
        assert_eq!(workers.run_sync(blow_up, 9).await.unwrap(), before);
    }));
}

/// A value whose encoding or decoding fails, as the number says.
#[derive(Debug)]
struct Moody(u8);

const FINE: u8 = 0;
const NO_WRITING: u8 = 1;
const NO_READING: u8 = 2;

impl Serialize for Moody {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            NO_WRITING => Err(serde::ser::Error::custom("will not be written")),
            mood => mood.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Moody {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u8::deserialize(from)? {
            NO_READING => Err(serde::de::Error::custom("will not be read")),
            mood => Ok(Moody(mood)),
        }
    }
}

/// Regression: the error reported the first panic of a job, which the job had caught, and not the
/// last.
fn of_several_panics_the_one_that_ended_the_job_is_reported() {
    struct CatchesOneWhenDropped;
    impl Drop for CatchesOneWhenDropped {
        fn drop(&mut self) {
            std::panic::catch_unwind(|| panic!("while unwinding")).unwrap_err();
        }
    }
    fn fail(order: u8) {
        match order {
            0 => std::panic::catch_unwind(|| panic!("caught")).unwrap_err(),
            _ => {
                let _last = CatchesOneWhenDropped;
                panic!("the end")
            }
        };
        panic!("the end")
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for order in [0, 1] {
            let error = workers.run_sync(fail, order).await.unwrap_err();
            let panic = error.panic().unwrap();
            assert_eq!(panic.message(), "the end");
            assert!(panic.location().unwrap().contains("workers/calls.rs"));
        }
    }));
}

fn a_value_that_serde_cannot_carry_fails_only_its_call() {
    fn give(mood: u8) -> Moody {
        Moody(mood)
    }
    fn take(moody: Moody) -> u32 {
        assert_eq!(moody.0, FINE);
        std::process::id()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let before = workers.run_sync(take, Moody(FINE)).await.unwrap();
        let failures = [
            (
                workers.run_sync(take, Moody(NO_WRITING)).await.unwrap_err(),
                WorkerErrorKind::EncodeArgument,
                "written",
            ),
            (
                workers.run_sync(take, Moody(NO_READING)).await.unwrap_err(),
                WorkerErrorKind::DecodeArgument,
                "read",
            ),
            (
                workers.run_sync(give, NO_WRITING).await.unwrap_err(),
                WorkerErrorKind::EncodeResult,
                "written",
            ),
            (
                workers.run_sync(give, NO_READING).await.unwrap_err(),
                WorkerErrorKind::DecodeResult,
                "read",
            ),
        ];
        for (error, kind, word) in failures {
            assert_eq!(error.kind(), kind);
            assert!(
                error.to_string().ends_with(&format!("will not be {word}")),
                "{error}"
            );
        }
        assert_eq!(workers.run_sync(give, FINE).await.unwrap().0, FINE);
        assert_eq!(
            workers.run_sync(take, Moody(FINE)).await.unwrap(),
            before,
            "the worker stays"
        );
    }));
}

fn a_job_reads_an_empty_standard_input_and_writes_to_standard_output_unharmed() {
    fn chat(_: ()) -> usize {
        println!("a line on standard output");
        print!("and half a line");
        eprintln!("a line on standard error");
        std::io::stdout().write_all(b"\n").unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert_eq!(workers.run_sync(chat, ()).await.unwrap(), 0);
    }));
}

fn a_job_writes_to_the_standard_output_of_the_program() {
    fn outputs(_: ()) -> Vec<std::path::PathBuf> {
        [1, 2]
            .map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap())
            .into()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert_eq!(workers.run_sync(outputs, ()).await.unwrap(), outputs(()));
    }));
}

fn a_job_finds_no_descriptor_but_the_standard_ones_and_our_socket() {
    fn open(_: ()) -> Vec<String> {
        common::descriptors().into_iter().collect()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let _inheritable_by_mistake = std::fs::File::open("/dev/null").unwrap();
        let second = workers.clone();
        let (one, two) = smol::future::zip(
            workers.run_sync(open, ()).into_future(),
            second.run_sync(open, ()).into_future(),
        )
        .await;
        // The process that started the tests may have left descriptors open; every process inherits
        // those.
        let expected = common::inheritable_descriptors() + 1;
        for open in [one.unwrap(), two.unwrap()] {
            assert_eq!(open.len(), expected, "{open:?}");
            assert!(
                open.iter().any(|fd| fd == "/proc/self/fd/0 -> /dev/null"),
                "{open:?}"
            );
        }
    }));
}

fn other_signals_have_their_default_dispositions_and_none_is_blocked() {
    fn set(name: String) -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(&name))
            .unwrap();
        // Signals above 31 belong to the C library and to real-time programs.
        u64::from_str_radix(line.trim(), 16).unwrap() & 0x7fff_ffff
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert_eq!(workers.run_sync(set, "SigBlk:".into()).await.unwrap(), 0);
        // Every process inherits what the process that started the tests ignores.
        for name in ["SigIgn:", "SigCgt:"] {
            let mut expected = set(name.into());
            if name == "SigCgt:" {
                for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
                    expected |= 1 << (signal - 1);
                }
                // The cause of an abort is reported before it ends the worker. (Rust handles
                // SIGSEGV and SIGBUS in every program.)
                expected |= 1 << (libc::SIGABRT - 1);
            }
            let found = workers.run_sync(set, name.into()).await.unwrap();
            assert_eq!(found, expected, "{name}");
        }
    }));
}

fn a_worker_runs_the_job_on_its_only_busy_thread() {
    fn threads(_: ()) -> (usize, String) {
        let count = std::fs::read_dir("/proc/self/task").unwrap().count();
        (
            count,
            std::fs::read_to_string("/proc/thread-self/comm").unwrap(),
        )
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        // The serving thread and, in a spawned worker, the main thread, which waits.
        let expected = match common::worker_type() {
            WorkerType::ForkServer => 1,
            _ => 2,
        };
        let (count, name) = workers.run_sync(threads, ()).await.unwrap();
        assert_eq!(count, expected);
        assert!(name.ends_with("-worker\n"), "{name}");
    }));
}

fn a_job_may_call_workers_of_its_own() {
    fn outer(n: u64) -> (u64, u32) {
        let inner = smol::block_on(async {
            let workers = WorkerConfig::new();
            seedbed::open_worker_context(workers, |workers| async move {
                workers.run_sync(double, n).await
            })
            .await
        });
        (inner.unwrap(), std::process::id())
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (doubled, pid) = workers.run_sync(outer, 4).await.unwrap();
        assert_eq!(doubled, 8);
        assert_eq!(workers.run_sync(outer, 4).await.unwrap(), (8, pid));
    }));
}

fn a_job_may_call_the_hook_on_its_own_thread_and_on_others() {
    fn hook(_: ()) -> u32 {
        seedbed::init();
        std::thread::spawn(seedbed::init).join().unwrap();
        std::process::id()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(hook, ()).await.unwrap();
        assert_eq!(workers.run_sync(hook, ()).await.unwrap(), first);
    }));
}

fn the_default_context_is_shared_by_sequential_and_concurrent_callers() {
    test(async {
        let first = run_sync(pid, ()).await.unwrap();
        let thread =
            std::thread::spawn(|| smol::block_on(async { run_sync(pid, ()).await.unwrap() }));
        assert_eq!(smol::unblock(|| thread.join().unwrap()).await, first);
        assert_eq!(
            seedbed::worker::default_context_statistics().idle_workers,
            1
        );
        common::end_default_workers();
    });
}

fn the_task_tree_names_the_job_that_a_task_waits_for() {
    /// Waits until the file is there.
    fn wait_for_file(file: std::path::PathBuf) {
        while !file.exists() {
            std::thread::yield_now();
        }
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("go");
        let one_at_a_time = CapacityLimiter::new(1);
        let call = || {
            let call = workers.run_sync(wait_for_file, file.clone());
            call.limiter(&one_at_a_time).into_future()
        };
        let (bare, named) = (call(), call());
        open_nursery(|n| async move {
            n.spawn(bare);
            n.named("second").spawn(async { named.await.unwrap() });
            let job = format!("job `{}`", std::any::type_name_of_val(&wait_for_file));
            let first = format!("├─ {job} #");
            let second = format!(", waits for a limiter token for {job}");
            // A task that was just woken has no wait, so the tree is drawn until both wait.
            loop {
                let tree = task_tree().unwrap().to_string();
                if tree.contains(&first) && tree.contains(&second) {
                    break;
                }
                checkpoint().await;
            }
            std::fs::write(&file, "").unwrap();
        })
        .await;
    }));
}

suite! {
    a_value_comes_back_from_another_process,
    a_closure_without_captures_works_like_a_function,
    calls_run_in_parallel_in_workers_of_their_own,
    the_task_tree_names_the_job_that_a_task_waits_for,
    a_call_can_be_awaited_on_any_executor_and_thread,
    a_task_that_blocks_smols_executor_has_its_call_answered,
    statics_of_a_worker_keep_their_values_between_jobs,
    large_payloads_travel_both_ways,
    a_large_argument_is_freed_when_the_job_ends,
    a_panic_with_any_payload_is_an_error_and_the_worker_stays,
    of_several_panics_the_one_that_ended_the_job_is_reported,
    a_value_that_serde_cannot_carry_fails_only_its_call,
    a_job_reads_an_empty_standard_input_and_writes_to_standard_output_unharmed,
    a_job_writes_to_the_standard_output_of_the_program,
    a_job_finds_no_descriptor_but_the_standard_ones_and_our_socket,
    other_signals_have_their_default_dispositions_and_none_is_blocked,
    a_worker_runs_the_job_on_its_only_busy_thread,
    a_job_may_call_workers_of_its_own,
    a_job_may_call_the_hook_on_its_own_thread_and_on_others,
    the_default_context_is_shared_by_sequential_and_concurrent_callers,
}
