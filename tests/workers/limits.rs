//! The resource limits of workers, each with a job that exceeds it.

use std::fs::File;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::common::refusals::{assert_start_error, os_error, refused};
use crate::common::stage::signal_of;
use crate::common::{children, end_default_workers, pid, test, with_workers, worker_type};
use rustix::process::{Resource, getpriority_process, getrlimit, setpriority_process};
use rustix::thread::{
    CapabilitySet, remove_capability_from_bounding_set, sched_getaffinity, set_capabilities,
};
use seedbed::worker::{WorkerErrorKind, configure_default_context};
use seedbed::{WorkerConfig, WorkerContext, open_worker_context};

const MB: usize = 1 << 20;

fn config() -> WorkerConfig {
    WorkerConfig::new().capture_stderr(true)
}
/// Allocates this many bytes, and frees them.
fn take(bytes: usize) -> usize {
    black_box(vec![1_u8; bytes]).len()
}
// Memory.

fn a_job_that_takes_more_memory_than_allowed_breaks_its_worker_and_no_other_call() {
    fn wait_for_end(path: PathBuf) -> u32 {
        while path.exists() {
            std::thread::yield_now();
        }
        std::process::id()
    }
    test(async {
        let marker = tempfile::NamedTempFile::new().unwrap();
        let path = marker.path().to_owned();
        with_workers(
            config().memory_limit(256 * MB as u64),
            |workers| async move {
                let other = workers.run_sync(wait_for_end, path).into_future();
                let greedy = async {
                    assert_eq!(workers.run_sync(take, 16 * MB).await.unwrap(), 16 * MB);
                    let error = workers.run_sync(take, 512 * MB).await.unwrap_err();
                    assert_eq!(signal_of(&error), Some("SIGABRT"));
                    drop(marker); // lets the other job end
                    error.exit().unwrap().pid()
                };
                let (other, broken) = smol::future::zip(other, greedy).await;
                assert_ne!(other.unwrap(), broken);
                assert_ne!(workers.run_sync(pid, ()).await.unwrap(), broken);
            },
        )
        .await;
    });
}

fn memory_is_counted_for_threads_too_and_a_failed_reservation_can_be_survived() {
    fn try_take(bytes: usize) -> bool {
        let attempt = move || Vec::<u8>::new().try_reserve_exact(bytes).is_ok();
        std::thread::spawn(attempt).join().unwrap()
    }
    test(with_workers(
        config().memory_limit(256 * MB as u64),
        |workers| async move {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            assert!(workers.run_sync(try_take, 64 * MB).await.unwrap());
            assert!(!workers.run_sync(try_take, 512 * MB).await.unwrap());
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        },
    ));
}

fn a_payload_that_is_larger_than_the_memory_breaks_the_worker_and_is_an_error() {
    fn length(text: String) -> usize {
        text.len()
    }
    test(with_workers(
        config().memory_limit(32 * MB as u64),
        |workers| async move {
            for _ in 0..2 {
                let small = workers.run_sync(length, "x".repeat(MB));
                assert_eq!(small.await.unwrap(), MB);
                let large = workers.run_sync(length, "x".repeat(64 * MB));
                assert_eq!(signal_of(&large.await.unwrap_err()), Some("SIGABRT"));
            }
        },
    ));
}

fn a_memory_limit_below_what_a_new_worker_has_is_a_start_error() {
    test(async {
        let error = refused(config().memory_limit(4096)).await;
        assert_start_error(&error, "memory_limit(4096)");
        assert!(error.to_string().contains("bytes already"), "{error}");
        // The call also fails if no descriptor is left to read the memory use.
        let error = refused(config().open_file_limit(0).memory_limit(4096)).await;
        assert_start_error(&error, "memory_limit(4096)");
    });
}

static TABLE: OnceLock<Vec<u8>> = OnceLock::new();

fn preload_a_table() {
    TABLE.get_or_init(|| vec![1; 128 * MB]);
}

fn preloaded_data_counts_as_memory() {
    fn look(_: ()) -> u8 {
        TABLE.get().unwrap()[128 * MB - 1]
    }
    test(async {
        let config = config().preload(preload_a_table);
        let error = refused(config.clone().memory_limit(128 * MB as u64)).await;
        assert_start_error(&error, "memory_limit(134217728)");
        let config = config.memory_limit(192 * MB as u64);
        with_workers(config, |workers| async move {
            assert_eq!(workers.run_sync(look, ()).await.unwrap(), 1);
            let error = workers.run_sync(take, 96 * MB).await.unwrap_err();
            assert_eq!(signal_of(&error), Some("SIGABRT"));
        })
        .await;
    });
}

