//! Large arguments travel in memory that is used again: right in content, whatever happens to the calls, and given back in time.

#[macro_use]
mod common;

use std::collections::BTreeSet;
use std::future::{IntoFuture, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{pid, test, with_workers};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext, WorkerErrorKind};

const LARGE: usize = 300_000;

/// A text of so many bytes that differs from all others of this length.
fn text(number: u32, length: usize) -> String {
    let mut text = format!("{number:-<40}").repeat(length / 40 + 1);
    text.truncate(length);
    text
}

fn is_right((number, length, found): (u32, usize, String)) -> bool {
    found == text(number, length)
}

fn are_right((number, length, found): (u32, usize, Vec<u32>)) -> bool {
    found == vec![number; length]
}

async fn send(workers: &WorkerContext, number: u32, length: usize) -> bool {
    let argument = (number, length, text(number, length));
    workers.run_sync(is_right, argument).await.unwrap()
}

/// The arenas that a process has mapped, by address, device and inode.
fn arenas_of(process: &str) -> BTreeSet<String> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let lines = maps.lines().filter(|line| line.contains("seedbed-arena"));
    lines.map(str::to_owned).collect()
}

fn arenas_here() -> BTreeSet<String> {
    arenas_of("self")
}

/// How many descriptors of arenas this process has.
fn descriptors_here() -> usize {
    let open = common::descriptors();
    let of_arenas = open.iter().filter(|lead| lead.contains("seedbed-arena"));
    of_arenas.count()
}

/// Waits until something is so. The limit is there for a test that fails.
async fn until(mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < limit, "it has not become so");
        smol::future::yield_now().await;
    }
}

fn arguments_of_all_sizes_arrive_the_first_time_and_again() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let sizes = [200 << 10, 1 << 20, 7 << 20, 100 << 20, 300_001, 1 << 19];
        for (number, size) in (0..).zip(sizes) {
            assert!(send(&workers, number, size).await);
            assert!(send(&workers, number + 100, size).await);
            assert!(send(&workers, number + 200, size - 40_000).await);
        }
        // Those of which nobody knows the length before.
        for (number, length) in (0..).zip([50_000, 400_000, 400_000, 60_000, 900_000]) {
            let argument = (number, length, vec![number; length]);
            assert!(workers.run_sync(are_right, argument).await.unwrap());
        }
    }));
}

fn one_arena_serves_one_call_after_the_other() {
    fn look(argument: (u32, usize, String)) -> BTreeSet<String> {
        assert!(is_right(argument));
        arenas_of("self")
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let mut seen = BTreeSet::new();
        let mut seen_there = BTreeSet::new();
        for number in 0..10 {
            let argument = (number, LARGE, text(number, LARGE));
            seen_there.insert(workers.run_sync(look, argument).await.unwrap());
            seen.insert(arenas_here());
            assert_eq!(descriptors_here(), 1);
        }
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen_there.len(), 1, "the worker keeps it: {seen_there:?}");
        let (ours, theirs) = (seen.pop_first().unwrap(), seen_there.pop_first().unwrap());
        assert_eq!((ours.len(), theirs.len()), (1, 1));
        let place = |line: &str| -> Vec<String> {
            line.split_ascii_whitespace().map(str::to_owned).collect()
        };
        let (ours, theirs) = (place(ours.first().unwrap()), place(theirs.first().unwrap()));
        assert_eq!((&*ours[1], &*theirs[1]), ("rw-s", "r--s"));
        assert_eq!(ours[3..], theirs[3..], "it is the same memory");
    }));
}

fn what_has_answered_is_used_again_also_if_the_answer_is_an_error() {
    fn panic((_, _, _): (u32, usize, String)) {
        panic!("on purpose")
    }
    fn wrong_type(_: (u32, usize, String, u64)) {}
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert!(send(&workers, 1, LARGE).await);
        let arenas = arenas_here();
        let argument = || (2, LARGE, text(2, LARGE));
        let error = workers.run_sync(panic, argument()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Panicked);
        assert_eq!(arenas_here(), arenas);
        let call = workers.run_sync(wrong_type, (3, LARGE, text(3, LARGE), 4));
        assert!(call.await.is_ok());
        assert_eq!(arenas_here(), arenas);
    }));
}

