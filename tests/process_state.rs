//! The parts of a process's state that this crate's threads depend on: forks, the properties of
//! threads, and closed descriptors.

#[path = "common/dispositions.rs"]
mod dispositions;
#[macro_use]
#[path = "common/scenarios.rs"]
mod scenarios;

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use scenarios::outcome;
use seedbed::process::run_process;
use seedbed::signal::{SIGINT, SIGUSR1, open_signal_receiver};
use seedbed::testing::MockClock;
use seedbed::time::sleep_forever;
use seedbed::{RunBuilder, checkpoint, move_on_after, open_nursery, run, sleep, thread};

const MILLISECOND: Duration = Duration::from_millis(1);

const TESTS: scenarios::Named = names![
    a_forked_process_calls_functions_on_threads_of_its_own,
    a_forked_process_whose_original_used_all_tokens_has_new_ones,
    a_wait_for_the_reactor_in_a_forked_process_panics_with_the_reason,
    a_run_that_goes_on_in_a_forked_process_panics_at_its_next_wait,
    sigint_kills_a_forked_process_that_was_forked_in_a_run,
    threads_and_workers_have_the_properties_of_the_main_thread,
    no_descriptor_takes_the_place_of_a_closed_standard_one,
];

const SCENARIOS: scenarios::Named = names![
    forks_and_calls,
    forks_without_tokens,
    forks_and_waits,
    forks_in_a_run,
    forks_and_is_interrupted,
    calls_on_an_odd_thread,
    closes_its_descriptors,
];

fn main() {
    scenarios::main(TESTS, SCENARIOS)
}

#[track_caller]
fn assert_exits(name: &str, code: i32) {
    let (status, printed) = outcome(name);
    assert_eq!(status.code(), Some(code), "{name}: {status:?} {printed}");
}

// ---- Forks.

/// Forks, and runs `body` in the forked process, which exits with its result. Returns how the
/// forked process ended.
fn in_a_fork(body: impl FnOnce() -> i32) -> ExitStatus {
    // SAFETY: the forked process uses locks that are free in the original at this moment: the
    // scenarios have no thread that runs.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = body();
        std::process::exit(code);
    }
    assert!(scenarios::ends_within_bound(Pid::from_raw(pid).unwrap()) || kill(pid));
    let mut status = 0;
    // SAFETY: `status` has room for an `int`.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    ExitStatus::from_raw(status)
}

/// Kills a forked process that hangs, and returns false.
fn kill(pid: i32) -> bool {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    false
}

/// Exits with the exit code of a forked process.
fn exit_as(forked: ExitStatus) -> ! {
    std::process::exit(forked.code().unwrap_or(100))
}

/// The call was given to an idle thread of the original process, and waited forever.
fn a_forked_process_calls_functions_on_threads_of_its_own() {
    assert_exits("forks_and_calls", 21);
}

fn forks_and_calls() {
    run(async { thread::run_sync(|| ()).await });
    exit_as(in_a_fork(|| {
        let in_run = run(open_nursery(async |n| {
            let child = n.spawn(async { thread::run_sync(|| 1).await });
            checkpoint().await;
            child.await
        }));
        // A clock that jumps needs no reactor.
        let clock = MockClock::autojump();
        RunBuilder::new().clock(clock).run(sleep(MILLISECOND));
        let outside = futures_lite::future::block_on(async { thread::run_sync(|| 20).await });
        in_run + outside
    }));
}

fn a_forked_process_whose_original_used_all_tokens_has_new_ones() {
    assert_exits("forks_without_tokens", 7);
}

fn forks_without_tokens() {
    let limiter = thread::current_default_thread_limiter();
    let _all: Vec<_> = (0..limiter.total().unwrap())
        .map(|_| limiter.try_acquire().unwrap())
        .collect();
    // The first call makes this process the original.
    run(async {});
    exit_as(in_a_fork(|| {
        futures_lite::future::block_on(async { thread::run_sync(|| 7).await })
    }));
}

/// They waited forever.
fn a_wait_for_the_reactor_in_a_forked_process_panics_with_the_reason() {
    assert_exits("forks_and_waits", 0);
}

