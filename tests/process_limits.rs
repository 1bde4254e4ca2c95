//! The limits of `run_process`: time, output, pipes that stay open, signals, and what ends with the
//! process.

mod common;

use std::future::{Future, IntoFuture, pending, poll_fn};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Child;
use std::task::Poll;
use std::time::Duration;

use common::programs::{sh, test, test_with};
use common::{alone, is_alive, wait_until_gone};
use seedbed::process::{
    Command, Output, ProcessError, ProcessErrorKind, RunProcess, Stdio, run_process,
};
use seedbed::testing::MockClock;
use seedbed::{RunBuilder, open_nursery, run};
use smol::io::{AsyncBufReadExt, BufReader};

fn kind_and_output(error: ProcessError) -> (ProcessErrorKind, Output) {
    (error.kind(), error.into_output().unwrap())
}

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(50);

/// Output without end used to fill the memory of this program until the kernel ended it.
#[test]
fn a_process_that_writes_more_than_is_kept_is_ended_and_its_output_is_in_the_error() {
    test(async {
        let endless = "while :; do echo 0123456789; done";
        let limited = |call: RunProcess| call.capture_limit(1000).kill_after(LONG);
        let stdout = limited(sh(endless)).capture_stdout(true).await;
        let stderr = limited(sh("exec >&2; while :; do echo 0123456789; done"))
            .capture_stderr(true)
            .await;
        let both = limited(sh("echo 0123456789 >&2; while :; do echo 0123456789; done"))
            .capture_stdout(true)
            .stderr_to_stdout()
            .await;
        let expected = "0123456789\n".repeat(91).into_bytes();
        for (ended, is_stderr) in [(stdout, false), (stderr, true), (both, false)] {
            let error = ended.unwrap_err();
            assert!(
                error.to_string().contains("more than 1000 bytes"),
                "{error}"
            );
            let (kind, output) = kind_and_output(error);
            assert_eq!(kind, ProcessErrorKind::OutputTooLarge);
            assert_eq!(output.status.signal(), Some(libc::SIGTERM));
            let kept = if is_stderr {
                output.stderr
            } else {
                output.stdout
            };
            assert_eq!(kept, expected[..1000]);
        }
    });
}

#[test]
fn an_output_of_exactly_the_limit_is_kept_and_each_output_counts_for_itself() {
    test(async {
        let script = "printf 12345; printf 67890 >&2";
        let call = sh(script).capture_stdout(true).capture_stderr(true);
        let output = call.capture_limit(5).await.unwrap();
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b"12345"[..], &b"67890"[..])
        );
        let silent = sh(":").capture_stdout(true).capture_limit(0).await.unwrap();
        assert!(silent.stdout.is_empty());
        let error = sh("echo").capture_stdout(true).capture_limit(0).await;
        assert_eq!(error.unwrap_err().kind(), ProcessErrorKind::OutputTooLarge);
        let all = sh("head -c 300000 /dev/zero").capture_stdout(true);
        let all = all.capture_limit(usize::MAX).await.unwrap();
        assert_eq!(all.stdout, vec![0; 300_000]);
    });
}

/// A failed allocation used to abort the program. The test runs in a process of its own.
#[test]
fn output_for_which_there_is_no_memory_is_an_error() {
    const NAME: &str = "output_for_which_there_is_no_memory_is_an_error";
    if !is_child() {
        let _alone = alone();
        let output = child_test(NAME).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    test(async {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let kib = size.unwrap().trim().trim_end_matches(" kB").parse::<u64>();
        let limit = libc::rlimit {
            rlim_cur: (kib.unwrap() << 10) + (200 << 20),
            rlim_max: libc::RLIM_INFINITY,
        };
        // The limit is for this process: the program that is started needs little.
        // SAFETY: the pointer is to an initialised structure.
        assert_eq!(
            unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) },
            0
        );
        let yes = run_process(Command::new("yes")).capture_stdout(true);
        let error = yes.capture_limit(usize::MAX).await.unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
        let (kind, output) = kind_and_output(error);
        assert_eq!(kind, ProcessErrorKind::Io);
        assert!(output.stdout.len() > 1 << 20);
    });
}

