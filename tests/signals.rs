//! `open_signal_receiver`: the signals that it delivers, and the signals' actions before, during
//! and after its use.

mod common;

use std::future::{Future, poll_fn};
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

use common::{alone, descriptors};
use seedbed::run::{CtrlC, current_run, spawn_system_task};
use seedbed::signal::{
    SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SignalErrorKind,
    open_signal_receiver,
};
use seedbed::sync::Event;
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::time::sleep_forever;
use seedbed::{RunBuilder, checkpoint, move_on_after, on_cancel, open_nursery, run};
use signal_hook::low_level::raise;
use smol::stream::StreamExt;

/// Runs the body in a process of its own, which is this test again. Returns that process's exit
/// status.
fn in_a_process_of_its_own(test: &str, body: impl FnOnce()) -> Option<ExitStatus> {
    if std::env::var_os("SEEDBED_SIGNAL_TEST").is_some_and(|name| name == test) {
        body();
        std::process::exit(0);
    }
    // Tests that count descriptors must not see this command's pipes.
    let _alone = alone();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command.env("SEEDBED_SIGNAL_TEST", test);
    Some(command.output().unwrap().status)
}

#[test]
fn signals_that_repeat_are_delivered_once() {
    let _alone = alone();
    run(async {
        let mut signals = open_signal_receiver(&[SIGUSR1]).unwrap();
        for _ in 0..5 {
            raise(SIGUSR1).unwrap();
        }
        assert_eq!(signals.statistics().pending, 1);
        assert_eq!(signals.next().await, SIGUSR1);
        assert_eq!(signals.try_next(), None);
        raise(SIGUSR1).unwrap();
        assert_eq!(signals.next().await, SIGUSR1);
        assert_eq!(signals.statistics().pending, 0);
    });
}

#[test]
fn a_waiting_task_is_woken_also_from_another_thread() {
    let _alone = alone();
    run(open_nursery(|n| async move {
        let mut signals = open_signal_receiver(&[SIGUSR1, SIGUSR2]).unwrap();
        let woken = Event::new();
        let set = woken.clone();
        let waiting = n.spawn(async move {
            let first = signals.next().await;
            set.set();
            (first, signals.next().await)
        });
        wait_all_tasks_blocked().await;
        std::thread::spawn(|| raise(SIGUSR2).unwrap())
            .join()
            .unwrap();
        woken.wait().await;
        raise(SIGUSR1).unwrap();
        assert_eq!(waiting.await, (SIGUSR2, SIGUSR1));
    }));
}

#[test]
fn a_frequent_signal_does_not_keep_others_from_being_seen() {
    let _alone = alone();
    run(async {
        let mut signals = open_signal_receiver(&[SIGUSR1, SIGUSR2]).unwrap();
        let mut seen = Vec::new();
        for _ in 0..6 {
            raise(SIGUSR1).unwrap();
            raise(SIGUSR2).unwrap();
            seen.push(signals.next().await);
        }
        assert_eq!(seen, [SIGUSR1, SIGUSR2, SIGUSR1, SIGUSR2, SIGUSR1, SIGUSR2]);
        assert_eq!(signals.try_next(), Some(SIGUSR1));
    });
}

#[test]
fn it_is_a_stream() {
    let _alone = alone();
    run(async {
        let signals = open_signal_receiver(&[SIGUSR1, SIGUSR2]).unwrap();
        raise(SIGUSR1).unwrap();
        raise(SIGUSR2).unwrap();
        let both: Vec<_> = signals.take(2).collect().await;
        assert_eq!(both, [SIGUSR1, SIGUSR2]);
    });
}

#[test]
fn every_receiver_gets_the_signal() {
    let _alone = alone();
    run(async {
        let mut first = open_signal_receiver(&[SIGUSR1]).unwrap();
        let mut second = open_signal_receiver(&[SIGUSR1]).unwrap();
        raise(SIGUSR1).unwrap();
        assert_eq!(
            (first.next().await, second.next().await),
            (SIGUSR1, SIGUSR1)
        );
        drop(first);
        raise(SIGUSR1).unwrap();
        assert_eq!(second.next().await, SIGUSR1);
    });
}

