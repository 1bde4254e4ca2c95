//! `run_process`: its values and errors, and that it leaves no process and no descriptor behind.

mod common;
#[path = "common/poll_times.rs"]
mod poll_times;

use std::future::{Future, IntoFuture, poll_fn};
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use common::programs::{sh, test, test_with};
use common::{alone, children};
use poll_times::poll_times;
use seedbed::nursery::StartError;
use seedbed::process::{Command, Process, ProcessErrorKind, RunProcess, Stdio, run_process};
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, Nursery, RunBuilder, checkpoint, move_on_after, open_nursery, run,
    try_open_nursery,
};
use smol::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

/// Waits until a process has printed that it is ready.
async fn ready(process: &mut Process) {
    let mut word = [0; 6];
    let stdout = process.stdout.as_mut().expect("piped");
    stdout.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ready\n");
}

#[test]
fn standard_input_is_empty_unless_it_is_fed() {
    test(async {
        let output = sh("cat; echo end").capture_stdout(true).await.unwrap();
        assert_eq!(output.stdout, b"end\n");
        let output = sh("cat").input("fed").capture_stdout(true).await.unwrap();
        assert_eq!(output.stdout, b"fed");
    });
}

#[test]
fn what_is_not_captured_is_empty() {
    test(async {
        let output = sh("echo out; echo err >&2")
            .stdout(Stdio::null())
            .capture_stderr(true)
            .await
            .unwrap();
        assert_eq!((output.stdout, output.stderr), (vec![], b"err\n".to_vec()));
    });
}

#[test]
fn much_input_and_output_at_once_do_not_block_each_other() {
    test(async {
        let input: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        let output = sh("tee /dev/stderr")
            .input(input.clone())
            .capture_stdout(true)
            .capture_stderr(true)
            .await
            .unwrap();
        assert!(output.stdout == input);
        assert!(output.stderr == input);
    });
}

#[test]
fn a_process_that_does_not_read_its_input_is_no_error() {
    test(async {
        let output = sh("exec <&-; echo done")
            .input(vec![0; 1_000_000])
            .capture_stdout(true)
            .await
            .unwrap();
        assert_eq!(output.stdout, b"done\n");
    });
}

#[test]
fn both_outputs_can_be_one() {
    test(async {
        let output = sh("echo 1; echo 2 >&2; echo 3")
            .capture_stdout(true)
            .stderr_to_stdout()
            .await
            .unwrap();
        assert_eq!(output.stdout, b"1\n2\n3\n");
    });
}

#[test]
fn a_failed_process_is_an_error_with_the_captured_output() {
    test(async {
        let error = sh("echo out; exit 9")
            .capture_stdout(true)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ProcessErrorKind::Failed);
        assert_eq!(error.into_output().unwrap().stdout, b"out\n");

        let error = sh("kill -KILL $$").await.unwrap_err();
        assert_eq!(error.status().unwrap().signal(), Some(9));
        assert!(
            error.to_string().contains("was ended by SIGKILL"),
            "{error}"
        );

        assert!(!sh("exit 9").check(false).await.unwrap().status.success());
    });
}

