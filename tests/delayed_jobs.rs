//! Blocks of jobs: what a job gets, when it runs, and that nothing is left behind.

mod common;

use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::log::Log;
use common::{children, endless, pid, poll_with_yields, test, with_workers};
use rustix::thread::sched_getaffinity;
use seedbed::delayed::{
    Cores, Delayed, JobError, JobErrorKind, Jobs, Memory, Resources, Setup, Token, Units, ZERO,
    allocation, delayed_val, each, open, try_open,
};
use seedbed::process::Command;
use seedbed::testing::MockClock;
use seedbed::worker::WorkerErrorKind;
use seedbed::{RunBuilder, WorkerConfig, cache_scope, run_sync};
use tracing::Level;

/// Returns the cores that the calling thread may use.
fn affinity(_: ()) -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..1024).filter(|&cpu| set.is_set(cpu)).collect()
}

/// One core that this process may use.
fn one_core() -> Resources {
    Resources::none().cores([affinity(())[0]])
}

fn cores_and_allocation(_: ()) -> (Vec<usize>, Vec<usize>) {
    let allocation = allocation().expect("the job has resources");
    (affinity(()), allocation.cores())
}

#[test]
fn a_job_is_pinned_to_the_cores_of_its_allocation() {
    let core = affinity(())[0];
    test(open(one_core(), async move |jobs| {
        let call = jobs.call(cores_and_allocation, ());
        assert_eq!(call.await.unwrap(), (vec![core], vec![core]));
    }));
}

#[test]
fn a_job_of_all_cores_has_all_and_one_of_parts_shares_one() {
    let all = affinity(());
    let resources = Resources::none().cores(all.clone());
    test(open(resources, async move |jobs| {
        let whole = jobs.on(Cores(all.len() as u32)).call(affinity, ());
        assert_eq!(whole.await.unwrap(), all);
        let half = jobs.on(Cores::share(0.5));
        let both = each((half.call(affinity, ()), half.call(affinity, ())));
        assert_eq!(both.await.unwrap(), (vec![all[0]], vec![all[0]]));
    }));
}

#[test]
fn a_job_without_cores_or_after_one_with_cores_is_not_pinned() {
    let all = affinity(());
    test(with_workers(WorkerConfig::new(), async move |workers| {
        open(one_core(), async |jobs| {
            let jobs = jobs.workers(&workers);
            assert_eq!(jobs.call(affinity, ()).await.unwrap().len(), 1);
            assert_eq!(workers.run_sync(affinity, ()).await.unwrap(), all);
            let free = jobs.on(ZERO).call(affinity, ());
            assert_eq!(free.await.unwrap(), all);
        })
        .await;
    }));
}

/// Allocates this number of bytes and writes to them.
fn allocate(bytes: usize) -> usize {
    let memory = std::hint::black_box(vec![1u8; bytes]);
    memory.len()
}

const MEBIBYTE: usize = 1 << 20;

#[test]
fn a_job_that_takes_more_memory_than_it_has_is_broken_and_harms_no_other() {
    let resources = one_core().memory(Memory::gib(1));
    test(open(resources, async |jobs| {
        let small = jobs.on(Cores(1) & Memory::mib(64));
        let error = small.call(allocate, 100 * MEBIBYTE).await.unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::Worker(WorkerErrorKind::Broken));
        assert_eq!(error.attempts(), 1);
        assert!(small.call(allocate, 30 * MEBIBYTE).await.is_ok());
        let large = jobs.on(Cores(1) & Memory::mib(256));
        assert!(large.call(allocate, 100 * MEBIBYTE).await.is_ok());
        assert!(jobs.call(allocate, 300 * MEBIBYTE).await.is_ok());
    }));
}

#[test]
fn workers_are_reused_for_jobs_of_as_many_cores_only() {
    let all = affinity(());
    if all.len() < 2 {
        return; // a job of two cores needs two
    }
    test(open(Resources::none().cores(all), async |jobs| {
        let one = jobs.call(pid, ()).await.unwrap();
        assert_eq!(jobs.call(pid, ()).await.unwrap(), one);
        let two = jobs.on(Cores(2)).call(pid, ()).await.unwrap();
        assert_ne!(two, one);
        assert_eq!(jobs.call(pid, ()).await.unwrap(), one);
    }));
}