/// The output that a process had written was lost when a time limit around the call passed.
#[test]
fn the_error_of_a_time_limit_has_the_output_and_also_that_of_the_end() {
    test(async {
        let script =
            "trap 'echo bye; echo why >&2; exit 3' TERM; echo hello; while :; do sleep 0.01; done";
        let call = sh(script).capture_stdout(true).capture_stderr(true);
        let error = call
            .time_limit(Duration::from_millis(500))
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("longer than 500ms and wrote `why`"),
            "{error}"
        );
        assert_eq!(error.status().unwrap().code(), Some(3));
        let (kind, output) = kind_and_output(error);
        assert_eq!(kind, ProcessErrorKind::TimedOut);
        assert_eq!(output.stdout, b"hello\nbye\n");
    });
}

#[test]
fn a_process_past_its_time_that_ignores_sigterm_is_killed() {
    test(async {
        let call = sh("trap '' TERM; while :; do sleep 0.01; done").time_limit(SHORT);
        let error = call.kill_after(SHORT).await.unwrap_err();
        assert_eq!(error.status().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(error.kind(), ProcessErrorKind::TimedOut);
    });
}

#[test]
fn a_time_limit_is_in_real_time_and_a_process_within_it_is_not_touched() {
    test_with(RunBuilder::new().clock(MockClock::autojump()), async {
        let call = sh("sleep 0.05; (sleep 0.05; echo late) & echo done").capture_stdout(true);
        let output = call.time_limit(LONG).drain_for(LONG).await.unwrap();
        assert_eq!(output.stdout, b"done\nlate\n");
    });
}

/// A process that was left behind with the pipes used to keep the call waiting for as long as it
/// lived.
#[test]
fn pipes_that_others_hold_open_are_awaited_for_a_bounded_time() {
    test(async {
        let script = "sleep 1000 & echo $!; exit 0";
        let error = sh(script)
            .capture_stdout(true)
            .drain_for(SHORT)
            .await
            .unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("exited with code 0, but another process"),
            "{message}"
        );
        let (kind, output) = kind_and_output(error);
        assert_eq!(kind, ProcessErrorKind::HeldOpen);
        end_by_number(&output.stdout);

        // The failure of the process says more than its pipes.
        let script = "sleep 1000 & echo $!; exit 3";
        let call = sh(script).capture_stdout(true).drain_for(Duration::ZERO);
        let (kind, output) = kind_and_output(call.await.unwrap_err());
        assert_eq!(
            (kind, output.status.code()),
            (ProcessErrorKind::Failed, Some(3))
        );
        end_by_number(&output.stdout);

        // The time limit bounds this wait too. On a busy machine it may be over before the shell
        // has exited, which is another error.
        let script = "sleep 60 & echo $!";
        let mut limit = SHORT;
        loop {
            let call = sh(script).capture_stdout(true).drain_for(LONG);
            let error = call.time_limit(limit).await.unwrap_err();
            let (kind, output) = kind_and_output(error);
            if !output.stdout.is_empty() {
                end_by_number(&output.stdout);
            }
            if kind == ProcessErrorKind::HeldOpen {
                break;
            }
            assert_eq!(kind, ProcessErrorKind::TimedOut);
            limit *= 2;
        }

        // Input that is not read is held open in the same way.
        let script = "exec 3<&0; sleep 1000 <&3 >/dev/null & echo $!";
        let call = sh(script).input(vec![0; 1 << 20]).capture_stdout(true);
        let (kind, output) = kind_and_output(call.drain_for(SHORT).await.unwrap_err());
        assert_eq!(kind, ProcessErrorKind::HeldOpen);
        end_by_number(&output.stdout);
    });
}

/// Ends a process whose number was printed, and waits for its end.
fn end_by_number(printed: &[u8]) {
    let pid: u32 = std::str::from_utf8(printed)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let number = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
    wait_until_gone(pid);
}

