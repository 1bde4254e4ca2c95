//! `kill_tree`: the processes that a worker's jobs have started end with the worker, also if they
//! have left its group.

use std::fs::File;
use std::future::IntoFuture;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common;
use crate::common::stage::{self, Stage, announce, helper, kill, signal, signal_of};
use crate::common::{children, endless, is_alive, pid, test, wait_until_gone, with_workers};
use rustix::process::{Pid, Signal, getpgid, getpid, set_child_subreaper};
use seedbed::{CancelScope, WorkerConfig};

const MODULE: &str = "groups";

fn config() -> WorkerConfig {
    WorkerConfig::new().capture_stderr(true)
}
/// Starts a process that sleeps for a minute, which is longer than any test.
fn start_sleeper(_: ()) -> u32 {
    let mut command = Command::new("sleep");
    command
        .arg("60")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap().id()
}

/// Starts a process that sleeps for a minute in a session of its own, and whose parent has exited.
fn start_daemon(_: ()) -> u32 {
    let mut shell = Command::new("sh");
    shell.args(["-c", "setsid sleep 60 >/dev/null 2>&1 </dev/null & echo $!"]);
    let output = shell.output().unwrap().stdout;
    let daemon = String::from_utf8(output).unwrap().trim().parse().unwrap();
    while common::name_of(daemon) != "sleep" {} // then it has its session
    daemon
}

/// Starts a process of a new session that starts one of another new session.
fn start_nested_sessions(_: ()) -> u32 {
    let mut shell = Command::new("sh");
    let inner = "setsid sleep 60 >/dev/null 2>&1 </dev/null & echo $!; exec sleep 60";
    shell
        .args(["-c", &format!("setsid sh -c '{inner}' | head -n 1")])
        .stdin(Stdio::null());
    let output = shell.stdout(Stdio::piped()).spawn().unwrap().stdout;
    let mut line = String::new();
    BufReader::new(output.unwrap())
        .read_line(&mut line)
        .unwrap();
    let innermost = line.trim().parse().unwrap();
    while common::name_of(innermost) != "sleep" {}
    innermost
}

const WAYS: usize = 3;

/// Starts a process in one of several ways, and returns its process id.
fn start(way: usize) -> u32 {
    let ways: [fn(()) -> u32; WAYS] = [start_sleeper, start_daemon, start_nested_sessions];
    ways[way](())
}

fn tree() -> WorkerConfig {
    config().kill_tree(true)
}

/// A program that adopts orphans kept a zombie for each process that was killed with a worker.
fn a_program_that_adopts_orphans_keeps_no_zombies_of_killed_trees() {
    let name = "a_program_that_adopts_orphans_keeps_no_zombies_of_killed_trees";
    if stage::part().is_none() {
        stage::succeeds(helper(MODULE, name, "reaper"));
        return;
    }
    set_child_subreaper(Some(getpid())).unwrap();
    // Fails if it leaves a child, zombies included.
    test(with_workers(tree(), |workers| async move {
        for way in 0..WAYS {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            workers.run_sync(start, way).await.unwrap();
            let call = workers.run_sync(endless, ()).kill_on_cancel(true);
            let scope = CancelScope::new();
            let mut call = Box::pin(scope.run(call.into_future()));
            assert!(smol::future::poll_once(&mut call).await.is_none());
            scope.cancel();
            assert!(call.await.is_none());
            assert!(!is_alive(worker));
            // One that is killed from outside, with its group, and one that exits by itself.
            workers.run_sync(start_sleeper, ()).await.unwrap();
            kill(workers.run_sync(pid, ()).await.unwrap());
            workers.run_sync(start, way).await.unwrap();
        }
    }));
}

