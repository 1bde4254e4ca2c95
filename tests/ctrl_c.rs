//! Ctrl-C and other signals at every moment of a program: none is lost, and none hangs it.
//!
//! Each test runs a scenario, see `common/scenarios.rs`. A scenario that returns has swallowed the
//! signal.

#[path = "common/dispositions.rs"]
mod dispositions;
#[path = "common/ptrace.rs"]
mod ptrace;
#[macro_use]
#[path = "common/scenarios.rs"]
mod scenarios;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ptrace::{Target, between_marks, signal_at_every_system_call};
use rustix::process::{Pid, Signal, kill_process};
use scenarios::{NOT_ALLOWED, argument, end_of, outcome, scenario};
use seedbed::run::CtrlC;
use seedbed::signal::{SIGINT, SIGTERM, SIGTSTP, open_signal_receiver};
use seedbed::time::sleep_forever;
use seedbed::{RunBuilder, checkpoint, on_cancel, open_nursery, run, shield, sleep, thread};
use signal_hook::low_level::raise;

/// The exit code of a scenario that received the signal.
const RECEIVED: i32 = 4;

const TESTS: scenarios::Named = names![
    sigint_at_every_system_call_of_runs_kills,
    sigterm_at_every_system_call_of_a_receiver_is_received_or_kills,
    a_run_whose_thread_another_run_waits_for_does_not_block_that_thread,
    a_run_that_waits_for_a_plain_thread_with_a_run_ends,
    clean_up_of_both_runs_ends_before_the_process,
    a_run_that_begins_after_the_signal_is_cancelled,
    a_main_thread_that_joins_its_threads_lets_all_runs_unwind,
    runs_that_begin_and_end_on_several_threads_lose_no_signal,
    a_panic_after_the_signal_does_not_swallow_it,
    a_second_signal_kills_while_the_last_run_waits_for_its_output,
    a_lock_of_the_standard_output_does_not_keep_the_process_alive,
    a_full_pipe_does_not_keep_the_process_alive,
    a_default_action_that_stops_the_process_can_be_repeated,
    a_real_time_signal_has_its_default_action_again,
    process_1_ends_by_the_first_and_by_the_second_sigint,
    process_1_ends_by_a_signal_that_is_no_longer_received,
];

const SCENARIOS: scenarios::Named = names![
    two_runs,
    receivers,
    receivers_that_look,
    nested,
    nested_twice,
    nested_in_a_shield,
    nested_in_a_nursery,
    nested_in_plain_threads,
    nested_with_clean_up,
    late_run,
    joined,
    many_runs,
    panics_while_it_unwinds,
    holds_stdout_and_gets_a_second,
    holds_stdout,
    fills_its_pipe,
    stops_twice,
    real_time,
    one_signal,
    two_signals,
    dropped_receiver,
    pending_at_drop,
    process_1,
];

fn main() {
    scenarios::main(TESTS, SCENARIOS)
}

#[track_caller]
fn assert_dies_by_sigint(name: &str) -> String {
    let (status, printed) = outcome(name);
    assert_eq!(
        status.signal(),
        Some(SIGINT),
        "{name}: {status:?} {printed}"
    );
    printed
}

/// Sends SIGINT to this process and is not cancelled by it before the next await.
fn interrupt() {
    raise(SIGINT).unwrap();
}

// ---- At every system call.

/// A SIGINT was swallowed between the moment at which the default action was switched off and the
/// moment at which the run listened, and in the same gap at the end.
fn sigint_at_every_system_call_of_runs_kills() {
    for target in [Target::Process, Target::MainThread] {
        let Some(ends) = signal_at_every_system_call(|| scenario("two_runs"), SIGINT, target)
        else {
            return eprintln!("skipped: this system does not allow tracing");
        };
        for (stop, end) in ends.into_iter().enumerate() {
            let status = ExitStatus::from_raw(end);
            assert_eq!(
                status.signal(),
                Some(SIGINT),
                "{target:?} {stop}: {status:?}"
            );
        }
    }
}

fn two_runs() {
    between_marks(|| {
        run(async { checkpoint().await });
        run(async { sleep(Duration::from_millis(1)).await });
    });
}

/// A receiver took the default action out of force before it could receive.
fn sigterm_at_every_system_call_of_a_receiver_is_received_or_kills() {
    for (name, may_be_received) in [("receivers", false), ("receivers_that_look", true)] {
        for target in [Target::Process, Target::MainThread] {
            let Some(ends) = signal_at_every_system_call(|| scenario(name), SIGTERM, target) else {
                return eprintln!("skipped: this system does not allow tracing");
            };
            for (stop, end) in ends.into_iter().enumerate() {
                let status = ExitStatus::from_raw(end);
                let received = may_be_received && status.code() == Some(RECEIVED);
                let died = status.signal() == Some(SIGTERM);
                assert!(received || died, "{name} {target:?} {stop}: {status:?}");
            }
        }
    }
}

fn receivers() {
    between_marks(|| {
        for _ in 0..2 {
            drop(open_signal_receiver(&[SIGTERM]).unwrap());
        }
    });
}

