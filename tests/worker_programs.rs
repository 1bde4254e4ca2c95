//! What may happen to the program around its workers: it is killed, forks itself, runs out of descriptors and processes,
//! its disks are full, its file is replaced, its clock jumps, and several runtimes in it share one context.
//!
//! Most of it takes a process of its own: this program, run again to play a part.

#[macro_use]
mod common;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use common::stage::{self, Bystander, Stage, announce, for_ever, helper, helper_in, staged};
use common::{children, pid, test, with_workers};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use seedbed::testing::MockClock;
use seedbed::worker::{WorkerErrorKind, default_context_statistics};
use seedbed::{CapacityLimiter, RunBuilder, WorkerConfig, WorkerContext, run, run_sync};

const MODULE: &str = "worker_programs";

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
                    .run_sync(for_ever, stage.path())
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

/// Forks this program. The copy does `what`, and ends without any clean-up; `true` is success.
fn in_a_copy(what: impl FnOnce() -> bool) {
    // SAFETY: the copy has one thread, and what other threads had locked stays locked in it. None of them does anything but
    // wait at this moment, and the C library sees to its own locks.
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

/// A copy once asked the launcher's thread, which it does not have, and waited for ever; and answers to the original's calls
/// went to whichever of the two read first.
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
        in_a_copy(|| {
            // Calls in progress are the original's, whether they are polled, dropped or looked at.
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
        in_a_copy(|| {
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
        stage.let_on();
        for call in pending.into_iter().flatten() {
            call.await.unwrap();
        }
        bystander.leaves_unharmed().await;
        workers.shutdown().await.unwrap();
    });
}

fn a_program_that_forks_itself_before_it_has_workers_has_them_in_both() {
    let name = "a_program_that_forks_itself_before_it_has_workers_has_them_in_both";
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
    in_a_copy(has_workers);
    assert!(has_workers());
}

/// A copy of this program, in a folder of its own.
fn copy_of_this_program() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    (folder, copy)
}

/// A program whose file had been touched once took its new workers for another program's.
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
            // Of the same context, and of one whose fork server has yet to come up.
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
            with_workers(WorkerConfig::new(), |others| async move {
                assert_ne!(others.run_sync(pid, ()).await.unwrap(), first);
            })
            .await;
        }
    });
}

/// Lets this process have so many descriptors and no more; gives back what was the limit.
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
    // The context's own end is part of what is checked, at each step.
    test(stage::within(async {
        let lowest_free = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
        let mut failures = 0;
        for room in 0.. {
            let succeeded = with_workers(WorkerConfig::new(), |workers| async move {
                let bystander = match room % 2 {
                    0 => Some(Bystander::of(&workers).await),
                    _ => None, // so that the fork server comes up in want, too
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
                    bystander.leaves_unharmed().await;
                }
                workers.run_sync(pid, ()).await.unwrap();
                outcome.is_ok()
            })
            .await;
            match succeeded {
                false => failures += 1,
                true if room > 12 => break,
                true => {}
            }
        }
        assert!(failures > 0);
    }));
}

/// The user under whose limit that happens is somebody else, so that nobody's processes count but these.
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
        workers.run_sync(pid, ()).await.unwrap(); // so that all threads are there
        // SAFETY: changes what this process may do and nothing in its memory; it keeps its `/proc`.
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
        // SAFETY: as above. The workers of the root's are to be ended by it.
        unsafe { assert_eq!(libc::setresuid(0, 0, 0), 0) };
    });
}

fn a_program_whose_disks_and_shared_memory_are_full_has_workers_all_the_same() {
    let name = "a_program_whose_disks_and_shared_memory_are_full_has_workers_all_the_same";
    if stage::part().is_none() {
        stage::succeeds(helper(MODULE, name, "program"));
        return;
    }
    // The stage is on a disk that is not full yet; and before this thread has a view of its own, others have theirs.
    if let Err(error) = fill("/dev/shm").and_then(|()| fill("/tmp")) {
        println!("skipped: this environment does not let us mount ({error})");
        return;
    }
    staged(WorkerConfig::new(), |workers| async move {
        weigh_all_sizes(&workers).await;
    });
}