fn preload_closures_are_free_of_the_limits_and_init_closures_are_not() {
    fn take_much() {
        take(128 * MB);
    }
    test(async {
        let config = config().memory_limit(64 * MB as u64);
        with_workers(config.clone().preload(take_much), |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
        })
        .await;
        let error = with_workers(config.init(take_much), |workers| async move {
            workers.run_sync(pid, ()).await.unwrap_err()
        })
        .await;
        assert_eq!(error.kind(), WorkerErrorKind::Start, "{error}");
        assert_eq!(error.exit().unwrap().signal_name(), Some("SIGABRT"));
        assert!(
            error
                .to_string()
                .contains("`init` closures of its configuration"),
            "{error}"
        );
    });
}

// CPU time.

fn spin(_: ()) {
    loop {
        std::hint::spin_loop();
    }
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes to a local variable of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(
        time.tv_sec.try_into().unwrap(),
        time.tv_nsec.try_into().unwrap(),
    )
}

/// Uses this much CPU time.
fn burn(time: Duration) -> u32 {
    let end = cpu_time() + time;
    while cpu_time() < end {}
    std::process::id()
}

fn a_job_that_spins_is_ended_by_the_signal_for_cpu_time() {
    test(with_workers(
        config().cpu_limit(Duration::from_millis(50)),
        |workers| async move {
            let first = workers.run_sync(pid, ()).await.unwrap();
            let error = workers.run_sync(spin, ()).await.unwrap_err();
            assert_eq!(signal_of(&error), Some("SIGXCPU"));
            assert_eq!(error.exit().unwrap().pid(), first);
            assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
        },
    ));
}

fn the_threads_of_a_job_use_its_cpu_time() {
    fn spin_elsewhere(_: ()) {
        std::thread::spawn(|| spin(())).join().unwrap()
    }
    test(with_workers(
        config().cpu_limit(Duration::from_millis(50)),
        |workers| async move {
            let error = workers.run_sync(spin_elsewhere, ()).await.unwrap_err();
            assert_eq!(signal_of(&error), Some("SIGXCPU"));
        },
    ));
}

fn each_job_has_its_own_cpu_time_and_closures_have_none_of_it() {
    fn prepare() {
        burn(Duration::from_millis(500));
    }
    let config = config().cpu_limit(Duration::from_millis(400)).init(prepare);
    test(with_workers(config, |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        for _ in 0..3 {
            let job = workers.run_sync(burn, Duration::from_millis(200));
            assert_eq!(job.await.unwrap(), worker);
        }
    }));
}

fn waiting_takes_no_cpu_time() {
    fn wait(_: ()) {
        std::thread::sleep(Duration::from_millis(300));
    }
    test(with_workers(
        config().cpu_limit(Duration::from_millis(100)),
        |workers| async move { workers.run_sync(wait, ()).await.unwrap() },
    ));
}

/// Takes a second, the time until SIGKILL follows.
fn a_job_that_ignores_the_signal_for_cpu_time_is_killed() {
    fn ignore_and_spin(_: ()) {
        // SAFETY: ignoring a signal installs no code.
        unsafe { libc::signal(libc::SIGXCPU, libc::SIG_IGN) };
        spin(())
    }
    test(with_workers(
        config().cpu_limit(Duration::from_millis(10)),
        |workers| async move {
            let error = workers.run_sync(ignore_and_spin, ()).await.unwrap_err();
            assert_eq!(signal_of(&error), Some("SIGKILL"));
        },
    ));
}

fn a_job_that_deletes_the_timers_spares_the_next_which_another_worker_runs() {
    fn delete_timers(_: ()) {
        for number in 0..16 {
            // SAFETY: the process goes on without the timers that it has; others are an error.
            unsafe { libc::syscall(libc::SYS_timer_delete, number) };
        }
    }
    test(with_workers(
        config().cpu_limit(Duration::from_secs(60)),
        |workers| async move {
            for warm in [0, 3] {
                let mut first = workers.run_sync(pid, ()).await.unwrap();
                for _ in 0..warm {
                    first = workers.run_sync(pid, ()).await.unwrap();
                }
                workers.run_sync(delete_timers, ()).await.unwrap();
                assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
            }
            workers.shutdown().await.unwrap();
            let statistics = workers.statistics();
            assert_eq!((statistics.retired, statistics.timed_out), (2, 0));
        },
    ));
}