fn killing_a_worker_kills_the_processes_that_its_jobs_have_started() {
    test(with_workers(tree(), |workers| async move {
        for way in 0..WAYS {
            let sleeper = workers.run_sync(start, way).await.unwrap();
            assert!(is_alive(sleeper));
            let scope = CancelScope::new();
            let call = workers.run_sync(endless, ()).kill_on_cancel(true);
            let mut call = Box::pin(scope.run(call));
            assert!(smol::future::poll_once(&mut call).await.is_none());
            scope.cancel();
            assert!(call.await.is_none());
            wait_until_gone(sleeper);
        }
    }));
}

/// All processes of the bomb have this in their command lines.
const BOMB: &str = "60.7134";

fn processes_of_the_bomb() -> usize {
    let has_mark = |entry: &std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.windows(BOMB.len()).any(|part| part == BOMB.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.flatten().filter(has_mark).count()
}

fn a_worker_is_killed_with_a_fork_bomb_that_its_job_has_set_off() {
    fn bomb(_: ()) {
        // 127 processes, of which each third has a session of its own.
        let script = format!(
            r#"bomb() {{ if [ $1 -gt 0 ]; then bomb $(($1 - 1)) & bomb $(($1 - 1)) & setsid sleep {BOMB} & fi; sleep {BOMB}; }}; bomb 6"#
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::null());
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        shell.status().unwrap();
    }
    test(with_workers(tree(), |workers| async move {
        for size in [1, 8, 60] {
            let scope = CancelScope::new();
            let call = workers.run_sync(bomb, ()).kill_on_cancel(true);
            let mut call = Box::pin(scope.run(call));
            while processes_of_the_bomb() < size {
                let short = smol::Timer::after(Duration::from_millis(1));
                assert!(smol::future::poll_once(&mut call).await.is_none());
                short.await;
            }
            scope.cancel();
            assert!(call.await.is_none());
            while processes_of_the_bomb() > 0 {
                std::thread::yield_now();
            }
        }
    }));
}

fn a_worker_that_crashes_takes_the_members_of_its_group_with_it() {
    test(with_workers(tree(), |workers| async move {
        let sleeper = workers.run_sync(start_sleeper, ()).await.unwrap();
        let crash = workers.run_sync(|()| std::process::abort(), ());
        let error: Result<(), _> = crash.await;
        assert_eq!(signal_of(&error.unwrap_err()), Some("SIGABRT"));
        wait_until_gone(sleeper);
    }));
}

fn a_worker_that_exits_takes_the_processes_that_its_jobs_have_started_with_it() {
    test(async {
        for way in 0..WAYS {
            // No call looks at the workers in between.
            for config in [
                tree().single_use(),
                tree().idle_timeout(Duration::from_millis(1)),
            ] {
                with_workers(config, |workers| async move {
                    let sleeper = workers.run_sync(start, way).await.unwrap();
                    wait_until_gone(sleeper);
                    workers.run_sync(pid, ()).await.unwrap();
                })
                .await;
            }
            let sleeper = with_workers(tree(), |workers| async move {
                let sleeper = workers.run_sync(start, way).await.unwrap();
                workers.shutdown().await.expect("it exits by itself");
                sleeper
            });
            wait_until_gone(sleeper.await);
        }
    });
}

fn a_killable_call_that_is_dropped_leaves_none_of_its_jobs_processes() {
    test(async {
        for way in 0..WAYS {
            let sleeper = with_workers(tree(), |workers| async move {
                let sleeper = workers.run_sync(start, way).await.unwrap();
                let call = workers
                    .run_sync(endless, ())
                    .kill_on_cancel(true)
                    .into_future();
                let mut call = Box::pin(call);
                assert!(smol::future::poll_once(&mut call).await.is_none());
                drop(call);
                sleeper
            });
            wait_until_gone(sleeper.await);
        }
    });
}

fn without_it_the_processes_that_a_job_has_started_live_on() {
    test(async {
        let without = with_workers(config(), |workers| async move {
            workers.run_sync(start_sleeper, ()).await.unwrap()
        });
        let sleeper = without.await;
        assert_eq!(children(), [], "the worker is gone");
        assert!(is_alive(sleeper));
        kill(sleeper);
    });
}

fn a_worker_leads_a_group_of_its_own_only_if_its_tree_is_to_be_killed() {
    fn group(_: ()) -> (i32, i32) {
        let number = |pid: Pid| pid.as_raw_nonzero().get();
        (
            number(getpgid(None).unwrap()),
            number(rustix::process::getpid()),
        )
    }
    let (mine, _) = group(());
    test(async {
        with_workers(tree(), |workers| async move {
            let (group, worker) = workers.run_sync(group, ()).await.unwrap();
            assert_eq!(group, worker);
        })
        .await;
        with_workers(config(), |workers| async move {
            assert_eq!(workers.run_sync(group, ()).await.unwrap().0, mine);
        })
        .await;
    });
}

/// Waits for SIGKILL to take the process that is being killed, or for the end that the test brings
/// about.
fn wait_forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// The processes that jobs had started once lived on after every end of the program without
/// unwinding.
fn a_tree_ends_with_a_program_that_ends_without_unwinding() {
    fn start_and_spin(stage: PathBuf) {
        println!("sleeper {}.", start_sleeper(()));
        announce(&stage);
        loop {
            std::hint::spin_loop();
        }
    }
    async fn have_it_spun(end: impl FnOnce()) {
        let stage = Stage::new();
        with_workers(tree(), |workers| async move {
            let call = workers.run_sync(start_and_spin, stage.path()).into_future();
            let end = async {
                stage.reached().await;
                end();
            };
            smol::future::zip(call, end).await.0.unwrap();
        })
        .await;
    }
    let name = "a_tree_ends_with_a_program_that_ends_without_unwinding";
    if let Some(part) = stage::part() {
        seedbed::init();
        common::dispositions::reset();
        match part.as_str() {
            "exits" => smol::block_on(have_it_spun(|| std::process::exit(3))),
            "aborts" => smol::block_on(have_it_spun(|| std::process::abort())),
            "is interrupted" => seedbed::run(have_it_spun(|| ())),
            _ => smol::block_on(have_it_spun(|| ())),
        }
        wait_forever()
    }
    let _alone = common::alone();
    for (part, sent) in [
        ("is killed", Some(Signal::KILL)),
        ("is terminated", Some(Signal::TERM)),
        ("is interrupted", Some(Signal::INT)),
        ("exits", None),
        ("aborts", None),
    ] {
        let mut command = helper(MODULE, name, part);
        let mut helper = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = helper.stdout.take().unwrap();
        let sleeper = stage::announced(&mut output, "sleeper ", ".");
        // The first SIGINT unwinds the run, which waits for the job; the second ends the program.
        while let (None, Some(sent)) = (helper.try_wait().unwrap(), sent) {
            signal(helper.id(), sent);
            std::thread::yield_now();
        }
        stage::wait_for(&mut helper);
        wait_until_gone(sleeper.parse().unwrap());
    }
}

/// Workers once panicked there, or had undefined behaviour, because their former group has no
/// number in the namespace.
fn a_program_whose_group_is_outside_of_its_pid_namespace_has_trees_that_end() {
    let name = "a_program_whose_group_is_outside_of_its_pid_namespace_has_trees_that_end";
    if stage::part().is_some() {
        seedbed::init();
        // SAFETY: the call has no arguments and changes nothing.
        assert_eq!(unsafe { libc::getpgrp() }, 0);
        for config in [tree(), tree().single_use()] {
            smol::block_on(with_workers(config, |workers| async move {
                let sleeper = workers.run_sync(start_sleeper, ()).await.unwrap();
                let scope = CancelScope::new();
                let call = workers.run_sync(endless, ()).kill_on_cancel(true);
                let mut call = Box::pin(scope.run(call));
                assert!(smol::future::poll_once(&mut call).await.is_none());
                scope.cancel();
                assert!(call.await.is_none());
                workers.shutdown().await.unwrap();
                wait_until_gone(sleeper);
            }));
        }
        return;
    }
    let _alone = common::alone();
    let unshare = |program: &Command| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc"]);
        if !rustix::process::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.arg(program.get_program()).args(program.get_args());
        for (key, value) in program.get_envs() {
            unshare.env(key, value.unwrap());
        }
        unshare.stdin(Stdio::null());
        unshare
    };
    match unshare(&Command::new("true")).output() {
        Ok(output) if output.status.success() => {}
        other => {
            println!("skipped: this environment does not let us unshare ({other:?})");
            return;
        }
    }
    stage::succeeds_while_alone(unshare(&helper(MODULE, name, "program")));
}