/// Crashes the first time.
fn crash_once(folder: PathBuf) -> u32 {
    if std::fs::create_dir(folder.join("begun")).is_ok() {
        std::process::abort();
    }
    7
}

#[test]
fn a_job_whose_worker_crashes_runs_again_if_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    test(open(one_core(), async move |jobs| {
        let again = jobs.retry(1).call(crash_once, path.clone());
        assert_eq!(again.await.unwrap(), 7);
        std::fs::remove_dir(path.join("begun")).unwrap();
        let error = jobs.call(crash_once, path).await.unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::Worker(WorkerErrorKind::Broken));
        assert!(error.job().unwrap().ends_with("::crash_once"));
        let text = error.to_string();
        assert!(
            text.contains("crash_once`") && !text.contains("closure"),
            "{text}"
        );
    }));
}

fn divide(a: u32, b: u32) -> u32 {
    a / b
}

#[test]
fn a_panic_of_a_job_is_the_error_of_its_value_and_is_not_retried() {
    test(open(one_core(), async |jobs| {
        let broken = jobs.retry(3).call(divide, (1, 0)) + 5;
        let error = broken.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (JobErrorKind::Panicked, 1)
        );
        assert!(error.worker().unwrap().panic().is_some());
        assert_eq!(jobs.call(divide, (6, 2)).await.unwrap(), 3);
    }));
}

#[test]
fn a_job_that_reaches_its_time_limit_is_killed_and_frees_its_core() {
    test(open(one_core(), async |jobs| {
        let brief = jobs.time_limit(Duration::from_millis(20)).call(endless, ());
        let next = jobs.call(i32::abs, -3);
        assert_eq!(brief.await.unwrap_err().kind(), JobErrorKind::TimedOut);
        assert_eq!(next.await.unwrap(), 3);
    }));
}

#[test]
fn a_future_is_limited_by_the_clock_of_the_run() {
    let hour = Duration::from_secs(3600);
    RunBuilder::new()
        .clock(MockClock::autojump())
        .run(async move {
            open(one_core(), async move |jobs| {
                let brief = jobs.on(Cores(1)).time_limit(hour);
                let forever = brief.spawn(pending::<u32>());
                let next = brief.spawn(async { 2 });
                let error = forever.await.unwrap_err();
                assert_eq!(error.kind(), JobErrorKind::TimedOut);
                assert!(error.to_string().contains("3600s"), "{error}");
                assert_eq!(next.await.unwrap(), 2);
            })
            .await;
        });
}

#[test]
fn cancelling_a_block_kills_its_jobs_and_cancels_their_values() {
    test(async {
        let kept = Mutex::new(Vec::new());
        let block = open(one_core(), async |jobs| {
            let running = jobs.call(endless, ());
            let waiting = jobs.call(pid, ());
            let combined = jobs.then(waiting.clone(), divide_by_two);
            kept.lock()
                .unwrap()
                .extend([running.map(|()| 0), waiting, combined]);
            pending::<()>().await;
        });
        let scope = seedbed::CancelScope::new();
        let cancelling = async {
            while children().is_empty() {
                smol::future::yield_now().await;
            }
            scope.cancel();
        };
        let (ended, ()) = smol::future::zip(scope.run(block), cancelling).await;
        assert!(ended.is_none());
        assert!(children().is_empty());
        for value in kept.into_inner().unwrap() {
            assert!(value.is_done() || poll_with_yields(value.shared(), 1).await);
            assert_eq!(value.await.unwrap_err().kind(), JobErrorKind::Cancelled);
        }
    });
}

fn divide_by_two(a: u32) -> u32 {
    a / 2
}

#[test]
fn an_error_of_the_body_cancels_the_jobs() {
    test(async {
        let result: Result<(), &str> = try_open(one_core(), async |jobs| {
            drop(jobs.call(endless, ()));
            drop(jobs.call(endless, ()));
            Err("no time for that")
        })
        .await;
        assert_eq!(result, Err("no time for that"));
    });
}

