//! Events in the program that has workers: it is killed, forks itself, runs out of descriptors and
//! processes, its disks are full, its file is replaced, its clock jumps, and several runtimes share
//! one context.
//!
//! Most tests run this program again, to play a part in a process of its own.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::common;
use crate::common::stage::{self, Bystander, Stage, announce, forever, helper, helper_in, staged};
use crate::common::{children, modes, pid, test, with_workers};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use seedbed::testing::MockClock;
use seedbed::worker::{WorkerErrorKind, default_context_statistics};
use seedbed::{CapacityLimiter, RunBuilder, WorkerConfig, WorkerContext, run, run_sync};

const MODULE: &str = "programs";

fn no_process_outlives_a_program_that_is_killed_while_its_workers_idle_wait_and_spin() {
    fn spin(stage: PathBuf) {
        announce(&stage);
        loop {
            std::hint::spin_loop();
        }
    }
    let name = "no_process_outlives_a_program_that_is_killed_while_its_workers_idle_wait_and_spin";
    if stage::part().is_some() {
        staged(WorkerConfig::new(), |workers| async move {
            let stage = Stage::new();
            let many = CapacityLimiter::unlimited();
            let _spins = smol::spawn(
                workers
                    .run_sync(spin, stage.path())
                    .limiter(&many)
                    .into_future(),
            );
            let _waits = smol::spawn(
                workers
                    .run_sync(forever, stage.path())
                    .limiter(&many)
                    .into_future(),
            );
            stage.reached().await;
            stage.reached().await;
            workers.run_sync(pid, ()).limiter(&many).await.unwrap();
            let family: Vec<String> = children().iter().map(u32::to_string).collect();
            println!("family {}.", family.join(" "));
            smol::future::pending::<()>().await;
        });
        unreachable!("the helper is killed");
    }
    let _alone = common::alone();
    let mut helper = helper(MODULE, name, "parent")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = helper.stdout.take().unwrap();
    let family = stage::announced(&mut output, "family ", ".");
    let family: Vec<u32> = family.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(family.len() >= 3, "{family:?}");
    helper.kill().unwrap();
    helper.wait().unwrap();
    family.into_iter().for_each(common::wait_until_gone);
}

/// Forks this program. The copy calls `what` and exits without clean-up. `true` is success.
fn in_a_forked_copy(what: impl FnOnce() -> bool) {
    // SAFETY: the copy has one thread, and locks held by other threads stay locked in it. All other
    // threads wait at this moment and hold none, and the C library handles its own locks.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        // SAFETY: `_exit` may be called at any moment.
        unsafe { libc::_exit(i32::from(!outcome.unwrap_or(false))) };
    }
    let mut status = 0;
    // SAFETY: writes to `status`.
    let reaped = unsafe { libc::waitpid(copy, &raw mut status, 0) };
    assert_eq!(reaped, copy);
    assert_eq!(status, 0, "the copy failed");
}

/// A forked copy once waited forever for the launcher's thread, which it does not have, and read
/// answers to the calls of the original.
fn a_program_that_forks_itself_has_workers_in_the_original_and_an_error_in_the_copy() {
    let name = "a_program_that_forks_itself_has_workers_in_the_original_and_an_error_in_the_copy";
    if stage::part().is_none() {
        stage::succeeds(helper(MODULE, name, "program"));
        return;
    }
    let refuses = |workers: &WorkerContext| {
        for killable in [false, true] {
            let call = workers.run_sync(pid, ()).kill_on_cancel(killable);
            let error = smol::block_on(call.into_future()).unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::ForkedProgram);
        }
        let error = smol::block_on(run_sync(pid, ()).into_future()).unwrap_err();
        error.kind() == WorkerErrorKind::ForkedProgram
    };
    staged(WorkerConfig::new(), |workers| async move {
        let bystander = Bystander::of(&workers).await;
        let many = CapacityLimiter::unlimited();
        let call = || workers.run_sync(pid, ()).limiter(&many);
        let mut stage = Stage::new();
        let mut pending = [false, true].map(|kill| {
            let call = workers
                .run_sync(stage::halting_pid, stage.path())
                .limiter(&many)
                .kill_on_cancel(kill);
            Some(Box::pin(call.into_future()))
        });
        for call in pending.iter_mut().flatten() {
            let reached = async {
                stage.reached().await;
                false
            };
            let ended = async {
                call.await.unwrap();
                true
            };
            assert!(!smol::future::or(reached, ended).await);
        }
        let first = call().await.unwrap();
        in_a_forked_copy(|| {
            // Calls in progress belong to the original. The copy may poll or drop them.
            for call in pending.iter_mut().flatten() {
                let polled = smol::future::block_on(smol::future::poll_once(call));
                let error = polled.unwrap().unwrap_err();
                assert_eq!(error.kind(), WorkerErrorKind::ForkedProgram);
            }
            pending.iter_mut().for_each(|call| drop(call.take()));
            workers.statistics();
            default_context_statistics();
            seedbed::worker::configure_default_context(WorkerConfig::new()).unwrap();
            refuses(&workers)
        });
        in_a_forked_copy(|| {
            let block = smol::block_on(async {
                let closed = workers.shutdown();
                let scope = seedbed::CancelScope::new();
                scope.cancel();
                smol::future::poll_once(scope.run(closed)).await
            });
            drop(block);
            refuses(&workers)
        });
        assert_eq!(call().await.unwrap(), first, "it is as it was");
        stage.release();
        for call in pending.into_iter().flatten() {
            call.await.unwrap();
        }
        bystander.ends_unharmed().await;
        workers.shutdown().await.unwrap();
    });
}

