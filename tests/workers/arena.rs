//! Large arguments in reused memory: the contents are right, whatever happens to the calls, and the
//! memory is freed in time.

use std::collections::BTreeSet;
use std::future::{IntoFuture, poll_fn};
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::common;
use crate::common::{mapping_at, pid, poll_with_yields, test, with_workers};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seedbed::worker::{SharedBytes, SharedSlice, WorkerErrorKind};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext};
use serde::{Deserialize, Deserializer, Serialize};

const LARGE: usize = 300_000;

/// Returns a text of `length` bytes that differs from all others of this length.
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

/// Returns the arenas that a process has mapped, by address, device and inode.
fn arenas_of(process: &str) -> BTreeSet<String> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let lines = maps.lines().filter(|line| line.contains("seedbed-arena"));
    lines.map(str::to_owned).collect()
}

fn arenas_here() -> BTreeSet<String> {
    arenas_of("self")
}

/// Returns how many descriptors of arenas this process has.
fn descriptors_here() -> usize {
    let open = common::descriptors();
    let of_arenas = open.iter().filter(|lead| lead.contains("seedbed-arena"));
    of_arenas.count()
}

/// Waits until a condition holds, which costs a look at it every few milliseconds. The time limit
/// only matters in a failing test.
async fn until(mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < limit, "it has not become so");
        smol::Timer::after(Duration::from_millis(5)).await;
    }
}

/// How long unused arenas are kept.
const LINGER: Duration = Duration::from_secs(1);

/// Runs a scenario until it succeeds. If it fails, the machine may have been so slow that the
/// arenas were freed in between.
async fn unless_held_up(scenario: impl AsyncFn() -> Result<(), String>) {
    loop {
        let begun = Instant::now();
        match scenario().await {
            Ok(()) => return,
            Err(what) => assert!(begun.elapsed() >= LINGER, "{what}"),
        }
    }
}

/// An assertion in such a scenario.
macro_rules! see {
    ($left:expr, $right:expr) => {
        let (left, right) = ($left, $right);
        if left != right {
            return Err(format!("line {}: {left:?} and {right:?}", line!()));
        }
    };
}

fn arguments_of_all_sizes_arrive_the_first_time_and_again() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let sizes = [200 << 10, 1 << 20, 7 << 20, 100 << 20, 300_001, 1 << 19];
        for (number, size) in (0..).zip(sizes) {
            assert!(send(&workers, number, size).await);
            assert!(send(&workers, number + 100, size).await);
            assert!(send(&workers, number + 200, size - 40_000).await);
        }
        // The length of these values is unknown when encoding starts.
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
        let scenario = async || {
            let (mut seen, mut seen_there) = (BTreeSet::new(), BTreeSet::new());
            for number in 0..10 {
                let argument = (number, LARGE, text(number, LARGE));
                seen_there.insert(workers.run_sync(look, argument).await.unwrap());
                seen.insert(arenas_here());
                see!(descriptors_here(), 1);
            }
            // The worker keeps its mapping.
            see!((seen.len(), seen_there.len()), (1, 1));
            let (ours, theirs) = (seen.pop_first().unwrap(), seen_there.pop_first().unwrap());
            see!((ours.len(), theirs.len()), (1, 1));
            let words = |line: &str| -> Vec<String> {
                line.split_ascii_whitespace().map(str::to_owned).collect()
            };
            let (ours, theirs) = (words(ours.first().unwrap()), words(theirs.first().unwrap()));
            see!((&*ours[1], &*theirs[1]), ("rw-s", "r--s"));
            see!(&ours[3..], &theirs[3..]); // device, inode and name
            Ok(())
        };
        unless_held_up(scenario).await;
    }));
}

fn an_arena_is_used_again_after_an_answer_even_if_that_is_an_error() {
    fn panic((_, _, _): (u32, usize, String)) {
        panic!("on purpose")
    }
    fn misread((_, broken): (String, Fragile)) -> Fragile {
        broken
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let scenario = async || {
            see!(send(&workers, 1, LARGE).await, true);
            let arenas = arenas_here();
            let argument = (2, LARGE, text(2, LARGE));
            let error = workers.run_sync(panic, argument).await.unwrap_err();
            see!(error.kind(), WorkerErrorKind::Panicked);
            see!(&arenas_here(), &arenas);
            let argument = (text(3, LARGE), Fragile);
            let error = workers.run_sync(misread, argument).await.err().unwrap();
            see!(error.kind(), WorkerErrorKind::DecodeArgument);
            see!(&arenas_here(), &arenas);
            Ok(())
        };
        unless_held_up(scenario).await;
    }));
}