#[test]
fn a_block_that_is_dropped_leaves_nothing_behind() {
    test(async {
        let block = open(one_core(), async |jobs| {
            drop(jobs.call(endless, ()));
            drop(jobs.call(endless, ()));
            pending::<()>().await;
        });
        assert!(!poll_with_yields(block, 20).await);
    });
}

#[test]
fn jobs_run_in_order_and_a_prioritised_one_before_those_that_wait() {
    test(async {
        let order = Arc::new(Mutex::new(Vec::new()));
        let noted = order.clone();
        open(one_core(), async move |jobs| {
            let one = jobs.on(Cores(1));
            let note = |jobs: &Jobs<'static>, number: u32| {
                let order = noted.clone();
                drop(jobs.spawn(async move { order.lock().unwrap().push(number) }));
            };
            for number in 0..3 {
                note(&one, number);
            }
            note(&one.prioritized(), 10);
            note(&one.prioritized(), 11);
            assert_eq!(
                (jobs.statistics().running, jobs.statistics().queued),
                (1, 4)
            );
        })
        .await;
        assert_eq!(*order.lock().unwrap(), [0, 10, 11, 1, 2]);
    });
}

#[test]
fn a_large_job_is_not_overtaken_by_small_ones() {
    let resources = Resources::none().amount("licences", 3);
    test(open(resources, async |jobs| {
        let licences = |count| jobs.on(Units("licences", count));
        let (first, stop) = (licences(2), seedbed::sync::Event::new());
        let stop = Arc::new(stop);
        let waits = stop.clone();
        let running = first.spawn(async move { waits.wait().await });
        let large = licences(2).spawn(async {});
        let small = licences(1).spawn(async {});
        let statistics = jobs.statistics();
        assert_eq!((statistics.running, statistics.queued), (1, 2));
        let head = statistics.head.unwrap();
        assert!(
            head.contains("waits for 2 of `licences`, and there is 1 of `licences`: `"),
            "{head}"
        );
        assert!(head.ends_with("` has 2 of `licences`"), "{head}");
        stop.set();
        each((running, large, small)).await.unwrap();
    }));
}

#[test]
fn what_can_never_fit_is_an_error_at_once() {
    test(open(one_core().token("fast"), async |jobs| {
        for request in [
            Cores(2) & ZERO,
            Token("internet").into(),
            Cores(1) & Cores(1),
        ] {
            let value = jobs.on(request).call(pid, ());
            assert!(value.is_done());
            let error = value.await.unwrap_err();
            assert_eq!(
                (error.kind(), error.attempts()),
                (JobErrorKind::Impossible, 0)
            );
        }
        let fits = jobs.on(Cores(2) | Cores(1) & Token("fast"));
        assert_eq!(fits.call(i32::abs, -3).await.unwrap(), 3);
    }));
}

#[test]
fn a_job_takes_delayed_values_when_they_are_there() {
    test(open(one_core(), async |jobs| {
        let numbers: Delayed<Vec<u32>> = (1..4).map(|n| jobs.call(divide, (12, n))).collect();
        let sum = jobs.then(numbers, |numbers: Vec<u32>| numbers.iter().sum::<u32>());
        assert_eq!((sum / 2).await.unwrap(), 11);
        let failing = jobs.then(jobs.call(divide, (1, 0)), divide_by_two);
        assert_eq!(failing.await.unwrap_err().kind(), JobErrorKind::Panicked);
        assert_eq!(jobs.then(8, divide_by_two).await.unwrap(), 4);
    }));
}

#[test]
fn futures_borrow_what_outlives_the_block_and_know_their_allocation() {
    test(async {
        let words = ["a".to_owned(), "few".to_owned()];
        let words = &words;
        let length = open(one_core(), async move |jobs| {
            let one = jobs.on(Cores(1));
            let lengths = words.iter().map(|word| {
                one.spawn(async move {
                    assert_eq!(allocation().unwrap().cores().len(), 1);
                    word.len()
                })
            });
            let total: Delayed<usize> = lengths.sum();
            total.await.unwrap()
        })
        .await;
        assert_eq!(length, 4);
        assert!(allocation().is_none());
    });
}

