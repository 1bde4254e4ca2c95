//! Starting a worker, and the errors of a start that fails.
//!
//! Tests that need another program run this program again: the same test, in which an environment
//! variable selects the part that the new process plays.

use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common;
use crate::common::stage::{self, PART, Stage, halting_pid};
use crate::common::{pid, test, with_workers};
use seedbed::worker::WorkerErrorKind;
use seedbed::{CancelScope, WorkerConfig, run_sync};

const MODULE: &str = "start";

/// Prepares to run this program again, as one test that plays a part.
fn helper(test: &str) -> Command {
    let mut command = stage::helper(MODULE, test, "1");
    command.stdout(Stdio::piped());
    command
}

fn plays_a_part() -> bool {
    stage::part().is_some()
}

fn a_call_to_seedbed_before_the_hook_is_an_error_that_names_the_fix() {
    // The mistake: this call comes before the hook. In this process, which is no worker, that does
    // no harm.
    let _ = seedbed::worker::default_context_statistics();
    seedbed::init();
    let _alone = common::alone();
    let error = smol::block_on(async { run_sync(pid, ()).await }).unwrap_err();
    assert_eq!(error.kind(), WorkerErrorKind::Start);
    let text = error.to_string();
    assert!(
        text.contains("`seedbed::worker::default_context_statistics` before")
            && text.contains("`seedbed::init()`"),
        "{text}"
    );
    assert!(common::children().is_empty());
}

fn a_worker_that_exits_before_the_hook_is_reported_with_its_exit_code() {
    if plays_a_part() {
        seedbed_worker_exits(9);
        seedbed::init();
        let error = smol::block_on(async { run_sync(pid, ()).await }).unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        assert_eq!(error.exit().unwrap().code(), Some(9));
        assert!(common::children().is_empty());
        return;
    }
    let _alone = common::alone();
    let name = "a_worker_that_exits_before_the_hook_is_reported_with_its_exit_code";
    stage::succeeds_while_alone(helper(name));
}

/// Exits if this process is a worker on its way to the hook.
fn seedbed_worker_exits(code: i32) {
    if std::env::var_os("SEEDBED_WORKER").is_some() {
        std::process::exit(code);
    }
}

fn a_worker_whose_standard_input_was_replaced_runs_jobs() {
    if plays_a_part() {
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/zero").unwrap()).unwrap();
        seedbed::init();
        let worker = smol::block_on(async { run_sync(pid, ()).await }).unwrap();
        assert_ne!(worker, std::process::id());
        return;
    }
    let name = "a_worker_whose_standard_input_was_replaced_runs_jobs";
    let _alone = common::alone();
    stage::succeeds_while_alone(helper(name));
}

/// Such a worker once took itself for the program and started another worker, and so on: 200 in a
/// second.
fn a_program_that_clears_its_environment_before_the_hook_has_workers() {
    const COPIES: &str = "SEEDBED_TEST_COPIES";
    if plays_a_part() {
        let copies: u32 = std::env::var(COPIES).map_or(0, |count| count.parse().unwrap());
        assert!(copies < 2, "the program starts itself over and over");
        // SAFETY: the main thread only waits, and no thread reads the environment through
        // the C library.
        unsafe {
            std::env::vars_os().for_each(|(name, _)| std::env::remove_var(name));
            std::env::set_var(COPIES, (copies + 1).to_string());
            std::env::set_var(PART, "1");
        }
        seedbed::init();
        let worker = smol::block_on(async { run_sync(pid, ()).await }).unwrap();
        assert_ne!(worker, std::process::id());
        return;
    }
    let name = "a_program_that_clears_its_environment_before_the_hook_has_workers";
    let _alone = common::alone();
    stage::succeeds_while_alone(helper(name));
}

fn a_worker_dies_with_its_parent_though_the_job_spins() {
    fn announce(_: ()) {
        println!("worker {}.", std::process::id());
        loop {
            std::hint::spin_loop();
        }
    }
    seedbed::init();
    if plays_a_part() {
        let _ = smol::block_on(async { run_sync(announce, ()).await });
        unreachable!("the helper is killed");
    }
    let _alone = common::alone();
    let mut helper = helper("a_worker_dies_with_its_parent_though_the_job_spins")
        .spawn()
        .unwrap();
    let mut output = helper.stdout.take().unwrap();
    let worker = common::stage::announced(&mut output, "worker ", ".");
    let worker: u32 = worker.parse().unwrap();
    assert!(common::is_alive(worker));
    helper.kill().unwrap();
    helper.wait().unwrap();
    common::wait_until_gone(worker);
}

fn a_worker_exits_when_its_parent_exits_without_shutdown() {
    seedbed::init();
    if plays_a_part() {
        let worker = smol::block_on(async { run_sync(pid, ()).await }).unwrap();
        println!("worker {worker}.");
        return; // no shutdown
    }
    let _alone = common::alone();
    let output = helper("a_worker_exits_when_its_parent_exits_without_shutdown")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (pid, _) = text
        .split_once("worker ")
        .unwrap()
        .1
        .split_once('.')
        .unwrap();
    common::wait_until_gone(pid.parse().unwrap());
}