fn a_program_that_forks_itself_before_it_has_workers_can_have_them_in_both() {
    let name = "a_program_that_forks_itself_before_it_has_workers_can_have_them_in_both";
    if stage::part().is_none() {
        stage::succeeds(helper(MODULE, name, "program"));
        return;
    }
    seedbed::init();
    let has_workers = || {
        smol::block_on(stage::within(with_workers(
            WorkerConfig::new(),
            |workers| async move {
                let first = workers.run_sync(pid, ()).await.unwrap();
                assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
            },
        )));
        children().is_empty()
    };
    in_a_forked_copy(has_workers);
    assert!(has_workers());
}

/// Copies this program to a new folder.
fn copy_of_this_program() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    (folder, copy)
}

/// A program whose file had been touched once took its new workers for those of another program.
fn a_program_whose_file_is_touched_replaced_or_removed_while_it_runs_still_starts_workers() {
    let name =
        "a_program_whose_file_is_touched_replaced_or_removed_while_it_runs_still_starts_workers";
    let Some(copy) = stage::part() else {
        let (_folder, copy) = copy_of_this_program();
        let path = copy.to_str().unwrap().to_owned();
        stage::succeeds(helper_in(&copy, MODULE, name, &path));
        return;
    };
    fn touch(copy: &Path) {
        let file = std::fs::File::open(copy).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    fn replace(copy: &Path) {
        let other = copy.with_extension("other");
        std::fs::copy("/bin/true", &other).unwrap();
        std::fs::rename(&other, copy).unwrap();
    }
    fn remove(copy: &Path) {
        std::fs::remove_file(copy).unwrap();
    }
    staged(WorkerConfig::new(), |workers| async move {
        let copy = Path::new(&copy);
        let first = workers.run_sync(pid, ()).await.unwrap();
        let changes: [fn(&Path); 3] = [touch, replace, remove];
        for change in changes {
            change(copy);
            // In the same context, and in one whose fork server has not been started.
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
            with_workers(WorkerConfig::new(), |others| async move {
                assert_ne!(others.run_sync(pid, ()).await.unwrap(), first);
            })
            .await;
        }
    });
}

/// Limits the number of descriptors of this process, and returns the former limit.
fn limit_descriptors(most: u64) -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(most),
        ..before
    };
    setrlimit(Resource::Nofile, few).unwrap();
    before
}

fn a_program_that_runs_out_of_descriptors_gets_errors_and_recovers_and_calls_in_progress_go_on() {
    // Each step includes the end of a context.
    test(stage::within(async {
        let lowest_free = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
        let mut failures = 0;
        for room in 0.. {
            let succeeded = with_workers(WorkerConfig::new(), |workers| async move {
                let bystander = match room % 2 {
                    0 => Some(Bystander::of(&workers).await),
                    _ => None, // the fork server starts without free descriptors, too
                };
                let busy = if bystander.is_some() { 8 } else { 0 };
                let before = limit_descriptors(lowest_free + busy + room);
                let outcome = workers
                    .run_sync(pid, ())
                    .limiter(&CapacityLimiter::unlimited())
                    .await;
                setrlimit(Resource::Nofile, before).unwrap();
                if let Err(error) = &outcome {
                    assert_eq!(error.kind(), WorkerErrorKind::Start, "{error}");
                }
                if let Some(bystander) = bystander {
                    bystander.ends_unharmed().await;
                }
                workers.run_sync(pid, ()).await.unwrap();
                outcome.is_ok()
            })
            .await;
            if !succeeded {
                failures += 1;
            } else if room > 12 {
                break;
            }
        }
        assert!(failures > 0);
    }));
}