#[test]
fn a_value_leaves_its_block_with_its_result() {
    test(async {
        let value = open(one_core(), async |jobs| jobs.call(i32::abs, -3) * 2).await;
        assert_eq!(value.await.unwrap(), 6);
    });
}

#[test]
fn the_task_tree_shows_which_jobs_wait_for_resources() {
    seedbed::run(open(one_core(), async |jobs| {
        let one = jobs.on(Cores(1));
        let stop = Arc::new(seedbed::sync::Event::new());
        let stopped = stop.clone();
        let first = one.spawn(async move { stopped.wait().await });
        let second = one.spawn(async {});
        jobs.spawn(seedbed::checkpoint()).await.unwrap(); // so that both were polled
        let tree = seedbed::nursery::task_tree().unwrap().to_string();
        assert!(
            tree.contains("an event") && tree.contains("its resources"),
            "{tree}"
        );
        stop.set();
        each((first, second)).await.unwrap();
    }));
}

#[test]
fn a_block_within_shares_the_resources_and_ends_first() {
    test(open(one_core(), async |jobs| {
        let inner = jobs
            .open(async |inner| inner.call(i32::abs, -1) + inner.call(i32::abs, -2))
            .await;
        assert!(jobs.statistics().resources[0].free == jobs.statistics().resources[0].total);
        assert_eq!((inner + jobs.call(i32::abs, -3)).await.unwrap(), 6);
    }));
}

#[test]
fn a_block_runs_in_a_task_of_an_executor() {
    test(async {
        let task = smol::spawn(async {
            open(one_core(), async |jobs| {
                jobs.call(i32::abs, -3).await.unwrap()
            })
            .await
        });
        assert_eq!(task.await, 3);
    });
}

#[test]
fn at_most_so_many_jobs_are_submitted() {
    test(open(one_core(), async |jobs| {
        let limited = jobs.on(ZERO).at_most(2);
        let stop = Arc::new(seedbed::sync::Event::new());
        let submit = async || {
            let stop = stop.clone();
            limited
                .ready()
                .await
                .spawn(async move { stop.wait().await })
        };
        let first = submit().await;
        let second = submit().await;
        assert!(!poll_with_yields(submit(), 5).await);
        stop.set();
        first.await.unwrap();
        second.await.unwrap();
        submit().await.await.unwrap();
    }));
}

#[test]
#[should_panic(expected = "the nursery is closed to new children")]
fn a_call_after_the_end_of_the_block_is_refused() {
    test(async {
        let jobs = open(one_core(), async |jobs| jobs).await;
        let _ = jobs.call(pid, ());
    });
}

#[test]
fn jobs_without_resources_use_the_current_workers() {
    test(cache_scope(WorkerConfig::new(), async {
        let plain = run_sync(pid, ()).await.unwrap();
        open(Resources::none(), async |jobs| {
            assert_eq!(jobs.on(ZERO).call(pid, ()).await.unwrap(), plain);
        })
        .await;
    }));
}

/// A job that does, by its number, one of the things that jobs do.
fn misbehave(number: u32) -> u32 {
    match number % 4 {
        0 => std::process::abort(),
        1 => panic!("on purpose"),
        2 => loop {
            std::thread::park();
        },
        _ => number,
    }
}