fn a_program_without_free_descriptors_gets_an_error_and_leaks_none() {
    test(async {
        with_workers(WorkerConfig::new(), |workers| async move {
            let mut held = Vec::new();
            let mut failures = 0;
            // One free descriptor less each time, so that each step of the start fails once.
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            let lowest_free = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
            for room in 0..12 {
                let most = rustix::process::Rlimit {
                    current: Some(lowest_free + room),
                    maximum: limit.maximum,
                };
                rustix::process::setrlimit(rustix::process::Resource::Nofile, most).unwrap();
                let outcome = workers.run_sync(pid, ()).await;
                rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
                match outcome {
                    Ok(_) => held.push(workers.clone()),
                    Err(error) => {
                        assert_eq!(error.kind(), WorkerErrorKind::Start, "{error}");
                        failures += 1;
                    }
                }
                if !held.is_empty() {
                    break;
                }
            }
            assert!(failures > 0);
            assert!(workers.run_sync(pid, ()).await.is_ok());
        })
        .await;
    });
}

/// In a program that had closed its standard error, a worker's socket once got the number of the
/// standard error, and error messages of the program were sent to the worker, which exited.
fn a_program_with_a_closed_standard_error_does_not_print_to_its_workers() {
    seedbed::init();
    if plays_a_part() {
        smol::block_on(async {
            run_sync(pid, ()).await.unwrap(); // opens the reactor's descriptors
            // SAFETY: the program does not use its standard error after this.
            unsafe { libc::close(2) };
            with_workers(WorkerConfig::new(), |workers| async move {
                let first = workers.run_sync(pid, ()).await.unwrap();
                // SAFETY: reads the bytes of a live buffer. The write may fail.
                unsafe { libc::write(2, c"an error".as_ptr().cast(), 8) };
                assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
            })
            .await;
        });
        return;
    }
    let _alone = common::alone();
    let name = "a_program_with_a_closed_standard_error_does_not_print_to_its_workers";
    stage::succeeds_while_alone(helper(name));
}

/// The kernel clears the parent-death signal of a process that changes its user, as an init closure
/// that drops privileges does. Without root, the closure changes nothing.
fn a_worker_that_drops_privileges_still_dies_with_its_parent() {
    fn become_nobody() {
        // SAFETY: changes how this process accesses files and nothing in its memory.
        unsafe { libc::setfsuid(65534) };
    }
    let config = WorkerConfig::new().init(become_nobody);
    test(with_workers(config, |workers| async move {
        let tie = |()| {
            let signal = rustix::process::parent_process_death_signal().unwrap();
            signal.map(|signal| signal.as_raw())
        };
        let tied = workers.run_sync(tie, ()).await.unwrap();
        assert_eq!(tied, Some(libc::SIGKILL));
    }));
}

/// A program that could no longer kill its workers, because it had changed its user, once panicked
/// when it tried. Without root, the program keeps its user.
fn a_program_that_may_not_kill_its_worker_waits_for_it() {
    seedbed::init();
    if plays_a_part() {
        smol::block_on(with_workers(WorkerConfig::new(), |workers| async move {
            let mut stage = Stage::new();
            stage.open_to_all_users();
            let worker = workers.run_sync(pid, ()).await.unwrap();
            // SAFETY: changes what this process may do and nothing in its memory.
            unsafe { libc::setresuid(65534, 65534, 65534) };
            let scope = CancelScope::new();
            let call = workers.run_sync(halting_pid, stage.path());
            let call = scope.run(call.kill_on_cancel(true));
            let cancel = async {
                assert_eq!(stage.reached().await, worker);
                scope.cancel();
                smol::future::yield_now().await; // the call tries to kill
                stage.release();
            };
            let (outcome, ()) = smol::future::zip(call, cancel).await;
            assert!(outcome.is_none());
        }));
        return;
    }
    let _alone = common::alone();
    let name = "a_program_that_may_not_kill_its_worker_waits_for_it";
    stage::succeeds_while_alone(helper(name));
}