/// A value that cannot be decoded.
#[derive(Serialize)]
struct Fragile;

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("broke on the way"))
    }
}

fn forever(_: String) {
    loop {
        std::hint::spin_loop();
    }
}

fn the_arena_of_a_killed_or_crashed_worker_is_not_used_again() {
    fn crash(_: String) {
        std::process::abort()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert!(send(&workers, 1, LARGE).await);
        let crashed = workers.run_sync(crash, text(2, LARGE)).await.unwrap_err();
        assert_eq!(crashed.kind(), WorkerErrorKind::Broken);
        assert_eq!((arenas_here().len(), descriptors_here()), (0, 0));
        assert!(send(&workers, 3, LARGE).await);
        let scope = CancelScope::new();
        let call = workers
            .run_sync(forever, text(4, LARGE))
            .kill_on_cancel(true);
        let cancelling = async {
            // The argument has been encoded, whether or not a worker has it yet.
            until(|| workers.statistics().idle_workers == 0).await;
            scope.cancel();
        };
        let (outcome, ()) = smol::future::zip(scope.run(call), cancelling).await;
        assert!(outcome.is_none());
        assert_eq!((arenas_here().len(), descriptors_here()), (0, 0));
        assert!(send(&workers, 5, LARGE).await);
    }));
}

/// Some calls are killed, some go on in the background, and the arguments of all others are right.
fn calls_that_are_dropped_at_any_point_disturb_no_other() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for kill in [false, true] {
            let mut number = 0;
            for times in 1.. {
                number += 2;
                let argument = (number, LARGE, text(number, LARGE));
                let call = workers.run_sync(is_right, argument).kill_on_cancel(kill);
                let is_done = poll_with_yields(call.into_future(), times).await;
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
        assert!(arenas_here().len() <= 16);
    }));
}

fn an_unused_arena_is_freed_after_a_while() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        // A new arena is made and freed.
        for number in 0..2 {
            let scenario = async || {
                see!(send(&workers, number, LARGE).await, true);
                see!((arenas_here().len(), descriptors_here()), (1, 1));
                Ok(())
            };
            unless_held_up(scenario).await;
            until(|| arenas_here().is_empty() && descriptors_here() == 0).await;
        }
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
            let of_worker = || arenas_of(&worker.to_string()).len();
            for number in 0..2 {
                let scenario = async || {
                    see!(send(&workers, number, LARGE).await, true);
                    see!(of_worker(), 1); // for the next job
                    Ok(())
                };
                unless_held_up(scenario).await;
                until(|| of_worker() == 0).await;
            }
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        }));
    }
}

/// Small jobs in between do not keep the arena mapped.
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

/// Otherwise the worker would exit later than its idle timeout.
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

/// An arena that cannot be made, or not be enlarged, is neither a signal nor an error.
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
        let scenario = async || {
            see!(send(&workers, 0, LARGE).await, true);
            let arenas = arenas_here();
            let argument = (1, LARGE, text(1, LARGE));
            let mut call = pin!(workers.run_sync(is_right, argument).into_future());
            let before = no_more_files();
            let first = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
            setrlimit(Resource::Nofile, before).unwrap();
            let is_right = match first {
                Poll::Ready(answer) => answer,
                Poll::Pending => call.await,
            };
            see!(is_right.unwrap(), true);
            see!(arenas_here(), arenas);
            Ok(())
        };
        unless_held_up(scenario).await;
    }));
}

/// Limits the process to the descriptors that it has now. Returns the former limit.
fn no_more_files() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let free = std::fs::File::open("/dev/null").unwrap();
    let current = Some(free.as_raw_fd() as u64);
    setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
    before
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

fn shared(number: u32, length: usize) -> SharedBytes {
    text(number, length).into_bytes().into()
}

fn is_shared_right((number, length, found): (u32, usize, SharedBytes)) -> bool {
    *found == *text(number, length).as_bytes()
}