#[test]
fn a_program_that_cannot_be_started_is_an_error() {
    test(async {
        let error = run_process(Command::new("/no/such/program"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ProcessErrorKind::Start);
        assert!(
            error
                .to_string()
                .starts_with("`/no/such/program` could not be started")
        );

        let started = open_nursery(|n| async move {
            n.start(|started| run_process(Command::new("/no/such/program")).supervise(started))
                .await
        });
        assert!(matches!(started.await, Err(StartError::Exited(Err(_)))));
    });
}

#[test]
fn a_cancelled_caller_starts_nothing() {
    test(async {
        let folder = tempfile::tempdir().unwrap();
        let mut touch = Command::new("touch");
        touch.arg(folder.path().join("file"));
        let scope = CancelScope::new();
        scope.cancel();
        assert!(scope.run(run_process(touch)).await.is_none());
        assert!(!folder.path().join("file").exists());
    });
}

/// Starts a process whose input stays open, waits until it has printed that it is ready, and
/// cancels the block around it.
async fn cancel_when_ready(command: RunProcess) -> Process {
    open_nursery(|n| async move {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = n.start(|started| command.supervise(started)).await.unwrap();
        ready(&mut process).await;
        n.terminate(process);
        std::future::pending().await
    })
    .await
}

#[test]
fn a_cancelled_process_is_asked_to_end_and_may_do_so_in_order() {
    test(async {
        let polite = sh("trap 'echo bye; exit 7' TERM; echo ready; read x").check(false);
        let process = cancel_when_ready(polite).await;
        // The process has ended when the block has.
        assert_eq!(process.try_status().unwrap().code(), Some(7));
    });
}

#[test]
fn the_output_of_a_cancelled_process_does_not_keep_it_from_ending() {
    test(async {
        let folder = tempfile::tempdir().unwrap();
        let last = folder.path().join("last");
        // Writes more than a pipe holds. If its captured output were not read, it would block or be
        // killed by SIGPIPE.
        let script = format!(
            "trap 'head -c 300000 /dev/zero && echo written >{}; exit' TERM; echo ready >&2; read x",
            last.display()
        );
        open_nursery(|n| async move {
            let talkative = sh(&script)
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .capture_stdout(true);
            let mut process = n
                .start(|started| talkative.supervise(started))
                .await
                .unwrap();
            let mut word = [0; 6];
            process
                .stderr
                .as_mut()
                .unwrap()
                .read_exact(&mut word)
                .await
                .unwrap();
            // Returned, so that its pipes stay open until the end.
            n.terminate(Some(process));
            None
        })
        .await;
        assert_eq!(std::fs::read_to_string(last).unwrap(), "written\n");
    });
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_after_a_while() {
    test(async {
        let stubborn = sh("trap '' TERM; echo ready; read x");
        let process = cancel_when_ready(stubborn.kill_after(Duration::from_millis(20))).await;
        assert_eq!(process.try_status().unwrap().signal(), Some(9));
    });
}

/// A process lives in real time: a virtual clock used to leave it no time between the two signals,
/// or to wait forever when it stood still.
#[test]
fn a_virtual_clock_leaves_a_cancelled_process_its_time() {
    let clock = MockClock::autojump();
    test_with(RunBuilder::new().clock(clock.clone()), async {
        let polite = sh("trap 'sleep 0.05; exit 7' TERM; echo ready; read x").check(false);
        let process = cancel_when_ready(polite).await;
        assert_eq!(process.try_status().unwrap().code(), Some(7));
    });
    assert_eq!(clock.elapsed(), Duration::ZERO);
    test_with(RunBuilder::new().clock(MockClock::new()), async {
        let stubborn = sh("trap '' TERM; echo ready; read x");
        let process = cancel_when_ready(stubborn.kill_after(Duration::from_millis(20))).await;
        assert_eq!(process.try_status().unwrap().signal(), Some(9));
    });
}

#[test]
fn a_cancellation_can_be_delivered_in_another_way_and_the_end_is_awaited() {
    test(async {
        let custom = sh("trap 'exit 3' HUP; echo ready; read x")
            .deliver_cancel(async |process| process.signal(1).unwrap());
        let process = cancel_when_ready(custom).await;
        assert_eq!(process.try_status().unwrap().code(), Some(3));
    });
}

/// Starts a process that waits for the end of its input, and returns both.
async fn start_and_hold(n: &Nursery<'_>, script: &str) -> (Arc<Process>, impl Sized + use<>) {
    let command = sh(script).stdin(Stdio::piped()).check(false);
    let process = n.start(|started| command.supervise(started)).await;
    let mut process = process.unwrap();
    let stdin = process.stdin.take().unwrap();
    (Arc::new(process), stdin)
}

#[test]
fn several_tasks_can_wait_for_a_process() {
    test(open_nursery(|n| async move {
        let (process, stdin) = start_and_hold(&n, "read x; exit 4").await;
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let process = process.clone();
                n.spawn(async move { process.wait().await.unwrap().code() })
            })
            .collect();
        drop(stdin);
        for waiter in waiters {
            assert_eq!(waiter.await, Some(4));
        }
        // These do nothing to a process that has ended.
        process.kill();
        process.terminate();
        process.signal(1).unwrap();
    }));
}