/// Regression: there was no error and no end, because each worker left the job to the next one.
fn an_init_closure_that_deletes_the_timers_is_an_error() {
    fn delete_timers() {
        for number in 0..16 {
            // SAFETY: the process goes on without the timers that it has; others are an error.
            unsafe { libc::syscall(libc::SYS_timer_delete, number) };
        }
    }
    test(async {
        let config = config().cpu_limit(Duration::from_secs(60));
        let error = refused(config.init(delete_timers)).await;
        assert_start_error(&error, "cpu_limit(60s)");
    });
}

// Open files.

/// Returns how many of this many files it could open at once.
fn open_at_once(most: usize) -> usize {
    let open = std::iter::repeat_with(|| File::open("/dev/null"));
    open.take(most)
        .map_while(Result::ok)
        .collect::<Vec<_>>()
        .len()
}

fn a_job_can_open_as_many_files_as_its_limit_and_no_more() {
    test(async {
        for count in [0, 1, 7, 300] {
            with_workers(config().open_file_limit(count), |workers| async move {
                for _ in 0..2 {
                    let opened = workers.run_sync(open_at_once, 1000).await.unwrap();
                    assert_eq!(opened, count as usize);
                }
            })
            .await;
        }
    });
}

fn a_worker_that_may_open_nothing_answers_panics_and_retires_like_any_other() {
    fn leak(bytes: usize) -> u32 {
        vec![1_u8; bytes].leak();
        std::process::id()
    }
    fn panic(_: ()) {
        panic!("no files")
    }
    fn echo(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
    let config = config()
        .open_file_limit(0)
        .retire_above_memory(200 * MB as u64);
    test(with_workers(config, |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        let error = workers.run_sync(panic, ()).await.unwrap_err();
        assert_eq!(error.panic().unwrap().message(), "no files");
        let large = vec![7; 3 * MB];
        assert_eq!(workers.run_sync(echo, large.clone()).await.unwrap(), large);
        assert_eq!(workers.run_sync(leak, 256 * MB).await.unwrap(), first);
        assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
    }));
}

// Processors.

fn workers_and_their_threads_have_the_configured_niceness() {
    fn niceness(_: ()) -> [i32; 2] {
        let of_this_thread = || getpriority_process(None).unwrap();
        [
            of_this_thread(),
            std::thread::spawn(of_this_thread).join().unwrap(),
        ]
    }
    let before = getpriority_process(None).unwrap();
    test(with_workers(config().nice(19), |workers| async move {
        assert_eq!(workers.run_sync(niceness, ()).await.unwrap(), [19, 19]);
    }));
    assert_eq!(getpriority_process(None).unwrap(), before);
}

fn a_niceness_that_is_not_permitted_is_a_start_error_with_the_kernels_reason() {
    /// Drops the privilege permanently, and starts workers of its own.
    fn want_more(forked: bool) -> (String, Option<i32>) {
        // The tests may run without the privilege.
        let _ = remove_capability_from_bounding_set(rustix::thread::CapabilitySet::SYS_NICE);
        let none = rustix::thread::CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, none).unwrap();
        let worker_type = if forked {
            seedbed::worker::WorkerType::ForkServer
        } else {
            seedbed::worker::WorkerType::Spawn
        };
        // This process may have inherited a niceness below -5.
        _ = setpriority_process(None, 0);
        let config = WorkerConfig::new().nice(-5).worker_type(worker_type);
        let error = smol::block_on(open_worker_context(config, |workers| async move {
            workers.run_sync(pid, ()).await.unwrap_err()
        }));
        assert_start_error(&error, "nice(-5)");
        (error.to_string(), os_error(&error))
    }
    test(with_workers(config(), |workers| async move {
        let forked = worker_type() == seedbed::worker::WorkerType::ForkServer;
        let (text, code) = workers.run_sync(want_more, forked).await.unwrap();
        assert!(
            [Some(libc::EACCES), Some(libc::EPERM)].contains(&code),
            "{text}"
        );
        assert!(text.contains("only a privileged process"), "{text}");
    }));
}

fn workers_stay_on_their_cpus() {
    fn cpus(_: ()) -> Vec<usize> {
        let set = sched_getaffinity(None).unwrap();
        (0..1024).filter(|&cpu| set.is_set(cpu)).collect()
    }
    let mine = cpus(());
    let one = *mine.last().unwrap();
    test(with_workers(
        config().cpu_affinity([one, one]),
        |workers| async move {
            assert_eq!(workers.run_sync(cpus, ()).await.unwrap(), [one]);
        },
    ));
    assert_eq!(cpus(()), mine);
}