#[test]
fn a_bad_number_is_an_error_and_nothing_is_left_registered() {
    let _alone = alone();
    // The reactor opens its own descriptors once.
    run(async { drop(open_signal_receiver(&[SIGWINCH])) });
    let before = descriptors();
    let kind = |signals: &[i32]| open_signal_receiver(signals).unwrap_err().kind();
    assert_eq!(kind(&[]), SignalErrorKind::Empty);
    for forbidden in [4, 8, 9, 11, 19] {
        assert_eq!(kind(&[SIGWINCH, forbidden]), SignalErrorKind::Forbidden);
    }
    for number in [0, -1, 9999] {
        assert_eq!(kind(&[SIGWINCH, number]), SignalErrorKind::Refused);
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn naming_a_signal_twice_is_naming_it_once() {
    let _alone = alone();
    run(async {
        let mut signals = open_signal_receiver(&[SIGCHLD, SIGWINCH, SIGCHLD]).unwrap();
        raise(SIGCHLD).unwrap();
        assert_eq!(signals.statistics().pending, 1);
        assert_eq!(signals.next().await, SIGCHLD);
        assert_eq!(signals.try_next(), None);
    });
}

#[test]
fn a_dropped_wait_loses_no_signal_and_dropped_receivers_leave_no_descriptor() {
    let _alone = alone();
    run(async { drop(open_signal_receiver(&[SIGWINCH])) });
    let before = descriptors();
    run(async {
        for times in 0..3 {
            let mut signals = open_signal_receiver(&[SIGWINCH, SIGUSR1]).unwrap();
            let mut wait = Box::pin(signals.next());
            for _ in 0..times {
                poll_fn(|cx| {
                    assert!(wait.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
            }
            raise(SIGUSR1).unwrap();
            drop(wait);
            assert_eq!(signals.next().await, SIGUSR1);
        }
    });
    assert_eq!(descriptors(), before);
}

#[test]
fn after_the_last_receiver_a_signal_does_again_what_it_does_by_default() {
    let status = in_a_process_of_its_own(
        "after_the_last_receiver_a_signal_does_again_what_it_does_by_default",
        || {
            let first = open_signal_receiver(&[SIGTERM]).unwrap();
            let mut second = open_signal_receiver(&[SIGTERM]).unwrap();
            drop(first);
            raise(SIGTERM).unwrap();
            assert_eq!(second.try_next(), Some(SIGTERM));
            drop(second);
            raise(SIGTERM).unwrap();
        },
    );
    assert_eq!(status.unwrap().signal(), Some(SIGTERM));
}

#[test]
fn a_pending_signal_is_raised_again_when_the_last_receiver_is_dropped() {
    let status = in_a_process_of_its_own(
        "a_pending_signal_is_raised_again_when_the_last_receiver_is_dropped",
        || {
            let signals = open_signal_receiver(&[SIGUSR1, SIGTERM]).unwrap();
            let other = open_signal_receiver(&[SIGTERM]).unwrap();
            raise(SIGTERM).unwrap();
            // The other receiver has it.
            drop(signals);
            drop(other);
        },
    );
    assert_eq!(status.unwrap().signal(), Some(SIGTERM));
}

#[test]
fn all_pending_signals_are_raised_again_not_only_the_first() {
    let status = in_a_process_of_its_own(
        "all_pending_signals_are_raised_again_not_only_the_first",
        || {
            // By default, the first signal is ignored, and the second ends the process.
            let signals = open_signal_receiver(&[SIGWINCH, SIGUSR2]).unwrap();
            raise(SIGUSR2).unwrap();
            raise(SIGWINCH).unwrap();
            assert_eq!(signals.statistics().pending, 2);
            drop(signals);
        },
    );
    assert_eq!(status.unwrap().signal(), Some(SIGUSR2));
}

#[test]
fn a_signal_that_was_ignored_is_received_and_then_ignored_again() {
    const NAME: &str = "a_signal_that_was_ignored_is_received_and_then_ignored_again";
    if std::env::var_os("SEEDBED_SIGNAL_TEST").is_some_and(|name| name == NAME) {
        let mut signals = open_signal_receiver(&[SIGUSR1]).unwrap();
        raise(SIGUSR1).unwrap();
        assert_eq!(signals.try_next(), Some(SIGUSR1));
        raise(SIGUSR1).unwrap();
        drop(signals); // pending, but not raised again
        raise(SIGUSR1).unwrap();
        return;
    }
    let _alone = alone();
    let mut ignoring = Command::new("sh");
    // A program inherits the signals that its shell ignores.
    ignoring.args(["-c", "trap '' USR1; exec \"$0\" --exact \"$1\" --nocapture"]);
    ignoring.arg(std::env::current_exe().unwrap()).arg(NAME);
    ignoring.env("SEEDBED_SIGNAL_TEST", NAME);
    let output = ignoring.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_receiver_works_on_any_thread_and_outside_of_a_run() {
    let _alone = alone();
    let seen = std::thread::spawn(|| {
        let mut signals = open_signal_receiver(&[SIGUSR1]).unwrap();
        raise(SIGUSR1).unwrap();
        smol::block_on(signals.next())
    });
    assert_eq!(seen.join().unwrap(), SIGUSR1);
}

#[test]
fn a_handler_of_the_program_is_called_once_for_each_signal() {
    let status = in_a_process_of_its_own(
        "a_handler_of_the_program_is_called_once_for_each_signal",
        || {
            let called = Arc::new(AtomicUsize::new(0));
            signal_hook::flag::register_usize(SIGHUP, called.clone(), 1).unwrap();
            let signals = open_signal_receiver(&[SIGHUP]).unwrap();
            raise(SIGHUP).unwrap();
            assert_eq!(called.swap(0, SeqCst), 1);
            // Pending, but the handler was called already.
            drop(signals);
            assert_eq!(called.load(SeqCst), 0);
            raise(SIGHUP).unwrap();
            assert_eq!(called.load(SeqCst), 1);
        },
    );
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn a_run_that_leaves_ctrl_c_alone_can_receive_it_again_and_again() {
    let status = in_a_process_of_its_own(
        "a_run_that_leaves_ctrl_c_alone_can_receive_it_again_and_again",
        || {
            // A run that unwinds leaves no action behind that would kill at the second SIGINT.
            run(async {});
            RunBuilder::new().ctrl_c(CtrlC::Leave).run(async {
                let mut signals = open_signal_receiver(&[SIGINT]).unwrap();
                for _ in 0..3 {
                    raise(SIGINT).unwrap();
                    assert_eq!(signals.next().await, SIGINT);
                }
            });
        },
    );
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn a_receiver_of_ctrl_c_does_not_take_it_from_a_run_that_unwinds() {
    let status = in_a_process_of_its_own(
        "a_receiver_of_ctrl_c_does_not_take_it_from_a_run_that_unwinds",
        || {
            // Opened and closed before: the order makes no difference.
            drop(open_signal_receiver(&[SIGINT]));
            run(async {
                let mut signals = open_signal_receiver(&[SIGINT]).unwrap();
                raise(SIGINT).unwrap();
                assert_eq!(signals.next().await, SIGINT);
                let seen = pin!(async move {
                    drop(signals);
                });
                on_cancel(sleep_forever(), seen).await;
            });
            unreachable!("the run dies by the signal");
        },
    );
    assert_eq!(status.unwrap().signal(), Some(SIGINT));
}

#[test]
fn a_second_ctrl_c_kills_a_run_that_does_not_get_on_with_unwinding() {
    let status = in_a_process_of_its_own(
        "a_second_ctrl_c_kills_a_run_that_does_not_get_on_with_unwinding",
        || {
            run(async {
                raise(SIGINT).unwrap();
                raise(SIGINT).unwrap();
                // Not reached.
                std::process::exit(0);
            });
        },
    );
    assert_eq!(status.unwrap().signal(), Some(SIGINT));
}

#[test]
fn ctrl_c_ends_a_run_in_order_main_future_system_tasks_calls() {
    let status = in_a_process_of_its_own(
        "ctrl_c_ends_a_run_in_order_main_future_system_tasks_calls",
        || {
            run(async {
                let (log, in_order) = std::sync::mpsc::channel();
                let handle = current_run();
                let of_task = log.clone();
                spawn_system_task(on_cancel(sleep_forever(), async move {
                    of_task.send("system task").unwrap();
                    let last = move || {
                        let order: Vec<_> = in_order.try_iter().collect();
                        assert_eq!(order, ["main future", "system task"]);
                    };
                    handle.call_soon(last).unwrap();
                }));
                raise(SIGINT).unwrap();
                let ended = async move {
                    // Longer than the system task needs.
                    for _ in 0..5 {
                        checkpoint().await;
                    }
                    log.send("main future").unwrap();
                };
                on_cancel(sleep_forever(), ended).await;
            });
            unreachable!("the run dies by the signal");
        },
    );
    assert_eq!(status.unwrap().signal(), Some(SIGINT));
}

#[test]
fn waiting_for_a_signal_can_be_cancelled() {
    let _alone = alone();
    run(async {
        let mut signals = open_signal_receiver(&[SIGWINCH]).unwrap();
        let time = std::time::Duration::from_millis(1);
        assert_eq!(move_on_after(time, signals.next()).await, None);
        raise(SIGWINCH).unwrap();
        assert_eq!(signals.next().await, SIGWINCH);
    });
}

/// A shell's background jobs inherit SIGINT as ignored: Ctrl-C is meant for others.
#[test]
fn a_run_that_inherits_sigint_as_ignored_is_not_interrupted_by_it() {
    const NAME: &str = "a_run_that_inherits_sigint_as_ignored_is_not_interrupted_by_it";
    if std::env::var_os("SEEDBED_SIGNAL_TEST").is_some_and(|name| name == NAME) {
        let value = run(async {
            raise(SIGINT).unwrap();
            raise(SIGINT).unwrap();
            wait_all_tasks_blocked().await;
            checkpoint().await;
            // A receiver asks for the signal, and gets it.
            let mut signals = open_signal_receiver(&[SIGINT]).unwrap();
            raise(SIGINT).unwrap();
            assert_eq!(signals.next().await, SIGINT);
            drop(signals);
            raise(SIGINT).unwrap();
            checkpoint().await;
            5
        });
        assert_eq!(value, 5);
        return;
    }
    let _alone = alone();
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' INT; exec \"$0\" --exact \"$1\" --nocapture"]);
    ignoring.arg(std::env::current_exe().unwrap()).arg(NAME);
    ignoring.env("SEEDBED_SIGNAL_TEST", NAME);
    let output = ignoring.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
