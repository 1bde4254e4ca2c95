//! Forked workers under hostile conditions: kills, panics and drops at every moment.

use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::stage::{kill, leave_a_byte, signal, stop};
use crate::common::{
    children, children_of, is_alive, is_worker, pid, test, wait_until_gone, with_workers,
};
use seedbed::worker::{WorkerErrorKind, WorkerType};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext};

use super::single_use;

fn a_call_that_is_polled_no_longer_does_not_block_the_fork_server() {
    test(with_workers(single_use(), |workers| async move {
        let many = CapacityLimiter::new(10);
        for started in [false, true] {
            if started {
                workers.run_sync(pid, ()).await.unwrap();
            }
            let mut left_alone = Vec::new();
            for _ in 0..3 {
                let call = workers.run_sync(pid, ()).limiter(&many);
                let mut call = Box::pin(call.into_future());
                match smol::future::poll_once(&mut call).await {
                    Some(done) => drop(done.unwrap()), // a quick one
                    None => left_alone.push(call),
                }
            }
            workers.run_sync(pid, ()).limiter(&many).await.unwrap();
            for call in left_alone {
                call.await.unwrap();
            }
        }
    }));
}

fn runs_on_several_threads_share_a_fork_server() {
    fn server(_: ()) -> u32 {
        // The preloaded value differs between fork servers.
        *PRELOADED.get().unwrap()
    }
    fn preload() {
        PRELOADED.set(std::process::id()).unwrap();
    }
    static PRELOADED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    test(with_workers(
        single_use().preload(preload),
        |workers| async move {
            let first = workers.run_sync(server, ()).await.unwrap();
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let workers = workers.clone();
                    smol::unblock(move || {
                        std::thread::spawn(move || {
                            seedbed::run(async {
                                for _ in 0..10 {
                                    let many = CapacityLimiter::new(10);
                                    let call = workers.run_sync(server, ()).limiter(&many);
                                    assert_eq!(call.await.unwrap(), first);
                                }
                            })
                        })
                        .join()
                        .unwrap()
                    })
                })
                .collect();
            for thread in threads {
                thread.await;
            }
        },
    ));
}

fn output_buffered_before_the_fork_is_printed_once() {
    fn print() {
        print!("preloaded");
    }
    fn job(_: ()) -> u32 {
        std::process::id()
    }
    test(async {
        let (mut reader, writer) = std::io::pipe().unwrap();
        std::io::stdout().flush().unwrap();
        let stdout = rustix::io::dup(rustix::stdio::stdout()).unwrap();
        rustix::stdio::dup2_stdout(&writer).unwrap();
        drop(writer);
        with_workers(single_use().preload(print), |workers| async move {
            for _ in 0..3 {
                workers.run_sync(job, ()).await.unwrap();
            }
        })
        .await;
        rustix::stdio::dup2_stdout(&stdout).unwrap();
        let mut printed = String::new();
        std::io::Read::read_to_string(&mut reader, &mut printed).unwrap();
        assert_eq!(printed, "preloaded");
    });
}

fn threads_that_a_preload_closure_has_joined_do_not_make_forking_unsafe() {
    fn preload() {
        for _ in 0..20 {
            let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| {})).collect();
            for thread in threads {
                thread.join().unwrap();
            }
        }
    }
    test(async {
        for _ in 0..20 {
            with_workers(WorkerConfig::new().preload(preload), |workers| async move {
                workers.run_sync(pid, ()).await.unwrap();
            })
            .await;
        }
    });
}

fn a_fork_server_that_dies_at_each_request_is_an_error_and_leaves_no_process() {
    fn preload() {
        // The fork server alone makes this system call, right before each fork.
        die_of(libc::SYS_get_robust_list);
    }
    for init in [false, true] {
        let mut config = WorkerConfig::new().preload(preload);
        if init {
            config = config.init(|| {});
        }
        test(with_workers(config, |workers| async move {
            let error = workers.run_sync(pid, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Start);
            assert!(error.to_string().contains("died each time"), "{error}");
        }));
    }
}