fn a_missing_cpu_is_a_start_error() {
    test(async {
        let error = refused(config().cpu_affinity([1023])).await;
        assert_start_error(&error, "cpu_affinity([1023])");
        assert_eq!(os_error(&error), Some(libc::EINVAL));
        let mine = sched_getaffinity(None).unwrap();
        let one = (0..1024).find(|&cpu| mine.is_set(cpu)).unwrap();
        let error = refused(config().cpu_affinity([one, 1022, 1023])).await;
        assert_start_error(&error, &format!("cpu_affinity([{one}, 1022, 1023])"));
        assert!(
            error.to_string().contains("the CPUs [1022, 1023]"),
            "{error}"
        );
    });
}

// The stack.

#[inline(never)]
fn sum_to(n: u64) -> u64 {
    let room = black_box([n; 128]); // a kilobyte
    match n {
        0 => 0,
        n => black_box(room[5] + sum_to(n - 1)),
    }
}

fn a_job_can_use_its_whole_stack_and_no_more() {
    let config = config().stack_size(128 * MB);
    test(with_workers(config, |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        // More than the usual stack size of eight megabytes.
        assert_eq!(workers.run_sync(sum_to, 40_000).await.unwrap(), 800_020_000);
        let error = workers.run_sync(sum_to, 400_000).await.unwrap_err();
        assert_eq!(signal_of(&error), Some("SIGSEGV"));
        assert_eq!(error.exit().unwrap().pid(), first);
        assert_eq!(workers.run_sync(sum_to, 1000).await.unwrap(), 500_500);
    }));
}

fn a_panic_deep_in_a_small_stack_is_described_and_the_worker_stays() {
    fn panic_at(depth: u64) {
        match black_box(depth) {
            0 => panic!("at the bottom"),
            depth => {
                panic_at(depth - 1);
                black_box(depth);
            }
        }
    }
    let config = config().stack_size(64 << 10).env("RUST_BACKTRACE", "1");
    test(with_workers(config.clone(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        let error = workers.run_sync(panic_at, 5).await.unwrap_err();
        let panic = error.panic().unwrap();
        assert_eq!(panic.message(), "at the bottom");
        assert!(panic.location().unwrap().contains("workers/limits.rs"));
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
        let error = workers.run_sync(sum_to, 100).await.unwrap_err();
        assert_eq!(signal_of(&error), Some("SIGSEGV"));
    }));
    let config = config.stack_size(4 * MB);
    test(with_workers(config, |workers| async move {
        let error = workers.run_sync(panic_at, 5).await.unwrap_err();
        let backtrace = error.panic().unwrap().backtrace().unwrap();
        assert_eq!(backtrace.matches("panic_at").count(), 6, "{backtrace}");
    }));
}

fn jobs_with_a_stack_of_their_own_run_on_the_workers_only_thread() {
    fn threads(_: ()) -> (usize, bool) {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().count();
        let mut inside = 0_usize;
        let here = (&raw mut inside).addr();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let holds_us = |line: &&str| {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let parse = |text| usize::from_str_radix(text, 16).unwrap();
            (parse(from)..parse(to)).contains(&here)
        };
        let ours = maps.lines().find(holds_us).unwrap();
        (tasks, ours.contains("[stack]"))
    }
    test(async {
        let run = |config| {
            with_workers(config, |workers: WorkerContext| async move {
                workers.run_sync(threads, ()).await
            })
        };
        let (usually, _) = run(config()).await.unwrap();
        let (with_a_stack, on_the_old_one) = run(config().stack_size(MB)).await.unwrap();
        assert_eq!(with_a_stack, usually);
        assert!(!on_the_old_one);
    });
}

fn a_stack_that_does_not_fit_in_memory_is_a_start_error() {
    test(async {
        let error = refused(config().stack_size(usize::MAX / 2)).await;
        assert_start_error(&error, &format!("stack_size({})", usize::MAX / 2));
        let limited = config().stack_size(256 * MB).memory_limit(128 * MB as u64);
        assert_start_error(&refused(limited).await, "stack_size(268435456)");
    });
}

// All of them.

/// The kernel once killed the program, if it had more memory than the job that took all of it.
fn workers_volunteer_to_the_oom_killer_before_their_parent() {
    fn adjustment(of: &str) -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{of}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    }
    fn look(_: ()) -> (i32, i32) {
        let mut child = std::process::Command::new("sleep");
        let mut child = child.arg("60").spawn().unwrap();
        let of_child = adjustment(&child.id().to_string());
        child.kill().unwrap();
        child.wait().unwrap();
        (adjustment("self"), of_child)
    }
    test(async {
        let before = adjustment("self");
        for (config, expected) in [
            (config(), 1000),
            (config().oom_score_adj(900), 900),
            (config().nice(19).single_use(), 1000),
        ] {
            with_workers(config, |workers| async move {
                let found = workers.run_sync(look, ()).await.unwrap();
                assert_eq!(found, (expected, expected));
            })
            .await;
        }
        assert_eq!(adjustment("self"), before);
    });
}

