//! Signals that reach workers, and the signals of the programs that jobs execute.

use std::future::IntoFuture;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use crate::common;
use crate::common::stage::{Stage, halting_pid, signal, signal_of};
use crate::common::{children, pid, test, with_workers};
use rustix::process::Signal;
use seedbed::WorkerConfig;

const TERMINATION: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

fn termination_bits() -> u64 {
    TERMINATION
        .iter()
        .map(|signal| 1 << (signal.as_raw() - 1))
        .sum()
}

fn raise_all(_: ()) -> u32 {
    for each in TERMINATION {
        signal(std::process::id(), each);
    }
    std::process::id()
}

fn termination_signals_do_not_disturb_a_worker() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let pid = workers.run_sync(raise_all, ()).await.unwrap();
        assert_eq!(workers.run_sync(raise_all, ()).await.unwrap(), pid);
    }));
}

/// SIGTERM to the whole group, as `timeout` and init systems send it, once ended all jobs of a
/// program that handled it. The fork server died too, and the shutdown was not graceful.
fn signals_to_all_processes_of_a_program_end_no_job_and_no_fork_server() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let idle = workers.run_sync(pid, ()).await.unwrap();
        let mut stage = Stage::new();
        let call = smol::spawn(workers.run_sync(halting_pid, stage.path()).into_future());
        let busy = stage.reached().await;
        for each in TERMINATION {
            children().into_iter().for_each(|child| signal(child, each));
        }
        stage.release();
        assert_eq!(call.await.unwrap(), busy);
        let after = workers.run_sync(pid, ()).await.unwrap();
        assert!([idle, busy].contains(&after));
        workers.shutdown().await.unwrap();
    }));
}

/// Programs that jobs executed once inherited that SIGINT was ignored, and could not be
/// interrupted.
fn a_program_that_a_job_executes_has_the_default_actions() {
    fn masks_of_a_program(_: ()) -> (u64, u64) {
        let mut cat = Command::new("cat")
            .arg("/proc/self/status")
            .output()
            .unwrap();
        let status = String::from_utf8(std::mem::take(&mut cat.stdout)).unwrap();
        let mask = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(str::trim(line.unwrap()), 16).unwrap() & 0x7fff_ffff
        };
        (mask("SigIgn:"), mask("SigBlk:"))
    }
    fn ended_by(number: i32) -> Option<i32> {
        let mut sleep = Command::new("sleep").arg("60").spawn().unwrap();
        signal(sleep.id(), Signal::from_named_raw(number).unwrap());
        sleep.wait().unwrap().signal()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let of_ours = masks_of_a_program(());
        assert_eq!(of_ours.0 & termination_bits(), 0);
        let of_a_job = workers.run_sync(masks_of_a_program, ()).await.unwrap();
        assert_eq!(of_a_job, of_ours);
        for each in TERMINATION {
            let number = each.as_raw();
            let ended = workers.run_sync(ended_by, number).await.unwrap();
            assert_eq!(ended, Some(number));
        }
    }));
}

fn with_default_signals_a_worker_ends_and_its_fork_server_does_not() {
    fn raise(number: i32) {
        signal(std::process::id(), Signal::from_named_raw(number).unwrap());
        // Another thread may take the signal.
        loop {
            std::thread::park();
        }
    }
    let config = WorkerConfig::new().default_signals(true);
    test(with_workers(config, |workers| async move {
        for each in TERMINATION {
            let error = workers.run_sync(raise, each.as_raw()).await.unwrap_err();
            let name = error.exit().unwrap().signal_name();
            assert_eq!(name, signal_of(&error));
            assert_eq!(error.exit().unwrap().signal(), Some(each.as_raw()));
        }
        workers.run_sync(pid, ()).await.unwrap();
        let workers_of_it = common::workers();
        for child in children() {
            if !workers_of_it.contains(&child) {
                TERMINATION.iter().for_each(|&each| signal(child, each));
            }
        }
        workers.run_sync(pid, ()).await.unwrap();
        workers.shutdown().await.unwrap();
    }));
}

/// `nohup` makes a program ignore SIGHUP, so that what the program starts ignores it as well.
/// (The test's fork servers reset what they inherit before the hook.)
fn what_a_program_ignores_its_jobs_and_their_programs_ignore() {
    fn mask(of: &str, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{of}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    }
    fn ignored(_: ()) -> (u64, u64) {
        let mut sleep = Command::new("sleep").arg("60").spawn().unwrap();
        let of_program = mask(&sleep.id().to_string(), "SigIgn:");
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        (mask("self", "SigIgn:"), of_program)
    }
    let set = |disposition| {
        // SAFETY: neither to ignore a signal nor its default action installs code.
        unsafe { libc::signal(libc::SIGHUP, disposition) };
    };
    test(async {
        set(libc::SIG_IGN);
        for default in [false, true] {
            let config = WorkerConfig::new().default_signals(default);
            let call = |workers: seedbed::WorkerContext| async move {
                workers.run_sync(ignored, ()).await.unwrap()
            };
            let (job, program) = with_workers(config, call).await;
            let hup = 1 << (libc::SIGHUP - 1);
            assert_eq!(job & termination_bits(), hup);
            assert_eq!(program & termination_bits(), hup);
        }
        set(libc::SIG_DFL);
    });
}

suite! {
    termination_signals_do_not_disturb_a_worker,
    signals_to_all_processes_of_a_program_end_no_job_and_no_fork_server,
    a_program_that_a_job_executes_has_the_default_actions,
    with_default_signals_a_worker_ends_and_its_fork_server_does_not,
}

suite! {
    OF_SPAWNED:
    what_a_program_ignores_its_jobs_and_their_programs_ignore,
}
