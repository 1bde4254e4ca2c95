//! Jobs that end their worker. Each is an error that names the cause, and no other call is harmed.

use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::common;
use crate::common::stage::{Stage, announce, kill, signal, staged};
use crate::common::{pid, test, until_empty, with_workers};
use rustix::process::{Signal, kill_process};
use seedbed::WorkerConfig;
use seedbed::worker::WorkerErrorKind;

fn config() -> WorkerConfig {
    WorkerConfig::new().capture_stderr(true)
}

macro_rules! deadly {
    ($(#[$doc:meta])* $name:ident, $job:block, |$error:ident| $check:expr) => {
        $(#[$doc])*
        fn $name() {
            test(with_workers(config(), |workers| async move {
                let first = workers.run_sync(pid, ()).await.unwrap();
                let $error = workers.run_sync(|()| -> () { $job }, ()).await.unwrap_err();
                assert_eq!($error.kind(), WorkerErrorKind::Broken, "{}", $error);
                assert_eq!($error.exit().unwrap().pid(), first);
                $check;
                assert!(!common::is_alive(first));
                assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
            }));
        }
    };
}

deadly!(
    exiting_is_reported_with_the_code,
    { std::process::exit(3) },
    |error| {
        assert_eq!(error.exit().unwrap().code(), Some(3));
        assert_eq!(error.exit().unwrap().signal(), None);
    }
);

deadly!(
    exiting_with_success_is_no_success,
    { std::process::exit(0) },
    |error| {
        assert_eq!(error.exit().unwrap().code(), Some(0));
    }
);

deadly!(
    aborting_is_reported_with_the_signal,
    { std::process::abort() },
    |error| {
        assert_eq!(error.exit().unwrap().signal_name(), Some("SIGABRT"));
    }
);

deadly!(a_segmentation_fault_is_reported, { segfault() }, |error| {
    assert_eq!(error.exit().unwrap().signal_name(), Some("SIGSEGV"));
});

fn segfault() {
    kill_process(rustix::process::getpid(), Signal::SEGV).unwrap();
    // SAFETY: unsound on purpose. No memory is mapped at this address, so the process ends here.
    unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
}

deadly!(
    a_stack_overflow_is_reported_with_the_last_words,
    {
        std::hint::black_box(recurse(1));
    },
    |error| {
        assert_eq!(error.exit().unwrap().signal_name(), Some("SIGABRT"));
        assert!(
            error
                .exit()
                .unwrap()
                .stderr_tail()
                .unwrap()
                .contains("overflowed its stack"),
            "{error}"
        );
    }
);

#[allow(unconditional_recursion)] // that is the test
fn recurse(n: u64) -> u64 {
    std::hint::black_box([n; 64])[0] + recurse(n + 1)
}

deadly!(
    a_worker_that_kills_itself_is_reported,
    { kill_process(rustix::process::getpid(), Signal::KILL).unwrap() },
    |error| assert_eq!(error.exit().unwrap().signal_name(), Some("SIGKILL"))
);

deadly!(
    closing_all_descriptors_and_returning_is_reported,
    { close_everything() },
    |error| {
        assert!(error.exit().unwrap().code().is_some());
    }
);

deadly!(
    closing_all_descriptors_and_living_on_gets_the_worker_killed,
    {
        close_everything();
        loop {
            std::thread::park();
        }
    },
    |error| {
        assert_eq!(error.exit().unwrap().signal_name(), Some("SIGKILL"));
        assert!(
            error.to_string().contains("closed its connection"),
            "{error}"
        );
    }
);

fn close_everything() {
    for fd in 0..4096 {
        // SAFETY: not kept to, as the descriptors have owners: what a job that does this brings
        // about is the test. `close` is called without `OwnedFd`, which would abort in a debug
        // build.
        unsafe { libc::close(fd) };
    }
}

deadly!(
    a_grandchild_that_holds_the_socket_does_not_hide_a_death,
    { fork_and_exit() },
    |error| assert_eq!(error.exit().unwrap().code(), Some(5))
);

/// Leaves a forked process behind that has all descriptors of the worker while the test's process
/// lives.
fn fork_and_exit() {
    // SAFETY: the child of a fork in a process with other threads may call only what is safe in a
    // signal handler, as `close`, `sleep` and `_exit` are. It closes its own copies of the
    // descriptors, for whose end the harness waits.
    unsafe {
        if libc::fork() == 0 {
            libc::close(1);
            libc::close(2);
            libc::sleep(3);
            libc::_exit(0);
        }
    }
    std::process::exit(5)
}

/// Both processes of a job that forks and returns once sent an answer, and the second one became
/// the value of the next call.
fn a_job_that_forks_and_returns_twice_gives_one_answer() {
    fn fork_and_return(_: ()) -> u32 {
        // SAFETY: the child of a fork in a process with other threads may call only what is safe in
        // a signal handler. This worker has no other threads that hold locks.
        if unsafe { libc::fork() } < 0 {
            return 0;
        }
        std::process::id()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        for _ in 0..20 {
            let answerer = workers.run_sync(fork_and_return, ()).await.unwrap();
            assert_eq!(answerer, first);
            let echo = workers.run_sync(|n: u32| n, 4711).await.unwrap();
            assert_eq!(echo, 4711);
        }
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    }));
}

