//! Workers of tests under libtest: which test does a worker execute for a call from a thread of a
//! test, and what does it print?
//!
//! The tests run at the same time, in one process, so the hooks that one of them reaches are there
//! for the threads of the others.

use std::thread;

use seedbed::worker::WorkerErrorKind;
use seedbed::{WorkerError, run, run_sync};

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn pid_of_a_worker() -> Result<u32, WorkerError> {
    smol::block_on(async { run_sync(pid, ()).await })
}

fn assert_is_a_worker(pid: Result<u32, WorkerError>) {
    assert_ne!(pid.unwrap(), std::process::id());
}

#[test]
fn init_on_the_tests_thread_and_calls_on_others() {
    seedbed::init();
    for _ in 0..3 {
        assert_is_a_worker(thread::spawn(pid_of_a_worker).join().unwrap());
    }
}

/// No test has this name, so a worker that was to execute it once exited with code 0 before it
/// reached a hook. Other tests' threads without a hook took the same way.
#[test]
fn init_on_the_tests_thread_and_a_run_on_a_thread_with_another_name() {
    seedbed::init();
    let parser = thread::Builder::new().name("parser".into());
    let parser = parser.spawn(|| run(run_sync(pid, ()))).unwrap();
    assert_is_a_worker(parser.join().unwrap());
}

/// Each worker once executed the whole test program, with all its tests. The other tests may have
/// reached their hooks, which serve as well.
#[test]
fn a_run_on_a_thread_without_a_name_has_workers_of_another_test_or_an_error() {
    let outcome = thread::spawn(|| run(run_sync(pid, ()))).join().unwrap();
    match outcome {
        Ok(worker) => assert_ne!(worker, std::process::id()),
        Err(error) => {
            assert_eq!(error.kind(), WorkerErrorKind::Start);
            let text = error.to_string();
            assert!(text.contains("first thing in the test"), "{text}");
        }
    }
}

#[test]
fn a_run_on_a_thread_that_is_named_after_the_test() {
    let name = thread::current().name().unwrap().to_owned();
    let thread = thread::Builder::new().name(name);
    let worker = thread.spawn(|| run(run_sync(pid, ()))).unwrap();
    assert_is_a_worker(worker.join().unwrap());
}

/// Runs one of the tests above alone, in a process of its own.
fn alone(test: &str) -> String {
    let me = std::env::current_exe().unwrap();
    let mut command = std::process::Command::new(me);
    let output = command
        .args(["--include-ignored", "--exact", test, "--nocapture"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn alone_a_thread_that_is_no_tests_gets_an_error_and_executes_nothing() {
    for test in [
        "on_a_thread_without_a_name",
        "on_a_thread_with_another_name",
    ] {
        let said = alone(test);
        assert_eq!(said.matches("running").count(), 1, "{said}");
    }
}

#[test]
#[ignore = "part of another test"]
fn on_a_thread_without_a_name() {
    let error = thread::spawn(|| run(run_sync(pid, ()))).join().unwrap();
    let text = error.unwrap_err().to_string();
    assert!(text.contains("first thing in the test"), "{text}");
}

#[test]
#[ignore = "part of another test"]
fn on_a_thread_with_another_name() {
    let parser = thread::Builder::new().name("parser".into());
    let error = parser.spawn(|| run(run_sync(pid, ()))).unwrap().join();
    let text = error.unwrap().unwrap_err().to_string();
    assert!(text.contains("the test `parser`"), "{text}");
}

#[test]
fn a_worker_prints_no_heading_of_libtest() {
    let said = alone("a_job_prints_a_line");
    assert_eq!(said.matches("running 1 test").count(), 1, "{said}");
    assert_eq!(said.matches("a job's line").count(), 1, "{said}");
}

#[test]
#[ignore = "part of another test"]
fn a_job_prints_a_line() {
    seedbed::init();
    smol::block_on(async { run_sync(|()| println!("a job's line"), ()).await }).unwrap();
}