fn invalid_settings_are_refused_before_a_process_starts() {
    test(async {
        let refused = [
            (config().cpu_limit(Duration::ZERO), "cpu_limit(0ns)"),
            (config().nice(20), "nice(20)"),
            (config().nice(-21), "nice(-21)"),
            (config().oom_score_adj(1001), "oom_score_adj(1001)"),
            (config().cpu_affinity([]), "cpu_affinity([])"),
            (config().cpu_affinity([0, 1024]), "cpu_affinity([0, 1024])"),
            (config().stack_size(65535), "stack_size(65535)"),
            (config().env("", "x"), r#"env("", ..)"#),
        ];
        for (config, setting) in refused {
            let error = configure_default_context(config.clone()).unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Config);
            assert!(
                error.to_string().contains(&format!("`{setting}`")),
                "{error}"
            );
            with_workers(config, |workers| async move {
                let error = workers.run_sync(pid, ()).await.unwrap_err();
                assert_eq!(error.kind(), WorkerErrorKind::Config);
                assert_eq!(children(), []);
            })
            .await;
        }
        end_default_workers();
    });
}

fn all_limits_hold_together_in_each_worker_of_a_context_and_not_in_this_process() {
    fn look(_: ()) -> (Vec<Option<u64>>, i32, u64) {
        (limits(), getpriority_process(None).unwrap(), sum_to(1000))
    }
    fn limits() -> Vec<Option<u64>> {
        let of = |resource| getrlimit(resource).maximum;
        vec![of(Resource::Data), of(Resource::Nofile)]
    }
    let before = limits();
    let config = config()
        .kill_tree(true)
        .memory_limit(512 * MB as u64)
        .cpu_limit(Duration::from_secs(60))
        .open_file_limit(20)
        .nice(5.max(getpriority_process(None).unwrap()))
        .cpu_affinity((0..1024).find(|&cpu| sched_getaffinity(None).unwrap().is_set(cpu)))
        .stack_size(32 * MB)
        .current_dir("/")
        .env("A", "1")
        .single_use();
    test(with_workers(config, |workers| async move {
        for _ in 0..3 {
            let (limits, niceness, sum) = workers.run_sync(look, ()).await.unwrap();
            assert_eq!(limits[0], Some(512 * MB as u64));
            assert!(limits[1].is_some_and(|files| files <= 40), "{limits:?}");
            assert!(niceness >= 5);
            assert_eq!(sum, 500_500);
        }
    }));
    assert_eq!(limits(), before);
}

suite! {
    a_job_that_takes_more_memory_than_allowed_breaks_its_worker_and_no_other_call,
    memory_is_counted_for_threads_too_and_a_failed_reservation_can_be_survived,
    a_payload_that_is_larger_than_the_memory_breaks_the_worker_and_is_an_error,
    a_memory_limit_below_what_a_new_worker_has_is_a_start_error,
    preloaded_data_counts_as_memory,
    preload_closures_are_free_of_the_limits_and_init_closures_are_not,
    a_job_that_spins_is_ended_by_the_signal_for_cpu_time,
    the_threads_of_a_job_use_its_cpu_time,
    each_job_has_its_own_cpu_time_and_closures_have_none_of_it,
    waiting_takes_no_cpu_time,
    a_job_that_ignores_the_signal_for_cpu_time_is_killed,
    a_job_that_deletes_the_timers_spares_the_next_which_another_worker_runs,
    an_init_closure_that_deletes_the_timers_is_an_error,
    a_job_can_open_as_many_files_as_its_limit_and_no_more,
    a_worker_that_may_open_nothing_answers_panics_and_retires_like_any_other,
    workers_and_their_threads_have_the_configured_niceness,
    a_niceness_that_is_not_permitted_is_a_start_error_with_the_kernels_reason,
    workers_stay_on_their_cpus,
    a_missing_cpu_is_a_start_error,
    a_job_can_use_its_whole_stack_and_no_more,
    a_panic_deep_in_a_small_stack_is_described_and_the_worker_stays,
    jobs_with_a_stack_of_their_own_run_on_the_workers_only_thread,
    a_stack_that_does_not_fit_in_memory_is_a_start_error,
    workers_volunteer_to_the_oom_killer_before_their_parent,
    invalid_settings_are_refused_before_a_process_starts,
    all_limits_hold_together_in_each_worker_of_a_context_and_not_in_this_process,
}