fn a_worker_killed_from_outside_is_reported_and_other_jobs_go_on() {
    fn announce(path: std::path::PathBuf) {
        std::fs::write(path.with_extension("new"), std::process::id().to_string()).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
        loop {
            std::thread::park();
        }
    }
    test(with_workers(config(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let call = workers.run_sync(announce, path.clone()).into_future();
        let murder = async {
            let pid = loop {
                match std::fs::read_to_string(&path) {
                    Ok(pid) => break pid.parse().unwrap(),
                    Err(_) => smol::future::yield_now().await,
                }
            };
            assert_eq!(workers.run_sync(i32::abs, -1).await.unwrap(), 1);
            signal(pid, Signal::USR1);
        };
        let (error, ()) = smol::future::zip(call, murder).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert_eq!(error.exit().unwrap().signal_name(), Some("SIGUSR1"));
        assert_eq!(workers.statistics().idle_workers, 1);
    }));
}

fn a_worker_killed_while_idle_is_silently_replaced() {
    test(with_workers(config(), |workers| async move {
        for wait_for_the_end in [true, false] {
            let first = workers.run_sync(pid, ()).await.unwrap();
            kill(first);
            if wait_for_the_end {
                until_empty(&workers).await;
            }
            let second = workers.run_sync(pid, ()).await;
            match second {
                Ok(second) => assert_ne!(second, first),
                // The signal may take effect after the job has arrived.
                Err(error) => assert!(
                    !wait_for_the_end && error.kind() == WorkerErrorKind::Broken,
                    "{error}"
                ),
            }
        }
    }));
}

fn an_argument_that_kills_its_receiver_is_sent_once() {
    fn limit_memory() {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        let most = Some(pages * rustix::param::page_size() as u64 + (16 << 20));
        let limit = rustix::process::Rlimit {
            current: most,
            maximum: most,
        };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    }
    test(with_workers(
        config().init(limit_memory),
        |workers| async move {
            let length = |text: String| text.len();
            // More than malloc ever takes from the address space that it has reserved.
            let text = "x".repeat(40 << 20);
            // The argument comes as shared memory, which does not fit into the limit, or through
            // the socket where this process cannot make shared memory.
            let before = rustix::process::getrlimit(rustix::process::Resource::Fsize);
            let small_files = rustix::process::Rlimit {
                current: Some(20 << 20),
                ..before
            };
            assert_eq!(workers.run_sync(i32::abs, -1).await.unwrap(), 1);
            rustix::process::setrlimit(rustix::process::Resource::Fsize, small_files).unwrap();
            let outcome = workers.run_sync(length, text.clone()).await;
            rustix::process::setrlimit(rustix::process::Resource::Fsize, before).unwrap();
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken);
            assert_eq!(error.exit().unwrap().signal_name(), Some("SIGABRT"));
            let error = workers.run_sync(length, text).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::DecodeArgument);
            assert_eq!(workers.run_sync(i32::abs, -1).await.unwrap(), 1);
        },
    ));
}