#[test]
fn a_cancelled_wait_changes_nothing_and_the_status_can_be_read_during_a_wait() {
    test(open_nursery(|n| async move {
        let (process, stdin) = start_and_hold(&n, "read x; exit 4").await;
        for _ in 0..3 {
            let waits = n.spawn({
                let process = process.clone();
                async move { process.wait().await.is_ok() }
            });
            wait_all_tasks_blocked().await;
            assert_eq!(waits.cancel().await, None);
            assert_eq!(process.try_status(), None);
        }
        let waits = n.spawn({
            let process = process.clone();
            async move { process.wait().await.unwrap().code() }
        });
        wait_all_tasks_blocked().await;
        drop(stdin);
        // The wait ends also if another call has reaped the process.
        while process.try_status().is_none() {
            checkpoint().await;
        }
        assert_eq!(waits.await, Some(4));
    }));
}

#[test]
fn a_process_ends_by_the_signal_that_it_is_sent() {
    test(async {
        for number in [15, 9, 10] {
            open_nursery(|n| async move {
                let sleeps = sh("echo ready; read x")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .check(false);
                let mut process = n.start(|started| sleeps.supervise(started)).await.unwrap();
                ready(&mut process).await;
                match number {
                    15 => process.terminate(),
                    9 => process.kill(),
                    _ => process.signal(number).unwrap(),
                }
                let status = process.wait().await.unwrap();
                assert_eq!((status.signal(), status.code()), (Some(number), None));
                assert_eq!(process.try_status(), Some(status));
            })
            .await;
        }
    });
}

#[test]
fn a_conversation_goes_line_by_line_and_a_cancelled_read_loses_nothing() {
    test(open_nursery(|n| async move {
        let cat = run_process(Command::new("cat"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = n.start(|started| cat.supervise(started)).await.unwrap();
        let mut stdin = process.stdin.take().unwrap();
        let mut stdout = smol::io::BufReader::new(process.stdout.take().unwrap());
        for round in 0..20 {
            let mut heard = String::new();
            let read = stdout.read_line(&mut heard);
            assert_eq!(move_on_after(Duration::ZERO, read).await.map(drop), None);
            let said = format!("round {round}\n");
            stdin.write_all(said.as_bytes()).await.unwrap();
            let mut heard = String::new();
            stdout.read_line(&mut heard).await.unwrap();
            assert_eq!(heard, said);
        }
        drop(stdin);
        let mut rest = String::new();
        assert_eq!(stdout.read_to_string(&mut rest).await.unwrap(), 0);
        assert!(process.wait().await.unwrap().success());
    }));
}

/// `start` returns before the process fails, so the error becomes the value of the block.
#[test]
fn a_supervised_process_that_fails_may_fail_the_block() {
    test(async {
        let failed = try_open_nursery(|n: Nursery<'_, Result<(), _>>| async move {
            let fails = sh("read x; exit 3").stdin(Stdio::piped());
            let mut process = n
                .try_start(|started| fails.supervise(started))
                .await
                .unwrap();
            drop(process.stdin.take());
            std::future::pending().await
        });
        let error = failed.await.unwrap_err();
        assert_eq!(error.status().unwrap().code(), Some(3));
    });
}

#[test]
fn the_future_that_delivers_a_cancellation_is_dropped_when_the_process_has_ended() {
    test(async {
        let (sender, receiver) = smol::channel::bounded::<()>(1);
        open_nursery(|n| async move {
            let custom = sh("trap 'exit 3' HUP; echo ready; read x")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .deliver_cancel(async move |process| {
                    let _dropped_with_this = sender;
                    process.signal(1).unwrap();
                    sleep_forever().await
                });
            let mut process = n.start(|started| custom.supervise(started)).await.unwrap();
            ready(&mut process).await;
            n.terminate(Some(process));
            None
        })
        .await;
        assert!(receiver.try_recv().unwrap_err().is_closed());
    });
}

#[test]
fn a_panic_while_a_cancellation_is_delivered_propagates_and_the_process_is_killed() {
    test(async {
        let scope = CancelScope::new();
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        let custom = run_process(sleep).deliver_cancel(async |_| panic!("delivering"));
        let mut call = pin!(scope.run(custom));
        poll_fn(|cx| {
            assert!(call.as_mut().poll(cx).is_pending(), "it has begun");
            Poll::Ready(())
        })
        .await;
        scope.cancel();
        let panic = poll_fn(|cx| {
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)));
            match polled {
                Ok(polled) => polled.map(|_| None),
                Err(payload) => Poll::Ready(payload.downcast::<&str>().ok()),
            }
        });
        assert_eq!(panic.await.as_deref(), Some(&"delivering"));
    });
}

