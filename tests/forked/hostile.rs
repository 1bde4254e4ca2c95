//! What must not go wrong with workers that are forked, however unkind the moment.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{
    Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitOptions, getrlimit, setrlimit, waitid,
};

use crate::common::{children, is_alive, is_worker, pid, test, wait_until_gone, with_workers};
use seedbed::{CapacityLimiter, WorkerConfig, WorkerErrorKind, WorkerType};

use super::single_use;

fn a_call_that_nobody_polls_any_more_does_not_keep_others_from_the_fork_server() {
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
        // What was preloaded tells one fork server from another.
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

fn what_was_printed_before_the_fork_is_printed_once() {
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

fn a_fork_server_that_dies_before_it_can_tell_of_its_fork_leaves_no_worker_and_no_caller_waiting() {
    test(with_workers(
        WorkerConfig::new().preload(die_of_sendmsg),
        |workers| async move {
            let error = workers.run_sync(pid, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Start);
            // Nobody knows their numbers but `/proc`.
            for unknown in children() {
                let pid = rustix::process::Pid::from_raw(unknown.cast_signed());
                let _ = rustix::process::waitpid(pid, WaitOptions::empty());
            }
        },
    ));
}

/// The answer of a fork server is the only message of a child's that carries a descriptor.
fn die_of_sendmsg() {
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
            k: libc::SYS_sendmsg as u32,
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
    /// Is the parent.
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
        super::signal(parent, Signal::KILL);
        family.into_iter().for_each(wait_until_gone);
        assert_eq!(call.await.unwrap_err().kind(), WorkerErrorKind::Broken);
    }));
}

fn children_of(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn a_default_context_that_is_replaced_while_its_fork_server_comes_up_serves_its_calls() {
    fn slowly() {
        std::thread::sleep(Duration::from_millis(50));
    }
    test(async {
        for _ in 0..5 {
            let config = WorkerConfig::new().worker_type(WorkerType::ForkServer);
            seedbed::configure_default_context(config.preload(slowly)).unwrap();
            let mut call = Box::pin(seedbed::run_sync(pid, ()).into_future());
            while children().is_empty() {
                assert!(smol::future::poll_once(&mut call).await.is_none());
            }
            crate::common::end_default_workers();
            call.await.unwrap();
            while !children().is_empty() {
                smol::future::yield_now().await; // the replaced context's go in the background
            }
        }
    });
}

fn two_hundred_calls_at_once_come_to_their_end() {
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

fn a_fork_server_stopped_for_less_than_its_parents_patience_is_waited_for() {
    test(with_workers(single_use(), |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        let server = super::fork_server();
        stop(server);
        let call = smol::spawn(workers.run_sync(pid, ()).into_future());
        smol::Timer::after(Duration::from_millis(50)).await;
        super::signal(server, Signal::CONT);
        call.await.unwrap();
        assert!(is_alive(server));
    }));
}

fn a_worker_whose_descriptor_finds_no_room_is_an_error_and_leaves_nothing() {
    test(with_workers(single_use(), |workers| async move {
        // The next call must not find it on its way out.
        wait_until_gone(workers.run_sync(pid, ()).await.unwrap());
        let server = super::fork_server();
        stop(server);
        let mut call = Box::pin(workers.run_sync(pid, ()).into_future());
        assert!(smol::future::poll_once(&mut call).await.is_none());
        let full = Full::new();
        super::signal(server, Signal::CONT);
        let error = call.await.unwrap_err();
        drop(full);
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        workers.run_sync(pid, ()).await.unwrap();
        assert!(is_alive(server), "it is not to blame");
    }));
}

/// Stops a process, and waits until it has.
fn stop(pid: u32) {
    super::signal(pid, Signal::STOP);
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), options).unwrap();
}

/// As long as this lives, the process gets no more descriptors.
struct Full {
    before: Rlimit,
    _taken: Vec<OwnedFd>,
}

impl Full {
    fn new() -> Self {
        let before = getrlimit(Resource::Nofile);
        let few = Rlimit {
            current: Some(64),
            ..before
        };
        setrlimit(Resource::Nofile, few).unwrap();
        let more = || rustix::io::dup(rustix::stdio::stdout()).ok();
        Full {
            before,
            _taken: std::iter::from_fn(more).collect(),
        }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.before).unwrap();
    }
}

fn calls_dropped_at_any_poll_leave_nothing() {
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
    a_call_that_nobody_polls_any_more_does_not_keep_others_from_the_fork_server,
    runs_on_several_threads_share_a_fork_server,
    what_was_printed_before_the_fork_is_printed_once,
    threads_that_a_preload_closure_has_joined_do_not_make_forking_unsafe,
    a_fork_server_that_dies_before_it_can_tell_of_its_fork_leaves_no_worker_and_no_caller_waiting,
    workers_that_spin_and_their_fork_server_die_with_a_parent_that_is_killed,
    a_default_context_that_is_replaced_while_its_fork_server_comes_up_serves_its_calls,
    two_hundred_calls_at_once_come_to_their_end,
    a_job_may_have_workers_of_its_own,
    a_fork_server_stopped_for_less_than_its_parents_patience_is_waited_for,
    a_worker_whose_descriptor_finds_no_room_is_an_error_and_leaves_nothing,
    calls_dropped_at_any_poll_leave_nothing,
}