/// The limit counts processes by user, so the helper runs as a user who has no other processes.
fn a_program_that_runs_out_of_processes_gets_errors_and_recovers() {
    const SOMEBODY: u32 = 54_321;
    let name = "a_program_that_runs_out_of_processes_gets_errors_and_recovers";
    if stage::part().is_none() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: the user can be changed by root only");
            return;
        }
        stage::succeeds(helper(MODULE, name, "program"));
        return;
    }
    staged(WorkerConfig::new(), |workers| async move {
        workers.run_sync(pid, ()).await.unwrap(); // starts all threads
        // SAFETY: changes permissions of this process and no memory.
        unsafe {
            assert_eq!(libc::setresuid(SOMEBODY, SOMEBODY, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
        }
        let before = getrlimit(Resource::Nproc);
        for _ in 0..3 {
            let none = Rlimit {
                current: Some(0),
                ..before
            };
            setrlimit(Resource::Nproc, none).unwrap();
            with_workers(WorkerConfig::new(), |workers| async move {
                let error = workers.run_sync(pid, ()).await.unwrap_err();
                assert_eq!(error.kind(), WorkerErrorKind::Start, "{error}");
                setrlimit(Resource::Nproc, before).unwrap();
                workers.run_sync(pid, ()).await.unwrap();
            })
            .await;
        }
        // SAFETY: changes permissions of this process and no memory. Only root may end the workers
        // of root.
        unsafe { assert_eq!(libc::setresuid(0, 0, 0), 0) };
    });
}

fn a_program_whose_disks_and_shared_memory_are_full_has_workers() {
    let name = "a_program_whose_disks_and_shared_memory_are_full_has_workers";
    if stage::part().is_none() {
        stage::succeeds(helper(MODULE, name, "program"));
        return;
    }
    // Made before the disks are full. The other threads have been started, and keep their view of
    // the file system.
    if let Err(error) = fill("/dev/shm").and_then(|()| fill("/tmp")) {
        println!("skipped: this environment does not let us mount ({error})");
        return;
    }
    staged(WorkerConfig::new(), |workers| async move {
        weigh_all_sizes(&workers).await;
    });
}

/// Makes calls with arguments and results of all sizes.
async fn weigh_all_sizes(workers: &WorkerContext) {
    let louder = |text: String| text + "!";
    for size in [0, 1 << 10, 1 << 17, 1 << 20, 1 << 22] {
        let text = "x".repeat(size);
        let answer = workers.run_sync(louder, text).await.unwrap();
        assert_eq!(answer.len(), size + 1);
    }
}

/// Mounts a full disk there, for this thread and those that it starts later.
fn fill(place: &str) -> rustix::io::Result<()> {
    // SAFETY: only the file system's view changes, and only this thread's; no descriptor or memory
    // is affected.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let privately = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", privately)?;
    mount("none", place, "tmpfs", MountFlags::empty(), c"size=4k")?;
    std::fs::write(format!("{place}/full"), [0; 4096]).unwrap();
    assert!(std::fs::write(format!("{place}/more"), [0; 4096]).is_err());
    Ok(())
}

/// Shared memory is a file, so growing it beyond the limit raises SIGXFSZ, which ends a process by
/// default.
fn a_program_that_may_not_write_files_has_workers() {
    let name = "a_program_that_may_not_write_files_has_workers";
    if stage::part().is_none() {
        stage::succeeds(helper(MODULE, name, "program"));
        return;
    }
    for most in [0, 4096, 1 << 20] {
        // A fork server needs a file in memory, so this is for the default type, which spawns then.
        let context = seedbed::open_worker_context(WorkerConfig::new(), |workers| async move {
            let before = getrlimit(Resource::Fsize);
            let nothing = Rlimit {
                current: Some(most),
                ..before
            };
            setrlimit(Resource::Fsize, nothing).unwrap();
            weigh_all_sizes(&workers).await;
            setrlimit(Resource::Fsize, before).unwrap();
        });
        test(stage::within(context));
    }
}

/// The idle timeout of workers, the time limit of their start and the grace period of contexts are
/// real time. No code reads the system's time of day, so only the clock of a run can jump.
fn a_clock_that_jumps_by_years_ends_no_worker_and_no_job() {
    const YEARS: Duration = Duration::from_secs(100_000_000);
    test(stage::within(async {
        // The run has a thread of its own, because this one runs the test's executor.
        let thread = modes::thread_of_test();
        let jumps = || {
            let clock = MockClock::new();
            RunBuilder::new().clock(clock.clone()).run(async {
                let mut stage = Stage::new();
                let config = WorkerConfig::new()
                    .idle_timeout(Duration::from_secs(600))
                    .grace_period(Duration::from_secs(60));
                with_workers(config, |workers| async move {
                    let mut call = Box::pin(
                        workers
                            .run_sync(stage::halting_pid, stage.path())
                            .kill_on_cancel(true)
                            .into_future(),
                    );
                    while children().is_empty() {
                        assert!(smol::future::poll_once(&mut call).await.is_none());
                        clock.jump(YEARS);
                    }
                    let ended = async {
                        (&mut call).await.unwrap();
                        panic!("it has not been let on")
                    };
                    let worker = smol::future::or(stage.reached(), ended).await;
                    clock.jump(YEARS);
                    assert!(smol::future::poll_once(&mut call).await.is_none());
                    stage.release();
                    assert_eq!(call.await.unwrap(), worker);
                    clock.jump(YEARS);
                    assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
                    clock.jump(YEARS);
                    workers.shutdown().await.unwrap();
                })
                .await;
            });
        };
        let run = thread.spawn(jumps).unwrap();
        smol::unblock(|| run.join().unwrap()).await;
    }));
}

/// Deadlines are those of the run's clock, so a jump passes them.
fn a_clock_that_jumps_past_a_calls_deadline_kills_its_worker() {
    test(stage::within(async {
        let thread = modes::thread_of_test();
        let jumps = || {
            RunBuilder::new().clock(MockClock::autojump()).run(async {
                let stage = Stage::new();
                with_workers(WorkerConfig::new(), |workers| async move {
                    let call = workers.run_sync(forever, stage.path()).kill_on_cancel(true);
                    let outcome = seedbed::move_on_after(Duration::from_secs(3600), call).await;
                    assert!(outcome.is_none());
                    assert!(common::workers().is_empty());
                })
                .await;
            });
        };
        let run = thread.spawn(jumps).unwrap();
        smol::unblock(|| run.join().unwrap()).await;
    }));
}

fn two_runs_a_tokio_program_and_a_smol_task_share_the_default_context_at_once() {
    async fn calls() -> Vec<u32> {
        let mut pids = Vec::new();
        for n in 0..50 {
            let limiter = CapacityLimiter::unlimited();
            let (echoed, pid) = run_sync(|n: u32| (n, std::process::id()), n)
                .limiter(&limiter)
                .await
                .unwrap();
            assert_eq!(echoed, n);
            pids.push(pid);
        }
        pids
    }
    test(stage::within(async {
        let thread = modes::thread_of_test;
        let tokio = || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async { tokio::spawn(calls()).await.unwrap() })
        };
        let threads = [
            thread().spawn(|| run(calls())).unwrap(),
            thread().spawn(|| run(calls())).unwrap(),
            thread().spawn(tokio).unwrap(),
        ];
        let task = smol::spawn(calls());
        let mut pids = task.await;
        for thread in threads {
            pids.extend(smol::unblock(|| thread.join().unwrap()).await);
        }
        pids.sort_unstable();
        pids.dedup();
        assert!(pids.len() < 200, "workers are used by several: {pids:?}");
        common::end_default_workers();
    }));
}