/// Arguments and results that take whatever way there is for their size.
async fn weigh_all_sizes(workers: &WorkerContext) {
    let louder = |text: String| text + "!";
    for size in [0, 1 << 10, 1 << 17, 1 << 20, 1 << 24] {
        let text = "x".repeat(size);
        let answer = workers.run_sync(louder, text).await.unwrap();
        assert_eq!(answer.len(), size + 1);
    }
}

/// Lets this thread and those that it will start see a full disk in this place.
fn fill(place: &str) -> rustix::io::Result<()> {
    // SAFETY: only the file system's view changes, and only this thread's; no descriptor or memory is affected.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let privately = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", privately)?;
    mount("none", place, "tmpfs", MountFlags::empty(), c"size=4k")?;
    std::fs::write(format!("{place}/full"), [0; 4096]).unwrap();
    assert!(std::fs::write(format!("{place}/more"), [0; 4096]).is_err());
    Ok(())
}

/// To make memory that is a file longer than that is a signal, too, and by default a deadly one.
fn a_program_that_may_not_write_files_has_workers_all_the_same() {
    let name = "a_program_that_may_not_write_files_has_workers_all_the_same";
    if stage::part().is_none() {
        stage::succeeds(helper(MODULE, name, "program"));
        return;
    }
    for most in [0, 4096, 1 << 20] {
        staged(WorkerConfig::new(), |workers| async move {
            let before = getrlimit(Resource::Fsize);
            let nothing = Rlimit {
                current: Some(most),
                ..before
            };
            setrlimit(Resource::Fsize, nothing).unwrap();
            weigh_all_sizes(&workers).await;
            setrlimit(Resource::Fsize, before).unwrap();
        });
    }
}

/// Workers live in real time: their idle timeout, their start's limit, their context's grace. Nothing reads the system's
/// clock of the day, so there is none to jump but a run's own.
fn a_clock_that_jumps_by_years_ends_no_worker_and_no_job() {
    const YEARS: Duration = Duration::from_secs(100_000_000);
    test(stage::within(async {
        // The run has a thread of its own: this one belongs to the test's executor.
        let thread =
            std::thread::Builder::new().name(std::thread::current().name().unwrap().into());
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
                    stage.let_on();
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

/// The deadline of a call is the run's, and a clock that jumps passes it.
fn a_clock_that_jumps_past_a_calls_deadline_kills_its_worker() {
    test(stage::within(async {
        let thread =
            std::thread::Builder::new().name(std::thread::current().name().unwrap().into());
        let jumps = || {
            RunBuilder::new().clock(MockClock::autojump()).run(async {
                let stage = Stage::new();
                with_workers(WorkerConfig::new(), |workers| async move {
                    let call = workers
                        .run_sync(for_ever, stage.path())
                        .kill_on_cancel(true);
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
        let name = std::thread::current().name().unwrap_or("main").to_owned();
        // The threads bear the test's name, by which its workers find the way to the hook.
        let thread = || std::thread::Builder::new().name(name.clone());
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

/// Sends a child's way what a signal would do to it between two calls, from everywhere at once.
fn signals_that_a_worker_ignores_or_does_not_mind_harm_no_call() {
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
    a_program_that_forks_itself_before_it_has_workers_has_them_in_both,
    a_program_whose_file_is_touched_replaced_or_removed_while_it_runs_still_starts_workers,
    a_program_that_runs_out_of_descriptors_gets_errors_and_recovers_and_calls_in_progress_go_on,
    a_program_that_runs_out_of_processes_gets_errors_and_recovers,
    a_program_whose_disks_and_shared_memory_are_full_has_workers_all_the_same,
    a_program_that_may_not_write_files_has_workers_all_the_same,
    a_clock_that_jumps_by_years_ends_no_worker_and_no_job,
    a_clock_that_jumps_past_a_calls_deadline_kills_its_worker,
    two_runs_a_tokio_program_and_a_smol_task_share_the_default_context_at_once,
    signals_that_a_worker_ignores_or_does_not_mind_harm_no_call,
}