fn forks_and_waits() {
    run(async { sleep(MILLISECOND).await });
    let receiver = open_signal_receiver(&[SIGUSR1]).unwrap();
    exit_as(in_a_fork(move || {
        let mut receiver = receiver;
        let waits: [Box<dyn FnOnce()>; 6] = [
            Box::new(|| run(sleep(MILLISECOND))),
            Box::new(|| _ = run(move_on_after(MILLISECOND, sleep_forever()))),
            Box::new(|| futures_lite::future::block_on(sleep(MILLISECOND))),
            Box::new(|| _ = open_signal_receiver(&[SIGUSR1])),
            Box::new(|| _ = run(run_process(Command::new("true")))),
            Box::new(move || _ = futures_lite::future::block_on(receiver.next())),
        ];
        for (number, wait) in waits.into_iter().enumerate() {
            let Err(panic) = catch_unwind(AssertUnwindSafe(wait)) else {
                return 10 + number as i32;
            };
            let text = panic.downcast_ref::<String>().expect("a message");
            if !text.contains("was forked from a program that had used seedbed") {
                return 20 + number as i32;
            }
        }
        0
    }));
}

fn a_run_that_goes_on_in_a_forked_process_panics_at_its_next_wait() {
    assert_exits("forks_in_a_run", 101);
}

fn forks_in_a_run() {
    let mut forked = None;
    let is_forked = &mut forked;
    let body = async move {
        // SAFETY: the forked process uses locks that are free in the original at this moment.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            checkpoint().await;
            sleep_forever().await
        }
        *is_forked = Some(pid);
    };
    run(body);
    let pid = Pid::from_raw(forked.unwrap());
    assert!(scenarios::ends_within_bound(pid.unwrap()) || kill(forked.unwrap()));
    let waited = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    let (_, status) = waited.unwrap().unwrap();
    std::process::exit(status.exit_status().unwrap());
}

/// It inherited that a run received the signal.
fn sigint_kills_a_forked_process_that_was_forked_in_a_run() {
    assert_exits("forks_and_is_interrupted", SIGINT);
}

fn forks_and_is_interrupted() {
    let signal = run(async {
        let forked = in_a_fork(|| {
            kill_process(getpid(), Signal::INT).unwrap();
            0
        });
        checkpoint().await;
        forked.signal()
    });
    std::process::exit(signal.unwrap_or(100));
}

// ---- Properties of threads.

/// A worker and a thread kept the affinity, the niceness and the signal mask of the thread that
/// made the first call.
fn threads_and_workers_have_the_properties_of_the_main_thread() {
    assert_exits("calls_on_an_odd_thread", 0);
}

/// The processors, the niceness and the blocked signals of a thread.
fn properties(_: ()) -> (u32, i32, String) {
    let processors = sched_getaffinity(None).unwrap().count();
    let niceness = rustix::process::getpriority_process(None).unwrap();
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let mask = status.lines().find(|line| line.starts_with("SigBlk"));
    (processors, niceness, mask.unwrap().to_owned())
}

fn calls_on_an_odd_thread() {
    seedbed::init();
    let main = properties(());
    let calls = || {
        let mut first = CpuSet::new();
        first.set(0);
        // An error where processor 0 is not this process's.
        _ = sched_setaffinity(None, &first);
        // Only root can go back, and what cannot be undone is not taken over.
        if rustix::process::geteuid().is_root() {
            rustix::process::setpriority_process(None, 5).unwrap();
        }
        block_all_signals();
        smol::block_on(async {
            let worker = seedbed::run_sync(properties, ()).await.unwrap();
            (worker, thread::run_sync(|| properties(())).await)
        })
    };
    let (worker, on_thread) = std::thread::spawn(calls).join().unwrap();
    assert_eq!(on_thread, main);
    assert_eq!((worker.0, worker.1), (main.0, main.1));
    std::process::exit(0);
}

fn block_all_signals() {
    let mut all = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises the set, and the null pointer means that the old mask is not
    // requested.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}

// ---- Closed descriptors.

/// `println!` wrote into the socket by which the run was told of SIGINT, and so killed the program.
fn no_descriptor_takes_the_place_of_a_closed_standard_one() {
    assert_exits("closes_its_descriptors", 0);
}

fn closes_its_descriptors() {
    for standard in 0..3 {
        // SAFETY: nothing in this process relies on these descriptors from here on.
        unsafe { libc::close(standard) };
    }
    let links = run(async {
        println!("hello");
        sleep(MILLISECOND).await;
        (0..3).map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")))
    });
    let all_null = links
        .into_iter()
        .all(|link| link.unwrap().as_os_str() == "/dev/null");
    std::process::exit(i32::from(!all_null));
}
