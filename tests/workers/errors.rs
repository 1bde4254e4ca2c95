//! The details that an error has about a worker and its job, and the names of worker processes.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use crate::common;
use crate::common::{name_of, pid, test, with_workers, worker_type};
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use seedbed::worker::{WorkerErrorKind, WorkerType};
use seedbed::{WorkerConfig, WorkerError, run_sync};

fn config() -> WorkerConfig {
    WorkerConfig::new().name("pa ck").capture_stderr(true)
}

fn fault(words: String) {
    eprint!("{words}");
    loop {
        // The first signal runs the standard library's handler, which then restores the default
        // action.
        kill_process(getpid(), Signal::SEGV).unwrap();
    }
}

fn assert_one_line(error: &WorkerError) {
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
}

fn the_error_of_a_broken_worker_has_all_known_details() {
    test(with_workers(config(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let lines: String = (1..=12).map(|n| format!("line {n}\n")).collect();
        let error = workers.run_sync(fault, lines.clone()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        assert!(error.job().unwrap().ends_with("errors::fault"));
        assert_eq!(error.context(), Some("pa ck"));
        assert!(error.ran_for().is_some());
        let exit = error.exit().unwrap();
        assert_eq!(exit.pid(), worker);
        assert_eq!((exit.code(), exit.signal()), (None, Some(11)));
        assert_eq!(exit.signal_name(), Some("SIGSEGV"));
        assert_eq!(exit.stderr_tail(), Some(&*lines));

        let text = error.to_string();
        let mut shown = text.lines();
        let sentence = shown.next().unwrap();
        let begin = format!(
            "job `{}` in `pa ck`: the worker was killed",
            error.job().unwrap()
        );
        assert!(sentence.starts_with(&begin), "{sentence}");
        assert!(sentence.contains("by SIGSEGV"), "{sentence}");
        assert!(
            sentence.contains(&format!("(process {worker})")),
            "{sentence}"
        );
        assert!(sentence.contains(" into the job; "), "{sentence}");
        assert_eq!(shown.next(), Some("its standard error ended in:"));
        assert_eq!(shown.next(), Some("line 3"));
        assert_eq!(shown.last(), Some("line 12"));

        let all = format!("{error:?}");
        for fact in [
            "Broken",
            "fault",
            "pa ck",
            "ran_for",
            "signal: 11",
            "line 1\\n",
        ] {
            assert!(all.contains(fact), "{fact} is not in {all}");
        }
    }));
}

/// The system decides whether a core is dumped. The test compares with another process that dies in
/// the same way.
fn the_core_dump_flag_is_the_kernel_s() {
    fn limit_core(&most: &u64) {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(Resource::Core, limit).unwrap();
    }
    fn fault_in(folder: std::path::PathBuf) {
        std::env::set_current_dir(folder).unwrap();
        fault(String::new());
    }
    for most in [0u64, 1 << 30] {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("ulimit -c {} && kill -SEGV $$", most / 512);
        let reference = Command::new("sh")
            .args(["-c", &script])
            .current_dir(folder.path())
            .status()
            .unwrap();
        if reference.signal() != Some(libc::SIGSEGV) {
            assert_ne!(most, 0, "the limit can always be lowered");
            continue; // nor may the worker raise it
        }
        test(with_workers(
            config().init_with(most, limit_core),
            |workers| async move {
                let call = workers.run_sync(fault_in, folder.path().to_owned());
                let exit = call.await.unwrap_err().exit().unwrap().clone();
                assert_eq!(exit.signal_name(), Some("SIGSEGV"));
                assert_eq!(exit.core_dumped(), reference.core_dumped());
                let words = exit.to_string().contains("dumped core");
                assert_eq!(words, reference.core_dumped());
            },
        ));
    }
}

fn an_error_is_one_sentence_where_there_is_no_standard_error_to_show() {
    fn ask_for_a_backtrace() {
        // SAFETY: the worker runs no other code yet; if the main thread is another one, it waits.
        unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "1") };
    }
    fn paint(_: ()) {
        panic!("out of paint")
    }
    let config = WorkerConfig::new()
        .name("painter")
        .init(ask_for_a_backtrace);
    test(with_workers(config, |workers| async move {
        let broken = workers.run_sync(fault, String::new()).await.unwrap_err();
        assert_eq!(broken.exit().unwrap().stderr_tail(), None);
        assert_one_line(&broken);

        let error = workers.run_sync(paint, ()).await.unwrap_err();
        assert_one_line(&error);
        assert!(
            error
                .to_string()
                .contains("in `painter`: the job panicked at "),
            "{error}"
        );
        assert!(error.to_string().ends_with(": out of paint"), "{error}");
        assert_eq!(error.ran_for(), None);
        // Regression: a backtrace was part of the sentence.
        let backtrace = error
            .panic()
            .unwrap()
            .backtrace()
            .expect("it was asked for");
        assert!(backtrace.contains("paint"), "{backtrace}");
        assert!(format!("{error:?}").contains(backtrace), "{error:?}");
    }));
}