#[test]
#[should_panic(expected = "stderr_to_stdout goes with a captured or inherited standard output")]
fn contradictory_redirections_panic_before_a_process_is_started() {
    test(async {
        let call = sh("echo 1 >&2").stdout(Stdio::null()).stderr_to_stdout();
        call.await.map(drop)
    })
    .unwrap();
}

/// The kernel reaps the children of a process that ignores SIGCHLD, and their exit status is lost.
/// The test runs in a process of its own.
#[test]
fn where_sigchld_is_ignored_the_end_of_a_process_is_seen_and_its_status_is_lost() {
    const NAME: &str =
        "where_sigchld_is_ignored_the_end_of_a_process_is_seen_and_its_status_is_lost";
    if std::env::var_os("SEEDBED_PROCESS_TEST").is_none() {
        let _alone = alone();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]);
        let output = command.env("SEEDBED_PROCESS_TEST", "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let ended = run(try_open_nursery(
        |n: Nursery<'_, Result<(), _>>| async move {
            let waits = sh("read x; exit 3").stdin(Stdio::piped());
            let started = n.try_start(|started| waits.supervise(started)).await;
            drop(started.unwrap().stdin.take());
            std::future::pending().await
        },
    ));
    assert_eq!(ended.unwrap_err().kind(), ProcessErrorKind::Lost);
}

#[test]
fn a_dropped_supervisor_kills_the_process_and_waits_end_with_an_error() {
    test(async {
        let (sender, receiver) = smol::channel::bounded(1);
        let supervisor = open_nursery(|n| async move {
            let mut sleep = Command::new("sleep");
            sleep.arg("1000");
            let process = n.start(|started| run_process(sleep).supervise(started));
            sender.send(process.await.unwrap()).await.unwrap();
        });
        let supervised = async {
            supervisor.await;
            unreachable!("it supervises for a long time")
        };
        // This race drops the loser.
        let process = smol::future::or(supervised, receiver.recv()).await.unwrap();
        let error = process.wait().await.unwrap_err();
        assert_eq!(error.kind(), ProcessErrorKind::Lost);
    });
}

#[test]
#[should_panic(expected = "no handle has the other end")]
fn a_pipe_without_a_handle_is_refused() {
    test(async { sh("read x").stdin(Stdio::piped()).await.map(drop) }).unwrap();
}

fn conversation() -> RunProcess {
    sh("cat; cat /dev/null; head -c 200000 /dev/zero >&2")
        .input(vec![7; 300_000])
        .capture_stdout(true)
        .capture_stderr(true)
}

#[test]
fn dropped_at_any_poll_a_call_leaves_no_process() {
    for times in 0.. {
        let done = test(async move { poll_times(conversation().into_future(), times).await });
        if done.is_some() {
            assert!(times > 1);
            return;
        }
    }
}

#[test]
fn cancelled_at_any_poll_a_call_has_no_process_when_its_scope_ends() {
    for times in 0.. {
        let done = test(async move {
            let scope = CancelScope::new();
            let mut polls = 0;
            let mut call = pin!(conversation().into_future());
            let handle = scope.clone();
            let value = scope.run(poll_fn(|cx| {
                if polls == times {
                    handle.cancel();
                }
                polls += 1;
                call.as_mut().poll(cx)
            }));
            let value = value.await;
            if value.is_none() {
                // The future has not been dropped yet, so only its own clean-up can have ended the
                // process.
                assert_eq!(children(), Vec::<u32>::new());
            }
            value
        });
        if let Some(output) = done {
            assert_eq!(output.unwrap().stdout.len(), 300_000);
            return;
        }
    }
}