fn a_worker_that_dies_right_after_the_fork_is_an_error_and_leaves_no_zombie() {
    fn preload() {
        // The first system call of a forked worker.
        die_of(libc::SYS_set_robust_list);
    }
    for init in [false, true] {
        let mut config = WorkerConfig::new().preload(preload);
        if init {
            config = config.init(|| {});
        }
        test(with_workers(config, |workers| async move {
            for _ in 0..3 {
                let error = workers.run_sync(pid, ()).await.unwrap_err();
                // The worker may have received its job, because it needs no set-up before.
                let kind = if !init {
                    WorkerErrorKind::Broken
                } else {
                    WorkerErrorKind::Start
                };
                assert_eq!(error.kind(), kind);
                assert_eq!(error.exit().unwrap().signal(), Some(libc::SIGSYS));
                assert_eq!(children(), [super::fork_server()]);
            }
        }));
    }
}

/// Makes the kernel kill this process, and those that it forks, when they make this system call.
fn die_of(call: libc::c_long) {
    let statement = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut filter = [
        statement(load, 0), // the number of the system call
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: call as u32,
        },
        statement(give, libc::SECCOMP_RET_KILL_PROCESS),
        statement(give, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel reads the program, which outlives the calls.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program
            ),
            0
        );
    }
}

fn workers_that_spin_and_their_fork_server_die_with_a_parent_that_is_killed() {
    fn spin(_: ()) {
        loop {
            std::hint::spin_loop();
        }
    }
    /// Plays the parent.
    fn have_it_spun(_: ()) {
        let config = WorkerConfig::new().worker_type(WorkerType::ForkServer);
        smol::block_on(seedbed::open_worker_context(config, |workers| async move {
            workers.run_sync(spin, ()).await.unwrap();
        }));
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let call = smol::spawn(workers.run_sync(have_it_spun, ()).into_future());
        let (parent, family) = loop {
            smol::future::yield_now().await;
            let families = crate::common::workers()
                .into_iter()
                .map(|worker| (worker, children_of(worker)));
            let mut complete =
                families.filter(|(_, family)| family.iter().any(|&pid| is_worker(pid)));
            if let Some(found) = complete.next() {
                break found;
            }
        };
        assert_eq!(family.len(), 2);
        kill(parent);
        family.into_iter().for_each(wait_until_gone);
        assert_eq!(call.await.unwrap_err().kind(), WorkerErrorKind::Broken);
    }));
}

fn a_default_context_that_is_replaced_while_its_fork_server_starts_serves_its_calls() {
    fn slowly() {
        std::thread::sleep(Duration::from_millis(50));
    }
    test(async {
        for _ in 0..5 {
            let config = WorkerConfig::new().worker_type(WorkerType::ForkServer);
            seedbed::worker::configure_default_context(config.preload(slowly)).unwrap();
            let mut call = Box::pin(seedbed::run_sync(pid, ()).into_future());
            while children().is_empty() {
                assert!(smol::future::poll_once(&mut call).await.is_none());
            }
            crate::common::end_default_workers();
            call.await.unwrap();
            while !children().is_empty() {
                smol::future::yield_now().await; // the workers of the replaced context exit in the background
            }
        }
    });
}

fn two_hundred_calls_at_once_all_end() {
    test(with_workers(single_use(), |workers| async move {
        let many = CapacityLimiter::new(200);
        let calls: Vec<_> = (0..200)
            .map(|_| {
                let call = workers.run_sync(pid, ()).limiter(&many);
                smol::spawn(call.into_future())
            })
            .collect();
        let mut pids = std::collections::BTreeSet::new();
        for call in calls {
            assert!(pids.insert(call.await.unwrap()));
        }
        super::fork_server();
    }));
}

fn a_job_may_have_workers_of_its_own() {
    fn outer(_: ()) -> u32 {
        smol::block_on(async { seedbed::run_sync(pid, ()).await.unwrap() })
    }
    test(with_workers(single_use(), |workers| async move {
        for _ in 0..5 {
            let inner = workers.run_sync(outer, ()).await.unwrap();
            wait_until_gone(inner);
        }
    }));
}