fn receivers_that_look() {
    between_marks(|| {
        let mut signals = open_signal_receiver(&[SIGTERM]).unwrap();
        // A call at which a signal may arrive while the receiver is open.
        _ = rustix::process::getppid();
        if signals.try_next() == Some(SIGTERM) {
            std::process::exit(RECEIVED);
        }
    });
}

// ---- Several runs.

/// The inner run waited for the end of the outer one, which waited for the inner one's thread.
fn a_run_whose_thread_another_run_waits_for_does_not_block_that_thread() {
    for name in [
        "nested",
        "nested_twice",
        "nested_in_a_shield",
        "nested_in_a_nursery",
    ] {
        assert_dies_by_sigint(name);
    }
}

fn until_interrupted() {
    run(async {
        interrupt();
        sleep_forever().await
    })
}

fn nested() {
    run(async { thread::run_sync(until_interrupted).await });
}

fn nested_twice() {
    run(async {
        thread::run_sync(|| run(async { thread::run_sync(until_interrupted).await })).await
    });
}

fn nested_in_a_shield() {
    run(shield(async { thread::run_sync(until_interrupted).await }));
}

fn nested_in_a_nursery() {
    run(open_nursery(async |n| {
        for _ in 0..3 {
            n.spawn(async { thread::run_sync(|| run(sleep_forever())).await });
        }
        thread::run_sync(until_interrupted).await
    }));
}

fn a_run_that_waits_for_a_plain_thread_with_a_run_ends() {
    assert_dies_by_sigint("nested_in_plain_threads");
}

fn nested_in_plain_threads() {
    let job = || _ = std::thread::spawn(until_interrupted).join();
    run(async { thread::run_sync(job).await });
}

fn clean_up_of_both_runs_ends_before_the_process() {
    let printed = assert_dies_by_sigint("nested_with_clean_up");
    assert_eq!(printed, "inner\nouter\n");
}

fn nested_with_clean_up() {
    let inner = || {
        run(async {
            interrupt();
            on_cancel(sleep_forever(), async {
                sleep(Duration::from_millis(20)).await;
                println!("inner");
            })
            .await
        })
    };
    let outer = async { println!("outer") };
    run(on_cancel(async { thread::run_sync(inner).await }, outer));
}

/// A run that began after the signal, and before another run had noticed it, was never cancelled.
fn a_run_that_begins_after_the_signal_is_cancelled() {
    assert_dies_by_sigint("late_run");
}

fn late_run() {
    let (interrupted, is_interrupted) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    std::thread::spawn(move || {
        run(async move {
            interrupt();
            interrupted.send(()).unwrap();
            // Busy until the second run has begun and waits.
            has_begun.recv().unwrap();
            sleep_forever().await
        })
    });
    is_interrupted.recv().unwrap();
    run(async move {
        begun.send(()).unwrap();
        sleep_forever().await
    });
}

/// A main thread that is in no run and joins its threads must not end the process when the first
/// run has ended.
fn a_main_thread_that_joins_its_threads_lets_all_runs_unwind() {
    let printed = assert_dies_by_sigint("joined");
    assert_eq!(printed, "the second run has cleaned up\n");
}

fn joined() {
    let (ready, is_ready) = mpsc::channel();
    let of_second = ready.clone();
    let first = std::thread::spawn(move || {
        run(async move {
            ready.send(()).unwrap();
            sleep_forever().await
        })
    });
    let second = std::thread::spawn(move || {
        let clean_up = async {
            // Longer than the first run needs.
            sleep(Duration::from_millis(100)).await;
            println!("the second run has cleaned up");
        };
        run(async move {
            of_second.send(()).unwrap();
            on_cancel(sleep_forever(), clean_up).await
        })
    });
    (0..2).for_each(|_| is_ready.recv().unwrap());
    interrupt();
    first.join().unwrap();
    second.join().unwrap();
}

fn runs_that_begin_and_end_on_several_threads_lose_no_signal() {
    for _ in 0..30 {
        let mut child = scenario("many_runs")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut begun = [0];
        child.stdout.take().unwrap().read_exact(&mut begun).unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let status = end_of(child);
        assert_eq!(status.signal(), Some(SIGINT), "{status:?}");
    }
}

fn many_runs() {
    let again_and_again = || {
        loop {
            run(async { checkpoint().await });
        }
    };
    for _ in 0..2 {
        std::thread::spawn(again_and_again);
    }
    std::io::stdout().write_all(b"!").unwrap();
    std::io::stdout().flush().unwrap();
    again_and_again();
}

/// The panic came out of `run`, and a program that caught it went on.
fn a_panic_after_the_signal_does_not_swallow_it() {
    assert_dies_by_sigint("panics_while_it_unwinds");
}

fn panics_while_it_unwinds() {
    let body = async {
        interrupt();
        on_cancel(sleep_forever(), async { panic!("in a clean-up") }).await
    };
    _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(body)));
}

// ---- The last output.

/// The flush of the standard output had no bound.
fn a_lock_of_the_standard_output_does_not_keep_the_process_alive() {
    assert_dies_by_sigint("holds_stdout");
}