#[test]
fn all_resources_are_free_after_crashes_panics_time_limits_and_cancelled_blocks() {
    let resources = Resources::none()
        .cores(affinity(()))
        .memory(Memory::gib(4))
        .amount("licences", 2);
    test(open(resources, async |jobs| {
        let narrow = jobs.on(Cores(1) & Memory::gib(1));
        let other = jobs.on(Cores::share(0.5) & Units("licences", 1) | Cores(1));
        let mut values: Vec<Delayed<u32>> = Vec::new();
        for number in 0..12 {
            // Short only for jobs that do not end, or a busy machine could end the others.
            let limit = match number % 4 {
                2 => Duration::from_millis(10),
                _ => Duration::from_secs(60),
            };
            values.push(narrow.time_limit(limit).call(misbehave, number));
            values.push(
                other
                    .time_limit(limit)
                    .retry(number % 2)
                    .call(misbehave, number),
            );
            let inner = jobs.open(async |jobs| {
                drop(jobs.prioritized().call(endless, ()));
                drop(jobs.on(Cores(1)).call(endless, ()));
                pending::<()>().await;
            });
            seedbed::move_on_after(Duration::from_millis(number.into()), inner).await;
        }
        let mut done = 0;
        for value in values {
            done += u32::from(value.await.is_ok());
        }
        assert_eq!(done, 6);
        let statistics = jobs.statistics();
        assert_eq!((statistics.running, statistics.queued), (0, 0));
        assert!(
            statistics
                .resources
                .iter()
                .all(|resource| resource.free == resource.total)
        );
    }));
}

#[test]
fn an_error_that_no_await_returns_is_reported_and_another_is_not() {
    let log = Log::new("seedbed::delayed", Level::TRACE);
    tracing::subscriber::with_default(log.clone(), || {
        test(open(one_core(), async |jobs| {
            let seen: Result<u32, JobError> = (jobs.call(divide, (1, 0)) + 1).await;
            assert!(seen.is_err());
        }));
        assert_eq!(log.lines(), [""; 0]);
        test(open(one_core(), async |jobs| {
            drop(jobs.then(jobs.call(divide, (1, 0)), divide_by_two) + delayed_val(1));
        }));
    });
    let log = log.lines().concat();
    assert!(
        log.contains("divide") && log.contains("no await returned its error"),
        "{log}"
    );
    assert_eq!(log.matches("no await").count(), 1, "{log}");
}

#[test]
fn a_faulty_configuration_file_is_the_error_of_each_job() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seedbed.toml");
    std::fs::write(&path, "[resources]\ncoers = 1\n").unwrap();
    let setup = Setup::from_file(&path);
    test(open(setup.clone(), async |jobs| {
        for request in [ZERO, Cores(1).into()] {
            let error = jobs.on(request).call(pid, ()).await.unwrap_err();
            assert_eq!(error.kind(), JobErrorKind::Impossible);
            assert!(
                error.to_string().contains("seedbed.toml, line 2: "),
                "{error}"
            );
        }
    }));
    let error = seedbed::delayed::run(setup, async |_| ()).unwrap_err();
    assert!(error.to_string().contains("`cores`"), "{error}");
}

fn name_of_this_process(_: ()) -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap()
}

#[test]
fn a_setup_names_the_workers_and_the_errors_of_its_block() {
    test(open(
        Setup::from(one_core()).name("weights"),
        async |jobs| {
            let name = jobs.call(name_of_this_process, ()).await.unwrap();
            assert_eq!(name.trim(), "weights-worker");
            let error = jobs.call(divide, (1, 0)).await.unwrap_err();
            assert!(error.to_string().contains("in `weights`"), "{error}");
        },
    ));
}

/// Computes until this process has used so much processor time.
fn compute(millis: u64) -> u32 {
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let micros =
        |time: rustix::time::Timespec| time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000;
    let end = micros(used()) + millis * 1000;
    while micros(used()) < end {
        std::hint::black_box((0..1000).sum::<u64>());
    }
    std::process::id()
}

#[test]
fn a_job_tells_what_it_has_cost() {
    test(open(one_core(), async |jobs| {
        let before = jobs.call(compute, 5);
        assert!(before.statistics().is_none());
        let pid = (&before).await.unwrap();
        let cost = before.statistics().unwrap();
        assert_eq!((cost.attempts, cost.worker_pid), (1, Some(pid)));
        // The kernel divides the time into user and system by ticks.
        let cpu = cost.cpu_user + cost.cpu_system;
        assert!(cpu >= Duration::from_millis(4), "{cost:?}");
        assert!(cost.wall >= Duration::from_millis(4), "{cost:?}");
        assert_eq!(cost.peak_memory, None);
        assert!((before + 1).statistics().is_none());
    }));
}