fn for_ever(_: String) {
    loop {
        std::hint::spin_loop();
    }
}

fn what_a_killed_or_crashed_worker_had_is_not_used_again() {
    fn crash(_: String) {
        std::process::abort()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert!(send(&workers, 1, LARGE).await);
        assert_eq!(arenas_here().len(), 1);
        let crashed = workers.run_sync(crash, text(2, LARGE)).await.unwrap_err();
        assert_eq!(crashed.kind(), WorkerErrorKind::Broken);
        assert_eq!((arenas_here().len(), descriptors_here()), (0, 0));
        assert!(send(&workers, 3, LARGE).await);
        let scope = CancelScope::new();
        let call = workers
            .run_sync(for_ever, text(4, LARGE))
            .kill_on_cancel(true);
        let cancelling = async {
            // It has been written, whether or not anybody has it yet.
            until(|| workers.statistics().idle_workers == 0).await;
            scope.cancel();
        };
        let (outcome, ()) = smol::future::zip(scope.run(call), cancelling).await;
        assert!(outcome.is_none());
        assert_eq!((arenas_here().len(), descriptors_here()), (0, 0));
        assert!(send(&workers, 5, LARGE).await);
    }));
}

async fn poll_so_often<F: Future>(future: F, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        let done = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if done {
            return true;
        }
        smol::future::yield_now().await;
    }
    false
}

/// Some are killed, some go on in the background, and what others send at the same time is right.
fn calls_that_are_dropped_at_any_point_disturb_no_other() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for kill in [false, true] {
            let mut number = 0;
            for times in 1.. {
                number += 2;
                let argument = (number, LARGE, text(number, LARGE));
                let call = workers.run_sync(is_right, argument).kill_on_cancel(kill);
                let is_done = poll_so_often(call.into_future(), times).await;
                assert!(send(&workers, number + 1, LARGE).await);
                if is_done || times == 30 {
                    break;
                }
            }
        }
    }));
}

fn calls_that_are_cancelled_at_any_point_disturb_no_other() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for times in 1..15 {
            let scope = CancelScope::new();
            let argument = (times, LARGE, text(times, LARGE));
            let call = workers.run_sync(is_right, argument).kill_on_cancel(true);
            let cancelling = async {
                for _ in 0..times {
                    smol::future::yield_now().await;
                }
                scope.cancel();
            };
            let (outcome, ()) = smol::future::zip(scope.run(call), cancelling).await;
            assert!(outcome.is_none_or(|is_right| is_right.unwrap()));
            assert!(send(&workers, times + 100, LARGE).await);
        }
    }));
}

fn callers_at_once_have_an_arena_each() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let limiter = CapacityLimiter::new(3);
        let (limiter, workers) = (&limiter, &workers);
        seedbed::open_nursery(async |n| {
            for caller in 0..6u32 {
                n.spawn(async move {
                    for round in 0..6 {
                        let number = caller * 100 + round;
                        let length = LARGE + (number as usize * 12_345) % 700_000;
                        let argument = (number, length, text(number, length));
                        let call = workers.run_sync(is_right, argument).limiter(limiter);
                        assert!(call.await.unwrap());
                    }
                });
            }
        })
        .await;
        assert!((1..=16).contains(&arenas_here().len()));
    }));
}

fn an_arena_that_nobody_uses_goes_after_a_while() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert!(send(&workers, 1, LARGE).await);
        assert_eq!(arenas_here().len(), 1);
        until(|| arenas_here().is_empty() && descriptors_here() == 0).await;
        // And a new one comes and goes.
        assert!(send(&workers, 2, LARGE).await);
        assert_eq!(arenas_here().len(), 1);
        until(|| arenas_here().is_empty() && descriptors_here() == 0).await;
    }));
}

fn an_idle_worker_lets_go_and_serves_on() {
    let hour = Duration::from_secs(3600);
    for config in [
        WorkerConfig::new(),
        WorkerConfig::new().idle_timeout(hour),
        WorkerConfig::new().idle_timeout(Duration::MAX),
    ] {
        test(with_workers(config, |workers| async move {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            for number in 0..2 {
                assert!(send(&workers, number, LARGE).await);
                let of_worker = || arenas_of(&worker.to_string());
                assert_eq!(of_worker().len(), 1, "it keeps it for the next job");
                until(|| of_worker().is_empty()).await;
            }
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        }));
    }
}