/// Sends signals to a worker from several threads while calls are made.
fn signals_that_do_not_end_a_worker_harm_no_call() {
    staged(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        for _ in 0..50 {
            for harmless in [
                Signal::INT,
                Signal::CHILD,
                Signal::URG,
                Signal::WINCH,
                Signal::CONT,
            ] {
                stage::signal(first, harmless);
                assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
            }
        }
    });
}

suite! {
    no_process_outlives_a_program_that_is_killed_while_its_workers_idle_wait_and_spin,
    a_program_that_forks_itself_has_workers_in_the_original_and_an_error_in_the_copy,
    a_program_that_forks_itself_before_it_has_workers_can_have_them_in_both,
    a_program_whose_file_is_touched_replaced_or_removed_while_it_runs_still_starts_workers,
    a_program_that_runs_out_of_descriptors_gets_errors_and_recovers_and_calls_in_progress_go_on,
    a_program_that_runs_out_of_processes_gets_errors_and_recovers,
    a_program_whose_disks_and_shared_memory_are_full_has_workers,
    a_program_that_may_not_write_files_has_workers,
    a_clock_that_jumps_by_years_ends_no_worker_and_no_job,
    a_clock_that_jumps_past_a_calls_deadline_kills_its_worker,
    two_runs_a_tokio_program_and_a_smol_task_share_the_default_context_at_once,
    signals_that_do_not_end_a_worker_harm_no_call,
}