fn a_fork_server_that_is_stopped_for_less_than_the_answer_timeout_is_not_killed() {
    test(with_workers(single_use(), |workers| async move {
        let call = workers.run_sync(pid, ()).into_future();
        let (server, mut call) = asked_while_stopped(&workers, call).await;
        for _ in 0..1000 {
            assert!(smol::future::poll_once(&mut call).await.is_none());
            smol::future::yield_now().await;
        }
        signal(server, Signal::CONT);
        call.await.unwrap();
        assert!(is_alive(server));
    }));
}

/// Makes a call that requests its worker from a stopped fork server.
pub(super) async fn asked_while_stopped<F: Future>(
    workers: &WorkerContext,
    call: F,
) -> (u32, Pin<Box<F>>) {
    let worker = workers.run_sync(pid, ()).await.unwrap();
    while children().contains(&worker) {
        workers.statistics(); // reaps workers that have ended
        smol::future::yield_now().await;
    }
    let server = super::fork_server();
    stop(server);
    let mut call = Box::pin(call);
    assert!(smol::future::poll_once(&mut call).await.is_none());
    (server, call)
}

fn a_call_does_not_wait_for_a_worker_that_is_exiting_but_shutdown_does() {
    /// Blocks the exit of its process until the other end of a named pipe is opened.
    static HELD_BY: OnceLock<std::ffi::CString> = OnceLock::new();
    extern "C" fn hold() {
        if let Some(path) = HELD_BY.get() {
            // SAFETY: the path is a C string, which outlives the call.
            unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) };
        }
    }
    fn hold_at_exit(path: String) -> u32 {
        HELD_BY.set(std::ffi::CString::new(path).unwrap()).unwrap();
        // SAFETY: the function may be called at any time.
        unsafe { libc::atexit(hold) };
        std::process::id()
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("held").to_str().unwrap().to_owned();
    let name = std::ffi::CString::new(path.clone()).unwrap();
    // SAFETY: the path is a C string, which outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    test(with_workers(single_use(), |workers| async move {
        let held = workers.run_sync(hold_at_exit, path.clone()).await.unwrap();
        let next = workers.run_sync(pid, ()).await.unwrap();
        assert_ne!(next, held);
        assert!(is_alive(held), "the next call has not waited for it");
        let mut end = Box::pin(workers.shutdown());
        assert!(smol::future::poll_once(&mut end).await.is_none());
        assert!(is_alive(held));
        drop(std::fs::File::options().write(true).open(path).unwrap());
        end.await.unwrap();
        assert_eq!(children(), []);
    }));
}

fn a_worker_that_announced_its_exit_and_does_not_exit_is_killed_without_a_further_call() {
    extern "C" fn forever() {
        loop {
            std::thread::park();
        }
    }
    fn stay_at_exit(_: ()) -> u32 {
        // SAFETY: the function may be called at any time.
        unsafe { libc::atexit(forever) };
        std::process::id()
    }
    test(with_workers(single_use(), |workers| async move {
        let stays = workers.run_sync(stay_at_exit, ()).await.unwrap();
        workers.run_sync(pid, ()).await.unwrap();
        assert!(is_alive(stays));
        while children().contains(&stays) {
            smol::Timer::after(Duration::from_millis(1)).await;
        }
        workers.shutdown().await.unwrap();
    }));
}

fn the_end_of_a_worker_is_noticed_while_a_process_of_its_job_holds_the_socket() {
    fn fork_and_die(_: ()) {
        // SAFETY: the child only calls `pause`, which is safe in a signal handler.
        unsafe {
            if libc::fork() == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, 0);
                libc::sleep(5);
                libc::_exit(0);
            }
        }
        std::process::abort()
    }
    test(with_workers(single_use(), |workers| async move {
        let error = workers.run_sync(fork_and_die, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert_eq!(error.exit().unwrap().signal(), Some(libc::SIGABRT));
    }));
}