/// Returns both ends of a new terminal.
fn open_terminal() -> (OwnedFd, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: the call writes two descriptors, which are open and not owned by anything else. The
    // null pointers mean that nothing else is requested.
    unsafe {
        assert_eq!(
            libc::openpty(
                &raw mut ours,
                &raw mut theirs,
                null,
                null.cast(),
                null.cast()
            ),
            0
        );
        (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    }
}

/// Such a job was once stopped by the kernel, and its call never ended.
fn a_job_that_uses_the_terminal_is_not_stopped() {
    fn read(_: ()) -> Option<i32> {
        let mut terminal = File::open("/dev/tty").unwrap();
        terminal.read(&mut [0; 8]).unwrap_err().raw_os_error()
    }
    fn read_in_a_program(_: ()) -> bool {
        let mut head = Command::new("head");
        head.args(["-c", "1", "/dev/tty"]).stderr(Stdio::null());
        head.status().unwrap().success()
    }
    fn change_settings(_: ()) {
        let terminal = File::open("/dev/tty").unwrap();
        // SAFETY: the structure consists of integers, for which zeros are valid, and the calls read
        // and write it.
        unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            let terminal = terminal.as_raw_fd();
            assert_eq!(libc::tcgetattr(terminal, &raw mut settings), 0);
            let set = libc::tcsetattr(terminal, libc::TCSANOW, &raw const settings);
            assert_eq!(set, 0);
        }
    }
    let name = "a_job_that_uses_the_terminal_is_not_stopped";
    if stage::part().is_some() {
        stage::staged(tree(), |workers| async move {
            workers.run_sync(change_settings, ()).await.unwrap();
            assert_eq!(workers.run_sync(read, ()).await.unwrap(), Some(libc::EIO));
            assert!(!workers.run_sync(read_in_a_program, ()).await.unwrap());
        });
        return;
    }
    let _alone = common::alone();
    let (_ours, theirs) = open_terminal();
    let mut command = helper(MODULE, name, "program");
    let number = theirs.as_raw_fd();
    let take_the_terminal = move || {
        // SAFETY: both calls are async-signal-safe and change no memory.
        let taken = unsafe { libc::setsid() != -1 && libc::ioctl(number, libc::TIOCSCTTY, 0) == 0 };
        taken
            .then_some(())
            .ok_or_else(std::io::Error::last_os_error)
    };
    // SAFETY: the closure makes only system calls.
    unsafe { command.pre_exec(take_the_terminal) };
    stage::succeeds_while_alone(command);
}

suite! {
    a_tree_ends_with_a_program_that_ends_without_unwinding,
    a_program_whose_group_is_outside_of_its_pid_namespace_has_trees_that_end,
    a_job_that_uses_the_terminal_is_not_stopped,
    a_program_that_adopts_orphans_keeps_no_zombies_of_killed_trees,
    killing_a_worker_kills_the_processes_that_its_jobs_have_started,
    a_worker_is_killed_with_a_fork_bomb_that_its_job_has_set_off,
    a_worker_that_crashes_takes_the_members_of_its_group_with_it,
    a_worker_that_exits_takes_the_processes_that_its_jobs_have_started_with_it,
    a_killable_call_that_is_dropped_leaves_none_of_its_jobs_processes,
    without_it_the_processes_that_a_job_has_started_live_on,
    a_worker_leads_a_group_of_its_own_only_if_its_tree_is_to_be_killed,
}