fn the_error_of_a_worker_killed_for_a_protocol_violation_shows_its_stderr() {
    fn scribble(_: ()) {
        eprintln!("about to scribble");
        for fd in 3..4096 {
            // SAFETY: not kept to, as the descriptors have owners; writing to what is not ours is
            // the test.
            unsafe { libc::write(fd, [42u8; 64].as_ptr().cast(), 64) };
        }
        loop {
            std::thread::park();
        }
    }
    test(with_workers(config(), |workers| async move {
        let error = workers.run_sync(scribble, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Protocol);
        assert!(error.ran_for().is_some());
        let exit = error.exit().unwrap();
        assert_eq!(exit.signal_name(), Some("SIGKILL"));
        assert_eq!(exit.stderr_tail(), Some("about to scribble\n"));
        assert!(error.to_string().ends_with("about to scribble"), "{error}");
    }));
}

fn the_error_of_a_failed_start_shows_the_stderr_of_the_worker() {
    fn give_up() {
        eprintln!("no toner");
        panic!("not today");
    }
    test(with_workers(config().init(give_up), |workers| async move {
        let error = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Init);
        assert_eq!(error.exit().unwrap().stderr_tail(), Some("no toner\n"));
        assert_eq!(error.context(), Some("pa ck"));
    }));
}

/// The length of a process name in bytes: `TASK_COMM_LEN` without the final zero.
const KEPT_BY_THE_KERNEL: usize = 15;

fn workers_are_listed_under_the_name_of_their_context_or_program() {
    test(with_workers(
        WorkerConfig::new().name("thumbnailer"),
        |workers| async move {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            assert_eq!(name_of(worker), "thumbnai-worker");
            if worker_type() == WorkerType::ForkServer {
                let names: Vec<String> = common::children().into_iter().map(name_of).collect();
                assert!(names.contains(&"thumbnaile-fork".to_owned()), "{names:?}");
            }
        },
    ));
    test(async {
        let worker = run_sync(pid, ()).await.unwrap();
        let path = std::env::args().next().unwrap();
        let program = path.rsplit('/').next().unwrap();
        let name = name_of(worker);
        assert!(name.len() <= KEPT_BY_THE_KERNEL);
        let shown = name.strip_suffix("-worker").unwrap();
        assert!(program.starts_with(shown), "{name} is not {program}'s");
        // The name is cut at the last character that fits.
        if let Some(next) = program[shown.len()..].chars().next() {
            assert!(name.len() + next.len_utf8() > KEPT_BY_THE_KERNEL, "{name}");
        }
        common::end_default_workers();
    });
}

/// Code before the hook may read the arguments, and so may the job.
fn the_command_line_of_a_worker_is_that_of_the_program() {
    fn arguments(_: ()) -> Vec<String> {
        std::env::args().collect()
    }
    test(with_workers(
        WorkerConfig::new().name("parser"),
        |workers| async move {
            let worker = workers.run_sync(pid, ()).await.unwrap();
            let line = std::fs::read_to_string(format!("/proc/{worker}/cmdline")).unwrap();
            let listed: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
            assert_eq!(listed, workers.run_sync(arguments, ()).await.unwrap());
            assert_eq!(listed[0], std::env::args().next().unwrap());
        },
    ));
}

suite! {
    the_error_of_a_broken_worker_has_all_known_details,
    the_core_dump_flag_is_the_kernel_s,
    an_error_is_one_sentence_where_there_is_no_standard_error_to_show,
    the_error_of_a_worker_killed_for_a_protocol_violation_shows_its_stderr,
    the_error_of_a_failed_start_shows_the_stderr_of_the_worker,
    workers_are_listed_under_the_name_of_their_context_or_program,
    the_command_line_of_a_worker_is_that_of_the_program,
}