fn a_vector_that_was_made_shared_is_read_in_the_arena() {
    type Argument = (
        String,
        SharedSlice<f64>,
        SharedBytes,
        Option<SharedSlice<u16>>,
    );
    fn look((text, numbers, bytes, more): Argument) -> (String, f64, [String; 3]) {
        let more = more.unwrap();
        assert!(bytes.iter().all(|byte| *byte == 3) && more.iter().all(|number| *number == 4));
        let mappings = [mapping_at(&numbers), mapping_at(&bytes), mapping_at(&more)];
        (text, numbers.iter().sum(), mappings)
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for text in [text(1, LARGE), "short".to_owned()] {
            let numbers = SharedSlice::from(vec![0.5; 100_000]);
            let bytes = SharedBytes::from(vec![3; 77]);
            let more = SharedSlice::from(vec![4; 100_001]);
            let argument = (text.clone(), numbers, bytes, Some(more));
            let (back, sum, mappings) = workers.run_sync(look, argument).await.unwrap();
            assert_eq!((back == text, sum), (true, 50_000.0));
            assert!(mappings[0].contains("seedbed-arena"), "{mappings:?}");
            assert!(mappings.iter().all(|mapping| *mapping == mappings[0]));
        }
    }));
}

fn a_small_vector_that_was_made_shared_needs_no_memory() {
    fn look(argument: (u32, usize, SharedBytes)) -> bool {
        assert!(arenas_here().is_empty() && descriptors_here() == 0);
        is_shared_right(argument)
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for length in [0, 1, 100, 10_000, 100_000] {
            let argument = (1, length, shared(1, length));
            assert!(workers.run_sync(look, argument).await.unwrap());
            assert!(arenas_here().is_empty());
        }
    }));
}

fn where_there_is_no_arena_it_arrives_all_the_same() {
    let config = WorkerConfig::new().open_file_limit(2);
    test(with_workers(config, |workers| async move {
        let argument = (1, LARGE, shared(1, LARGE));
        assert!(workers.run_sync(is_shared_right, argument).await.unwrap());
    }));
    test(with_workers(WorkerConfig::new(), |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        for (number, limit) in (1..).zip([200_000, LARGE as u64 + 4096, 310_000]) {
            let before = limit_files(limit);
            let argument = (number, LARGE, shared(number, LARGE));
            let is_right = workers.run_sync(is_shared_right, argument).await;
            setrlimit(Resource::Fsize, before).unwrap();
            assert!(is_right.unwrap());
        }
    }));
}

static KEPT: Mutex<Vec<SharedBytes>> = Mutex::new(Vec::new());

fn keep(bytes: SharedBytes) {
    KEPT.lock().unwrap().push(bytes);
}

fn what_a_job_has_kept(_: ()) -> Vec<u8> {
    KEPT.lock().unwrap().iter().flatten().copied().collect()
}

fn forget(_: ()) {
    KEPT.lock().unwrap().clear();
}

fn memory_that_a_job_keeps_does_not_change_and_its_arena_is_not_used_again() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let of_worker = || arenas_of(&worker.to_string()).len();
        for number in 0..3 {
            workers.run_sync(keep, shared(number, LARGE)).await.unwrap();
            // The arena will not be used again.
            assert_eq!((arenas_here().len(), descriptors_here()), (0, 0));
            assert_eq!(of_worker(), number as usize + 1);
        }
        let begun = Instant::now();
        for number in 10..20 {
            assert!(send(&workers, number, LARGE).await);
            let argument = (number, LARGE, shared(number, LARGE));
            assert!(workers.run_sync(is_shared_right, argument).await.unwrap());
        }
        let seen = (arenas_here().len(), of_worker());
        let kept = workers.run_sync(what_a_job_has_kept, ()).await.unwrap();
        let sent: Vec<String> = (0..3).map(|number| text(number, LARGE)).collect();
        assert!(kept == sent.concat().into_bytes());
        workers.run_sync(forget, ()).await.unwrap();
        let seen = (seen, of_worker());
        if begun.elapsed() < LINGER {
            assert_eq!(seen, ((1, 4), 1));
        }
    }));
}