#[test]
fn the_peak_of_memory_is_that_of_the_job_and_not_of_one_before() {
    let resources = one_core().memory(Memory::gib(1));
    test(open(resources, async |jobs| {
        let limited = jobs.on(Cores(1) & Memory::mib(256));
        let (large, small) = (100 * MEBIBYTE, 10 * MEBIBYTE);
        let mut peaks = Vec::new();
        for bytes in [large, small] {
            let value = limited.call(allocate, bytes);
            (&value).await.unwrap();
            peaks.push(value.statistics().unwrap().peak_memory.unwrap());
        }
        assert!(peaks[0] >= large as u64, "{peaks:?}");
        assert!(
            (small as u64..large as u64).contains(&peaks[1]),
            "{peaks:?}"
        );
        assert_eq!(jobs.statistics().total.peak_memory, Some(peaks[0]));
    }));
}

#[test]
fn the_wait_for_resources_and_the_time_of_a_future_are_those_of_the_run_s_clock() {
    let hours = |count: u64| Duration::from_secs(3600 * count);
    let run = RunBuilder::new().clock(MockClock::autojump());
    run.run(async move {
        open(one_core(), async move |jobs| {
            let one = jobs.on(Cores(1));
            let first = one.spawn(seedbed::sleep(hours(2)));
            let second = one.spawn(seedbed::sleep(hours(3)));
            let third = jobs.spawn(seedbed::sleep(hours(1)));
            each((first.clone(), second.clone(), third.clone()))
                .await
                .unwrap();
            let costs = [first, second, third].map(|value| value.statistics().unwrap());
            let times = costs.map(|cost| (cost.queued, cost.wall));
            let zero = Duration::ZERO;
            assert_eq!(
                times,
                [(zero, hours(2)), (hours(2), hours(3)), (zero, hours(1))]
            );
            let total = jobs.statistics().total;
            assert_eq!(
                (total.queued, total.wall, total.attempts),
                (hours(2), hours(6), 3)
            );
            assert_eq!(costs.map(|cost| cost.worker_pid), [None; 3]);
        })
        .await;
    });
}

#[test]
fn a_refused_job_counts_as_failed_however_it_was_submitted() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::from(one_core()).cache_folder(folder.path());
    test(open(setup, async |jobs| {
        let two = jobs.on(Cores(2));
        let errors = [
            two.call(i32::abs, -1).await.err(),
            two.cached("refused-1").call(i32::abs, -1).await.err(),
            two.then(-1, i32::abs).await.err(),
            two.spawn(async {}).await.err(),
            two.run_process(Command::new("true")).await.err(),
        ];
        let kinds = errors.map(|error| error.map(|error| error.kind()));
        assert_eq!(kinds, [Some(JobErrorKind::Impossible); 5]);
        let now = jobs.statistics();
        let others = now.queued + now.running + now.succeeded + now.cancelled + now.cached;
        assert_eq!((now.submitted, now.failed, others), (5, 5, 0));
    }));
}

#[test]
fn attempts_and_failures_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    test(open(one_core(), async move |jobs| {
        let again = jobs.retry(1).call(crash_once, path);
        (&again).await.unwrap();
        assert_eq!(again.statistics().unwrap().attempts, 2);
        let broken = jobs.call(divide, (1, 0));
        (&broken).await.unwrap_err();
        let cost = broken.statistics().unwrap();
        assert_eq!((cost.attempts, cost.worker_pid), (1, None));
        let refused = jobs.on(Cores(4096)).call(pid, ());
        (&refused).await.unwrap_err();
        assert!(refused.statistics().is_none());
        let statistics = jobs.statistics();
        assert_eq!((statistics.succeeded, statistics.failed), (1, 2));
        assert_eq!((statistics.submitted, statistics.total.attempts), (3, 3));
        let table = format!("{statistics:#}");
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0], "0 running, 0 queued");
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            ["cores", "1", "of", "1", "free"]
        );
        assert!(
            lines[2].starts_with("succeeded") && lines[2].ends_with(" 1"),
            "{table}"
        );
    }));
}