/// Starts a thread that locks the standard output, and returns when that has happened.
fn hold_stdout() {
    let (locked, is_locked) = mpsc::channel();
    std::thread::spawn(move || {
        let _lock = std::io::stdout().lock();
        locked.send(()).unwrap();
        loop {
            std::thread::park();
        }
    });
    is_locked.recv().unwrap();
}

fn holds_stdout() {
    hold_stdout();
    until_interrupted();
}

fn a_second_signal_kills_while_the_last_run_waits_for_its_output() {
    assert_dies_by_sigint("holds_stdout_and_gets_a_second");
}

fn holds_stdout_and_gets_a_second() {
    hold_stdout();
    run(async {
        interrupt();
        interrupt();
    });
}

fn a_full_pipe_does_not_keep_the_process_alive() {
    assert_dies_by_sigint("fills_its_pipe");
}

fn fills_its_pipe() {
    let stdout = rustix::stdio::stdout();
    rustix::io::ioctl_fionbio(stdout, true).unwrap();
    while rustix::io::write(stdout, &[b'.'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(stdout, false).unwrap();
    print!("without a newline, so it stays in the buffer");
    until_interrupted();
}

// ---- Default actions.

/// The handler is put back after each stop, or the second one would be received by nothing.
fn a_default_action_that_stops_the_process_can_be_repeated() {
    // A stop by the terminal does nothing in a process group that is orphaned, as the one of a test
    // that runs in the background may be. A group of its own has a parent in another group.
    let child = scenario("stops_twice").process_group(0).spawn().unwrap();
    let pid = Pid::from_child(&child);
    for _ in 0..2 {
        let mut status = 0;
        // SAFETY: `status` has room for an `int`, and the process is a child that is not reaped.
        let waited = unsafe { libc::waitpid(child.id() as i32, &raw mut status, libc::WUNTRACED) };
        assert_eq!(waited, child.id() as i32);
        assert!(libc::WIFSTOPPED(status), "{status:#x}");
        kill_process(pid, Signal::CONT).unwrap();
    }
    assert_eq!(end_of(child).code(), Some(RECEIVED));
}

fn stops_twice() {
    let in_order = || drop(open_signal_receiver(&[SIGTSTP]).unwrap());
    in_order();
    raise(SIGTSTP).unwrap();
    in_order();
    raise(SIGTSTP).unwrap();
    let mut signals = open_signal_receiver(&[SIGTSTP]).unwrap();
    raise(SIGTSTP).unwrap();
    if signals.try_next() == Some(SIGTSTP) {
        std::process::exit(RECEIVED);
    }
}

/// A real-time signal was ignored after its receiver had been dropped.
fn a_real_time_signal_has_its_default_action_again() {
    let (status, _) = outcome("real_time");
    assert_eq!(status.signal(), Some(libc::SIGRTMIN() + 3), "{status:?}");
}

fn real_time() {
    let signal = libc::SIGRTMIN() + 3;
    drop(open_signal_receiver(&[signal]).unwrap());
    raise(signal).unwrap();
}

// ---- Process 1.

/// No default action ends process 1 of a namespace. It died by SIGSEGV in `abort`, or hung.
fn process_1_ends_by_the_first_and_by_the_second_sigint() {
    for name in ["one_signal", "two_signals", "nested", "holds_stdout"] {
        assert_exits_as_process_1(name, 128 + SIGINT);
    }
}

fn process_1_ends_by_a_signal_that_is_no_longer_received() {
    for name in ["dropped_receiver", "pending_at_drop"] {
        assert_exits_as_process_1(name, 128 + SIGTERM);
    }
}

#[track_caller]
fn assert_exits_as_process_1(name: &str, code: i32) {
    let (status, printed) = outcome(&format!("process_1:{name}"));
    if status.code() == Some(NOT_ALLOWED) {
        return eprintln!("skipped: this system does not allow new process namespaces");
    }
    assert_eq!(printed, format!("{:?}\n", Some(code)), "{name}: {status:?}");
}

/// Runs another scenario as process 1 of a new namespace, and prints its exit code.
fn process_1() {
    let inner = argument();
    // SAFETY: the flag affects only the processes that this thread starts.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
        std::process::exit(NOT_ALLOWED);
    }
    let child = scenario(&inner).stdout(Stdio::null()).spawn().unwrap();
    println!("{:?}", end_of(child).code());
}

fn one_signal() {
    until_interrupted();
}

fn two_signals() {
    run(async {
        interrupt();
        interrupt();
        std::process::exit(RECEIVED);
    });
}

fn dropped_receiver() {
    drop(open_signal_receiver(&[SIGTERM]).unwrap());
    // A run without Ctrl-C changes nothing.
    RunBuilder::new().ctrl_c(CtrlC::Leave).run(async {});
    raise(SIGTERM).unwrap();
}

fn pending_at_drop() {
    let signals = open_signal_receiver(&[SIGTERM]).unwrap();
    raise(SIGTERM).unwrap();
    drop(signals);
}