/// Including a process that reads on after its job is over.
fn a_thread_that_a_job_leaves_behind_reads_its_argument_unchanged() {
    static ANSWER: Mutex<Option<std::sync::mpsc::Sender<()>>> = Mutex::new(None);
    static WRONG: Mutex<Option<std::thread::JoinHandle<bool>>> = Mutex::new(None);
    fn start(argument: (u32, usize, SharedBytes)) {
        let (sender, over) = std::sync::mpsc::channel();
        *ANSWER.lock().unwrap() = Some(sender);
        let reads_on = move || {
            let mut is_right = true;
            while over.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                is_right &= is_shared_right(argument.clone());
            }
            is_right
        };
        *WRONG.lock().unwrap() = Some(std::thread::spawn(reads_on));
    }
    fn end(_: ()) -> bool {
        drop(ANSWER.lock().unwrap().take());
        WRONG.lock().unwrap().take().unwrap().join().unwrap()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let argument = (1, LARGE, shared(1, LARGE));
        workers.run_sync(start, argument).await.unwrap();
        for number in 2..10 {
            assert!(send(&workers, number, LARGE).await);
        }
        assert!(workers.run_sync(end, ()).await.unwrap());
    }));
}

fn a_result_that_is_the_argument_or_a_vector_lies_in_memory_of_its_own() {
    fn back((bytes, panics): (SharedBytes, bool)) -> (SharedBytes, SharedBytes) {
        if panics {
            std::panic::panic_any(bytes);
        }
        (bytes.slice(1..), shared(7, LARGE))
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let argument = (shared(1, LARGE), false);
        let (back_again, made) = workers.run_sync(back, argument).await.unwrap();
        assert!(*back_again == text(1, LARGE).as_bytes()[1..]);
        assert!(*made == *text(7, LARGE).as_bytes());
        assert!(mapping_at(&back_again).contains("seedbed-shared"));
        assert_eq!(mapping_at(&back_again), mapping_at(&made));
        let scenario = async || {
            let argument = (shared(2, LARGE), true);
            let error = workers.run_sync(back, argument).await.unwrap_err();
            see!(error.kind(), WorkerErrorKind::Panicked);
            see!(descriptors_here(), 1); // the arena was returned
            Ok(())
        };
        unless_held_up(scenario).await;
        // Memory that came from a worker goes to another as a descriptor.
        let argument = (7, LARGE, made);
        assert!(workers.run_sync(is_shared_right, argument).await.unwrap());
    }));
}

/// The parent cannot tell what a process reads that a job has forked.
fn a_process_that_a_job_forks_does_not_have_the_arena() {
    fn fork(bytes: SharedBytes) -> (i32, i32) {
        // SAFETY: the forked process accesses memory, which ends it, or else ends at once.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            // The next mapping may get the arena's address.
            let _elsewhere = std::hint::black_box(vec![0u8; LARGE]);
            let byte = std::hint::black_box(bytes[LARGE / 2]);
            // SAFETY: any process may call `_exit` at any moment.
            unsafe { libc::_exit(i32::from(byte)) };
        }
        let mut status = 0;
        // SAFETY: `status` has room for an `int`.
        unsafe { libc::waitpid(copy, &raw mut status, 0) };
        (i32::from(bytes[0]), libc::WTERMSIG(status))
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (first, signal) = workers.run_sync(fork, shared(8, LARGE)).await.unwrap();
        assert_eq!((first, signal), (i32::from(b'8'), libc::SIGABRT));
    }));
}

suite! {
    arguments_of_all_sizes_arrive_the_first_time_and_again,
    one_arena_serves_one_call_after_the_other,
    an_arena_is_used_again_after_an_answer_even_if_that_is_an_error,
    the_arena_of_a_killed_or_crashed_worker_is_not_used_again,
    calls_that_are_dropped_at_any_point_disturb_no_other,
    calls_that_are_cancelled_at_any_point_disturb_no_other,
    callers_at_once_have_an_arena_each,
    an_unused_arena_is_freed_after_a_while,
    an_idle_worker_lets_go_and_serves_on,
    a_busy_worker_lets_go_too,
    a_worker_that_is_to_leave_sooner_than_it_lets_go_leaves,
    the_end_of_a_context_leaves_no_arena,
    where_files_are_limited_large_arguments_arrive_all_the_same,
    an_arena_that_is_there_needs_no_descriptor_more,
    workers_with_few_files_get_no_arena,
    a_vector_that_was_made_shared_is_read_in_the_arena,
    a_small_vector_that_was_made_shared_needs_no_memory,
    where_there_is_no_arena_it_arrives_all_the_same,
    memory_that_a_job_keeps_does_not_change_and_its_arena_is_not_used_again,
    a_thread_that_a_job_leaves_behind_reads_its_argument_unchanged,
    a_result_that_is_the_argument_or_a_vector_lies_in_memory_of_its_own,
    a_process_that_a_job_forks_does_not_have_the_arena,
}