/// Numbers of real-time signals used to be refused, though signal receivers take them.
#[test]
fn every_signal_that_programs_may_use_can_be_sent() {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    test(async {
        for number in [1, 2, 10, 15, first, first + 3, last] {
            let command = sh("kill -STOP $$").check(false);
            open_nursery(|n| async move {
                let process = n.start(|started| command.supervise(started)).await.unwrap();
                for refused in [i32::MIN, -1, 0, 32, last + 1] {
                    process.signal(refused).unwrap_err();
                }
                process.signal(number).unwrap();
                process.signal(libc::SIGCONT).unwrap();
                let ended = process.wait().await.unwrap();
                assert_eq!(ended.signal(), Some(number));
                process.signal(number).unwrap(); // it has ended
            })
            .await;
        }
        let custom = sh("exec sleep 1000").time_limit(SHORT).check(false);
        let custom = custom.deliver_cancel(async move |process| process.signal(first).unwrap());
        let error = custom.await.unwrap_err();
        assert_eq!(error.status().unwrap().signal(), Some(first));
    });
}

/// A process used to inherit the blocked signals of the calling thread: SIGTERM did not reach it.
#[test]
fn a_process_has_no_blocked_signals_whatever_the_caller_blocks() {
    test(async {
        for dies in [false, true] {
            let call = || {
                let call = sh("grep SigBlk /proc/self/status").capture_stdout(true);
                call.die_with_parent(dies).into_future()
            };
            let free = call().await.unwrap().stdout;
            let before = block_all();
            let blocked = call().await.unwrap().stdout;
            set_mask(&before);
            let none = b"SigBlk:\t0000000000000000\n";
            assert_eq!((&*free, &*blocked), (&none[..], &none[..]));
        }
        let before = block_all();
        let call = sh("exec sleep 1000").time_limit(SHORT).kill_after(LONG);
        let error = call.await.unwrap_err();
        set_mask(&before);
        assert_eq!(error.status().unwrap().signal(), Some(libc::SIGTERM));
    });
}