/// Small jobs in between do not keep it there.
fn a_busy_worker_lets_go_too() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        assert!(send(&workers, 1, LARGE).await);
        let limit = Instant::now() + Duration::from_secs(20);
        while !arenas_of(&worker.to_string()).is_empty() {
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
            assert!(Instant::now() < limit, "it holds on to it");
        }
    }));
}

/// It would otherwise leave later than it was told to.
fn a_worker_that_is_to_leave_sooner_than_it_lets_go_leaves() {
    let config = WorkerConfig::new().idle_timeout(Duration::from_millis(20));
    test(with_workers(config, |workers| async move {
        assert!(send(&workers, 1, LARGE).await);
        until(|| workers.statistics().idle_workers == 0).await;
        assert!(send(&workers, 2, LARGE).await);
    }));
}

fn the_end_of_a_context_leaves_no_arena() {
    test(async {
        let kept = with_workers(WorkerConfig::new(), |workers| async move {
            assert!(send(&workers, 1, LARGE).await);
            workers
        });
        let kept = kept.await;
        until(|| arenas_here().is_empty() && descriptors_here() == 0).await;
        drop(kept);
    });
}

fn limit_files(to: u64) -> Rlimit {
    let before = getrlimit(Resource::Fsize);
    let current = Some(to);
    setrlimit(Resource::Fsize, Rlimit { current, ..before }).unwrap();
    before
}

/// Neither what cannot be made, nor what can be made and not be made larger, is a signal or an error.
fn where_files_are_limited_large_arguments_arrive_all_the_same() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert!(send(&workers, 0, LARGE).await); // starts the worker, which inherits the limits
        until(|| arenas_here().is_empty()).await;
        for (number, limit) in (1..).zip([200_000, 299_999, 300_100, 310_000]) {
            let before = limit_files(limit);
            let is_right = send(&workers, number, LARGE).await;
            setrlimit(Resource::Fsize, before).unwrap();
            assert!(is_right);
        }
    }));
}

fn an_arena_that_is_there_needs_no_descriptor_more() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert!(send(&workers, 0, LARGE).await);
        let arenas = arenas_here();
        let argument = (1, LARGE, text(1, LARGE));
        let mut call = pin!(workers.run_sync(is_right, argument).into_future());
        let before = getrlimit(Resource::Nofile);
        let free = std::fs::File::open("/dev/null").unwrap();
        let lowest = std::os::fd::AsRawFd::as_raw_fd(&free) as u64;
        drop(free);
        let current = Some(lowest);
        setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
        let first = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        setrlimit(Resource::Nofile, before).unwrap();
        let is_right = match first {
            Poll::Ready(answer) => answer,
            Poll::Pending => call.await,
        };
        assert!(is_right.unwrap());
        assert_eq!(arenas_here(), arenas);
    }));
}

fn workers_with_few_files_get_no_arena() {
    let config = WorkerConfig::new().open_file_limit(2);
    test(with_workers(config, |workers| async move {
        for number in 0..3 {
            assert!(send(&workers, number, LARGE).await);
            assert!(arenas_here().is_empty());
        }
    }));
}

suite! {
    arguments_of_all_sizes_arrive_the_first_time_and_again,
    one_arena_serves_one_call_after_the_other,
    what_has_answered_is_used_again_also_if_the_answer_is_an_error,
    what_a_killed_or_crashed_worker_had_is_not_used_again,
    calls_that_are_dropped_at_any_point_disturb_no_other,
    calls_that_are_cancelled_at_any_point_disturb_no_other,
    callers_at_once_have_an_arena_each,
    an_arena_that_nobody_uses_goes_after_a_while,
    an_idle_worker_lets_go_and_serves_on,
    a_busy_worker_lets_go_too,
    a_worker_that_is_to_leave_sooner_than_it_lets_go_leaves,
    the_end_of_a_context_leaves_no_arena,
    where_files_are_limited_large_arguments_arrive_all_the_same,
    an_arena_that_is_there_needs_no_descriptor_more,
    workers_with_few_files_get_no_arena,
}