fn a_worker_that_writes_malformed_frames_to_its_socket_is_killed() {
    fn scribble(_: ()) {
        for fd in 3..4096 {
            // SAFETY: the `File` is forgotten, so it does not close the descriptor. Writing to
            // foreign descriptors is the test.
            let file = unsafe { std::fs::File::from(OwnedFd::from_raw_fd(fd)) };
            let file = std::mem::ManuallyDrop::new(file);
            let _ = std::io::Write::write_all(&mut &*file, &[42; 64]); // most are not open
        }
    }
    test(with_workers(config(), |workers| async move {
        let error = workers.run_sync(scribble, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Protocol);
        assert_eq!(workers.run_sync(i32::abs, -1).await.unwrap(), 1);
    }));
}

fn the_last_four_kilobytes_of_standard_error_are_kept() {
    fn scream(_: ()) -> () {
        for n in 0..100_000 {
            eprintln!("line {n}");
        }
        std::process::exit(1)
    }
    test(with_workers(config(), |workers| async move {
        let error = workers.run_sync(scream, ()).await.unwrap_err();
        let tail = error.exit().unwrap().stderr_tail().unwrap();
        assert_eq!(tail.len(), 4096);
        assert!(tail.ends_with("line 99998\nline 99999\n"));
    }));
}

/// No call waits for the worker, and a full pipe would block its exit.
fn a_worker_that_prints_much_while_it_exits_is_not_blocked() {
    static STAGE: OnceLock<PathBuf> = OnceLock::new();
    extern "C" fn take_leave() {
        eprint!("{}", "x".repeat(1 << 20));
        announce(STAGE.get().unwrap());
    }
    fn take_leave_at_exit(stage: PathBuf) -> u32 {
        STAGE.set(stage).unwrap();
        // SAFETY: the function may be called at any time.
        assert_eq!(unsafe { libc::atexit(take_leave) }, 0);
        std::process::id()
    }
    staged(config().single_use(), |workers| async move {
        // Except for the first worker, the task that reaps exiting workers already runs.
        for _ in 0..5 {
            let stage = Stage::new();
            let worker = workers.run_sync(take_leave_at_exit, stage.path()).await;
            assert_eq!(stage.reached().await, worker.unwrap());
        }
        workers.shutdown().await.unwrap();
        assert_eq!(workers.statistics().killed, 0);
    });
}

suite! {
    exiting_is_reported_with_the_code,
    exiting_with_success_is_no_success,
    aborting_is_reported_with_the_signal,
    a_segmentation_fault_is_reported,
    a_stack_overflow_is_reported_with_the_last_words,
    a_worker_that_kills_itself_is_reported,
    closing_all_descriptors_and_returning_is_reported,
    closing_all_descriptors_and_living_on_gets_the_worker_killed,
    a_grandchild_that_holds_the_socket_does_not_hide_a_death,
    a_job_that_forks_and_returns_twice_gives_one_answer,
    a_worker_killed_from_outside_is_reported_and_other_jobs_go_on,
    a_worker_killed_while_idle_is_silently_replaced,
    an_argument_that_kills_its_receiver_is_sent_once,
    a_worker_that_writes_malformed_frames_to_its_socket_is_killed,
    the_last_four_kilobytes_of_standard_error_are_kept,
    a_worker_that_prints_much_while_it_exits_is_not_blocked,
}