fn block_all() -> libc::sigset_t {
    // SAFETY: all zeros are a valid set, `sigfillset` fills it, and `before` has room for the old
    // mask.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

fn set_mask(mask: &libc::sigset_t) {
    // SAFETY: the set is initialised.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// A shell that starts one process in its group and one in a session of its own, prints their
/// numbers, and waits.
const FAMILY: &str = "sleep 1000 & a=$!; setsid sh -c 'trap : TERM; echo $$; while :; do sleep 0.01; done' & \
                      echo $a; wait; wait";

/// Starts `FAMILY` with `settings`, and calls `end` with the numbers of its two children.
async fn with_family(
    settings: RunProcess,
    end: impl AsyncFnOnce(seedbed::process::Process),
) -> [u32; 2] {
    let mut found = [0; 2];
    let pids = &mut found;
    open_nursery(|n| async move {
        let settings = settings.stdout(Stdio::piped()).check(false);
        let mut process = n
            .start(|started| settings.supervise(started))
            .await
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        for pid in &mut *pids {
            let mut line = String::new();
            lines.read_line(&mut line).await.unwrap();
            *pid = line.trim().parse().unwrap();
        }
        assert!(pids.iter().all(|&pid| is_alive(pid)));
        end(process).await;
        n.cancel();
    })
    .await;
    found
}

/// Processes that a cancelled process had started used to live on, and there was no setting.
#[test]
fn a_tree_ends_with_its_process_when_that_is_cancelled() {
    test(async {
        for pid in with_family(sh(FAMILY).kill_tree(true), async |_| {}).await {
            wait_until_gone(pid);
        }
        // A process that ignores SIGTERM is killed after its descendants.
        let stubborn = sh(&format!("trap '' TERM; {FAMILY}")).kill_after(SHORT);
        for pid in with_family(stubborn.kill_tree(true), async |_| {}).await {
            wait_until_gone(pid);
        }
    });
}

#[test]
fn a_tree_ends_by_its_handle_and_with_a_dropped_call() {
    test(async {
        let killed = with_family(sh(FAMILY).kill_tree(true), async |process| {
            process.kill();
            process.wait().await.unwrap();
        });
        for pid in killed.await {
            wait_until_gone(pid);
        }
        let mut output = tempfile::NamedTempFile::new().unwrap();
        let stdout = output.reopen().unwrap();
        let mut call = Box::pin(sh(FAMILY).kill_tree(true).stdout(stdout).into_future());
        let pids = poll_fn(|cx| {
            assert!(call.as_mut().poll(cx).is_pending());
            let mut text = String::new();
            std::io::Read::read_to_string(
                &mut std::fs::File::open(output.path()).unwrap(),
                &mut text,
            )
            .unwrap();
            if text.matches('\n').count() < 2 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(
                text.lines()
                    .map(|line| line.parse().unwrap())
                    .collect::<Vec<u32>>(),
            )
        })
        .await;
        std::io::Write::flush(&mut output).unwrap();
        drop(call);
        pids.into_iter().for_each(wait_until_gone);
    });
}

#[test]
fn the_group_of_a_tree_ends_when_its_process_ends_by_itself() {
    test(async {
        let call = sh("sleep 1000 & echo $!")
            .capture_stdout(true)
            .kill_tree(true);
        let output = call.drain_for(LONG).await.unwrap();
        let pid = std::str::from_utf8(&output.stdout).unwrap().trim().parse();
        wait_until_gone(pid.unwrap());
    });
}

/// A process used to live on when the whole program was killed. The program is this test, started
/// again.
#[test]
fn a_process_dies_with_this_program_and_not_with_the_thread_that_started_it() {
    const NAME: &str = "a_process_dies_with_this_program_and_not_with_the_thread_that_started_it";
    if is_child() {
        // The call is polled first on a thread that ends.
        let mut sleep = Command::new("sh");
        sleep.args(["-c", "echo $$; read x; echo alive; exec sleep 1000"]);
        let call = run_process(sleep)
            .die_with_parent(true)
            .stdin(Stdio::inherit());
        let begin = move || {
            let mut call = Box::pin(call.into_future());
            run(poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            }));
            call
        };
        let call = std::thread::spawn(begin).join().unwrap();
        return run(async { drop(call.await) });
    }
    let _alone = alone();
    let mut program: Child = child_test(NAME)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(program.stdout.take().unwrap()));
    let mut next = |is_wanted: &dyn Fn(&str) -> bool| {
        lines
            .find_map(|line| line.ok().filter(|line| is_wanted(line)))
            .expect("it prints that")
    };
    let pid: u32 = next(&|line| line.parse::<u32>().is_ok()).parse().unwrap();
    std::io::Write::write_all(program.stdin.as_mut().unwrap(), b"\n").unwrap();
    next(&|line| line == "alive");
    assert!(is_alive(pid));
    program.kill().unwrap();
    program.wait().unwrap();
    wait_until_gone(pid);
}

#[test]
fn a_program_that_cannot_be_started_is_an_error_also_from_the_other_thread() {
    test(async {
        for _ in 0..2 {
            let call = run_process(Command::new("/no/such/program")).die_with_parent(true);
            assert_eq!(call.await.unwrap_err().kind(), ProcessErrorKind::Start);
        }
        let mut command = Command::new("true");
        // SAFETY: the closure makes no call.
        unsafe { command.pre_exec(|| Err(std::io::ErrorKind::Other.into())) };
        let call = run_process(command).die_with_parent(true).kill_tree(true);
        assert_eq!(call.await.unwrap_err().kind(), ProcessErrorKind::Start);
    });
}

const CHILD_VARIABLE: &str = "SEEDBED_PROCESS_TEST";

fn is_child() -> bool {
    std::env::var_os(CHILD_VARIABLE).is_some()
}

/// A command that runs one test of this program again.
fn child_test(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture"])
        .env(CHILD_VARIABLE, "1");
    command
}

#[test]
fn a_cancelled_tree_may_be_ended_in_another_way() {
    test(async {
        let settings = sh(FAMILY).kill_tree(true).deliver_cancel(async |process| {
            process.signal(libc::SIGINT).unwrap_or_default();
            process.kill();
            pending().await
        });
        for pid in with_family(settings, async |_| {}).await {
            wait_until_gone(pid);
        }
    });
}