/// While SIGCHLD is ignored, the kernel reaps workers, and their exit status is lost. Each shutdown
/// was once reported as not graceful for that reason.
fn a_program_that_ignores_sigchld_calls_kills_and_ends_workers_like_any_other() {
    let disposition = |handler| {
        // SAFETY: both dispositions, to ignore and the default, install no code.
        unsafe { libc::signal(libc::SIGCHLD, handler) };
    };
    test(with_workers(WorkerConfig::new(), |workers| async move {
        disposition(libc::SIG_IGN);
        let exit = |()| -> () { std::process::exit(3) };
        let error = workers.run_sync(exit, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert_eq!(error.exit().unwrap().code(), None);
        let forever = |()| -> () {
            loop {
                std::thread::park();
            }
        };
        let call = workers.run_sync(forever, ()).kill_on_cancel(true);
        let outcome = seedbed::move_on_after(Duration::from_millis(50), call).await;
        assert!(outcome.is_none());
        workers.run_sync(pid, ()).await.unwrap();
        let farewell = workers.shutdown().await;
        disposition(libc::SIG_DFL);
        farewell.unwrap();
    }));
}

fn a_process_that_a_job_starts_is_no_worker() {
    fn start_a_copy(_: ()) -> bool {
        let output = Command::new("/proc/self/exe")
            .arg("--list")
            .stdin(Stdio::inherit())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout)
            .contains("a_process_that_a_job_starts_is_no_worker: test")
    }
    test(with_workers(
        WorkerConfig::new().idle_timeout(Duration::from_secs(60)),
        |workers| async move {
            assert!(workers.run_sync(start_a_copy, ()).await.unwrap());
        },
    ));
}

/// Prepares to run a test of this program from a copy of the program in a new folder.
fn copied_helper(test: &str, folder: &std::path::Path) -> Command {
    let copy = folder.join("copy");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    stage::helper_in(&copy, MODULE, test, copy.to_str().unwrap())
}

/// Removes the linker's build identifier from a program. Two builds without one are told apart by
/// their modification times.
fn forget_build_id(program: &std::path::Path) {
    const NOTE: &[u8] = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    const TYPE: usize = 8;
    let mut image = std::fs::read(program).unwrap();
    let found: Vec<usize> = (0..image.len() - NOTE.len())
        .step_by(4)
        .filter(|&at| image[at..].starts_with(NOTE))
        .collect();
    for at in found {
        image[at + TYPE] = 99;
    }
    std::fs::write(program, image).unwrap();
}

fn a_program_whose_file_is_gone_still_starts_workers() {
    seedbed::init();
    if let Some(copy) = stage::part() {
        std::fs::remove_file(copy).unwrap();
        let absolute = smol::block_on(async { run_sync(i32::abs, -1).await });
        assert_eq!(absolute.unwrap(), 1);
        return;
    }
    let _alone = common::alone();
    let folder = tempfile::tempdir().unwrap();
    let name = "a_program_whose_file_is_gone_still_starts_workers";
    stage::succeeds_while_alone(copied_helper(name, folder.path()));
}

fn a_worker_of_a_changed_image_is_refused_and_runs_no_job() {
    fn leave_a_trace(path: std::path::PathBuf) {
        std::fs::write(path, "called").unwrap();
    }
    // An init closure is code, too.
    #[allow(clippy::ptr_arg)] // its data is a `PathBuf`, so this is what it gets
    fn leave_a_trace_early(path: &std::path::PathBuf) {
        leave_a_trace(path.clone());
    }
    seedbed::init();
    if let Some(copy) = stage::part() {
        let trace = std::path::Path::new(&copy).with_extension("trace");
        smol::block_on(async {
            // Started before the change, this worker is of our image.
            assert_eq!(run_sync(i32::abs, -1).await.unwrap(), 1);
            let file = std::fs::File::open(&copy).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
            let config = WorkerConfig::new().init_with(trace.clone(), leave_a_trace_early);
            with_workers(config, |workers| async move {
                let error = workers
                    .run_sync(leave_a_trace, trace.clone())
                    .await
                    .unwrap_err();
                assert_eq!(error.kind(), WorkerErrorKind::ImageMismatch);
                assert!(!trace.exists());
            })
            .await;
            assert_eq!(run_sync(i32::abs, -2).await.unwrap(), 2);
        });
        return;
    }
    let _alone = common::alone();
    let folder = tempfile::tempdir().unwrap();
    let name = "a_worker_of_a_changed_image_is_refused_and_runs_no_job";
    let helper = copied_helper(name, folder.path());
    forget_build_id(std::path::Path::new(helper.get_program()));
    stage::succeeds_while_alone(helper);
}

suite! {
    a_call_to_seedbed_before_the_hook_is_an_error_that_names_the_fix,
    a_worker_that_exits_before_the_hook_is_reported_with_its_exit_code,
    a_worker_whose_standard_input_was_replaced_runs_jobs,
    a_program_that_clears_its_environment_before_the_hook_has_workers,
    a_worker_dies_with_its_parent_though_the_job_spins,
    a_worker_exits_when_its_parent_exits_without_shutdown,
    a_program_without_free_descriptors_gets_an_error_and_leaks_none,
    a_program_with_a_closed_standard_error_does_not_print_to_its_workers,
    a_worker_that_drops_privileges_still_dies_with_its_parent,
    a_program_that_may_not_kill_its_worker_waits_for_it,
    a_program_that_ignores_sigchld_calls_kills_and_ends_workers_like_any_other,
    a_process_that_a_job_starts_is_no_worker,
    a_program_whose_file_is_gone_still_starts_workers,
    a_worker_of_a_changed_image_is_refused_and_runs_no_job,
}