fn a_call_whose_fork_server_is_killed_before_it_forks_is_run_once_by_a_worker_of_another() {
    test(with_workers(single_use(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs");
        for times in 1..=5 {
            let call = workers.run_sync(leave_a_byte, path.clone()).into_future();
            let (server, call) = asked_while_stopped(&workers, call).await;
            kill(server);
            call.await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap().len(), times);
        }
    }));
}

fn a_fork_server_killed_at_any_moment_of_a_call_leaves_the_job_run_once() {
    test(with_workers(single_use(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs");
        for times in 1..=60 {
            workers.run_sync(pid, ()).await.unwrap();
            let victim = super::fork_server();
            let killer = smol::unblock(move || {
                let start = std::time::Instant::now();
                // The kill comes at another moment in each round.
                while start.elapsed() < Duration::from_micros(times as u64 * 7) {}
                kill(victim);
            });
            let call = workers.run_sync(leave_a_byte, path.clone()).into_future();
            let (done, ()) = smol::future::zip(call, killer).await;
            done.unwrap();
            assert_eq!(std::fs::read(&path).unwrap().len(), times);
        }
    }));
}

fn a_killable_call_can_be_cancelled_while_its_fork_is_pending() {
    test(with_workers(single_use(), |workers| async move {
        let scope = CancelScope::new();
        let call = workers.run_sync(pid, ()).kill_on_cancel(true);
        let (server, mut call) = asked_while_stopped(&workers, scope.run(call)).await;
        scope.cancel();
        for _ in 0..1000 {
            // The worker may have been forked or not.
            assert!(smol::future::poll_once(&mut call).await.is_none());
            smol::future::yield_now().await;
        }
        signal(server, Signal::CONT);
        assert!(call.await.is_none());
        assert_eq!(children(), [server]);
    }));
}

fn calls_dropped_at_any_poll_leave_no_process() {
    test(with_workers(single_use(), |workers| async move {
        let many = CapacityLimiter::new(1000);
        for polls in 1..12 {
            for kill in [false, true] {
                let call = workers
                    .run_sync(pid, ())
                    .limiter(&many)
                    .kill_on_cancel(kill);
                let mut call = Box::pin(call.into_future());
                for _ in 0..polls {
                    if smol::future::poll_once(&mut call).await.is_some() {
                        break;
                    }
                    smol::future::yield_now().await;
                }
            }
        }
        workers.run_sync(pid, ()).limiter(&many).await.unwrap();
    }));
}

suite! {
    a_call_that_is_polled_no_longer_does_not_block_the_fork_server,
    runs_on_several_threads_share_a_fork_server,
    output_buffered_before_the_fork_is_printed_once,
    threads_that_a_preload_closure_has_joined_do_not_make_forking_unsafe,
    a_fork_server_that_dies_at_each_request_is_an_error_and_leaves_no_process,
    a_worker_that_dies_right_after_the_fork_is_an_error_and_leaves_no_zombie,
    workers_that_spin_and_their_fork_server_die_with_a_parent_that_is_killed,
    a_default_context_that_is_replaced_while_its_fork_server_starts_serves_its_calls,
    two_hundred_calls_at_once_all_end,
    a_job_may_have_workers_of_its_own,
    a_fork_server_that_is_stopped_for_less_than_the_answer_timeout_is_not_killed,
    a_call_does_not_wait_for_a_worker_that_is_exiting_but_shutdown_does,
    a_worker_that_announced_its_exit_and_does_not_exit_is_killed_without_a_further_call,
    the_end_of_a_worker_is_noticed_while_a_process_of_its_job_holds_the_socket,
    a_call_whose_fork_server_is_killed_before_it_forks_is_run_once_by_a_worker_of_another,
    a_fork_server_killed_at_any_moment_of_a_call_leaves_the_job_run_once,
    a_killable_call_can_be_cancelled_while_its_fork_is_pending,
    calls_dropped_at_any_poll_leave_no_process,
}
