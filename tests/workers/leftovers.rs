//! Threads, timers, output and changes of the user that a job leaves in its worker, and their
//! effect on later jobs.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::time::Duration;

use crate::common;
use crate::common::stage::{self, Stage, helper, state_of};
use crate::common::{pid, test, until_empty, with_workers};
use rustix::process::geteuid;
use seedbed::worker::WorkerType;
use seedbed::{WorkerConfig, WorkerContext};

const MODULE: &str = "leftovers";

/// Returns the thread that serves, which is not the main thread of a spawned worker.
fn serving_thread(_: ()) -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}

/// Makes a call, and waits until its worker sleeps.
async fn call_and_rest<A, R>(
    workers: &WorkerContext,
    job: impl Fn(A) -> R + Copy + Send + Sync + 'static,
    argument: A,
) -> R
where
    A: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    R: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    let thread = workers.run_sync(serving_thread, ()).await.unwrap();
    let result = workers.run_sync(job, argument).await.unwrap();
    // A worker sleeps after it has undone what jobs did. A thread's state can be read by its
    // number.
    while state_of(thread) != Some('S') {
        std::thread::yield_now();
    }
    result
}

// Timers.

#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
enum Handler {
    Default,
    Nothing,
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// Arms all three interval timers, for an hour each.
fn arm_timers(handler: Handler) -> u32 {
    for (timer, signal) in [(0, libc::SIGALRM), (1, libc::SIGVTALRM), (2, libc::SIGPROF)] {
        let hour = libc::timeval {
            tv_sec: 3600,
            tv_usec: 0,
        };
        let value = libc::itimerval {
            it_interval: hour,
            it_value: hour,
        };
        let handler = match handler {
            Handler::Default => libc::SIG_DFL,
            Handler::Nothing => do_nothing as *const () as libc::sighandler_t,
        };
        // SAFETY: the handler does nothing, and the calls change no memory of this process.
        unsafe {
            libc::signal(signal, handler);
            assert_eq!(
                libc::setitimer(timer, &raw const value, std::ptr::null_mut()),
                0
            );
        }
    }
    std::process::id()
}

/// Counts the interval timers that are armed.
fn armed_timers(_: ()) -> usize {
    let is_armed = |&timer: &i32| {
        // SAFETY: the structure consists of integers, for which zeros are valid, and the call
        // writes to it.
        unsafe {
            let mut value: libc::itimerval = std::mem::zeroed();
            assert_eq!(libc::getitimer(timer, &raw mut value), 0);
            value.it_value.tv_sec > 0
        }
    };
    [0, 1, 2].iter().filter(|timer| is_armed(timer)).count()
}

/// A timer that a job had left once ended its worker with a later job, which was blamed.
fn timers_that_a_job_has_left_do_not_end_a_later_job() {
    test(async {
        let limited = WorkerConfig::new().cpu_limit(Duration::from_secs(3600));
        with_workers(limited, |workers| async move {
            let worker = workers.run_sync(arm_timers, Handler::Default).await;
            assert_eq!(workers.run_sync(armed_timers, ()).await.unwrap(), 0);
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker.unwrap());
        })
        .await;
        with_workers(WorkerConfig::new(), |workers| async move {
            for _ in 0..3 {
                let worker = call_and_rest(&workers, arm_timers, Handler::Default).await;
                assert_eq!(workers.run_sync(armed_timers, ()).await.unwrap(), 0);
                assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
            }
        })
        .await;
    });
}

/// A profiler sets a timer once, in an `init` closure for example.
fn a_timer_whose_signal_is_handled_stays() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        call_and_rest(&workers, arm_timers, Handler::Nothing).await;
        assert_eq!(workers.run_sync(armed_timers, ()).await.unwrap(), 3);
    }));
}

/// Creates a timer for each of these signals, which it sends in an hour.
fn create_timers(signals: Vec<i32>) -> u32 {
    for signal in signals {
        // SAFETY: the structures consist of integers, for which zeros are valid, and the calls read
        // and write only these.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = signal;
            let mut timer: libc::timer_t = std::ptr::null_mut();
            let clock = libc::CLOCK_MONOTONIC;
            assert_eq!(libc::timer_create(clock, &raw mut event, &raw mut timer), 0);
            let mut value: libc::itimerspec = std::mem::zeroed();
            value.it_value.tv_sec = 3600;
            value.it_interval.tv_sec = 3600;
            let old = std::ptr::null_mut();
            assert_eq!(libc::timer_settime(timer, 0, &raw const value, old), 0);
        }
    }
    std::process::id()
}

/// Returns the signals of the timers of `timer_create` that are armed, in the order of creation.
fn signals_of_armed_timers(_: ()) -> Vec<i32> {
    let list = std::fs::read_to_string("/proc/self/timers").unwrap();
    let number =
        |line: &str, name| Some(line.strip_prefix(name)?.split('/').next()?.parse().unwrap());
    let timers = list.lines().filter_map(|line| number(line, "ID: "));
    let signals = list.lines().filter_map(|line| number(line, "signal: "));
    let is_armed = |number: i32| {
        let mut value = [0 as libc::c_long; 4];
        // SAFETY: the call writes four words.
        let result = unsafe {
            libc::syscall(
                libc::SYS_timer_gettime,
                number as libc::c_long,
                value.as_mut_ptr(),
            )
        };
        result == 0 && (value[2], value[3]) != (0, 0)
    };
    let mut armed: Vec<(i32, i32)> = timers
        .zip(signals)
        .filter(|(timer, _)| is_armed(*timer))
        .collect();
    armed.sort_unstable();
    armed.into_iter().map(|(_, signal)| signal).collect()
}

/// Timers of `timer_create` once stayed: only the interval timers were disarmed.
fn timers_that_a_job_has_created_and_left_do_not_end_a_later_job() {
    let deadly = vec![
        libc::SIGALRM,
        libc::SIGUSR1,
        libc::SIGRTMIN(),
        libc::SIGKILL,
    ];
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let armed = workers.run_sync(signals_of_armed_timers, ()).await;
        assert_eq!(armed.unwrap(), []);
        for _ in 0..3 {
            let worker = call_and_rest(&workers, create_timers, deadly.clone()).await;
            let armed = workers.run_sync(signals_of_armed_timers, ()).await;
            assert_eq!(armed.unwrap(), []);
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        }
    }));
}

/// An `init` closure, a CPU limit and a profiler have timers, too.
fn timers_that_were_created_before_the_jobs_or_whose_signals_are_handled_stay() {
    fn handle_and_create(signals: Vec<i32>) {
        let handler = do_nothing as *const () as libc::sighandler_t;
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGPROF, handler) };
        create_timers(signals);
    }
    let config = WorkerConfig::new()
        .cpu_limit(Duration::from_secs(3600))
        .init(|| _ = create_timers(vec![libc::SIGUSR2]));
    test(with_workers(config, |workers| async move {
        let left = vec![libc::SIGPROF, libc::SIGUSR1, libc::SIGWINCH];
        call_and_rest(&workers, handle_and_create, left).await;
        let armed = workers.run_sync(signals_of_armed_timers, ()).await.unwrap();
        let limit = [libc::SIGXCPU, libc::SIGKILL];
        let others = [libc::SIGUSR2, libc::SIGPROF, libc::SIGWINCH];
        assert_eq!(armed, [&limit[..], &others].concat());
    }));
}

/// Each signal once made the idle timeout begin anew, so that the worker stayed forever.
fn an_idle_timeout_comes_while_signals_interrupt_the_wait() {
    fn tick(_: ()) {
        let often = libc::timeval {
            tv_sec: 0,
            tv_usec: 2_000,
        };
        let value = libc::itimerval {
            it_interval: often,
            it_value: often,
        };
        let handler = do_nothing as *const () as libc::sighandler_t;
        // SAFETY: the handler does nothing, and the calls change no memory of this process.
        unsafe {
            libc::signal(libc::SIGALRM, handler);
            assert_eq!(
                libc::setitimer(0, &raw const value, std::ptr::null_mut()),
                0
            );
        }
    }
    let config = WorkerConfig::new().idle_timeout(Duration::from_millis(50));
    test(with_workers(config, |workers| async move {
        workers.run_sync(tick, ()).await.unwrap();
        stage::within(until_empty(&workers)).await;
        let statistics = workers.statistics();
        assert_eq!(statistics.timed_out, 1);
    }));
}

// Threads.

fn leave_a_thread(leave: bool) -> u32 {
    let wait = || {
        loop {
            std::thread::park();
        }
    };
    if leave {
        std::thread::spawn(wait);
    }
    // A thread that has been joined is not left.
    std::thread::spawn(|| ()).join().unwrap();
    std::process::id()
}

/// Such threads once used up the CPU time of later jobs.
fn a_worker_with_a_cpu_limit_retires_after_a_job_that_has_left_threads() {
    let limited = WorkerConfig::new().cpu_limit(Duration::from_secs(3600));
    test(async {
        for config in [limited, WorkerConfig::new().retire_with_threads()] {
            with_workers(config, |workers| async move {
                let first = workers.run_sync(leave_a_thread, false).await.unwrap();
                for _ in 0..3 {
                    let same = workers.run_sync(leave_a_thread, false).await;
                    assert_eq!(same.unwrap(), first);
                }
                assert_eq!(workers.run_sync(leave_a_thread, true).await.unwrap(), first);
                assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
                workers.shutdown().await.unwrap();
                assert_eq!(workers.statistics().retired, 1);
            })
            .await;
        }
        with_workers(WorkerConfig::new(), |workers| async move {
            let first = workers.run_sync(leave_a_thread, true).await.unwrap();
            assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
        })
        .await;
    });
}

// Output.

fn print_in_c(text: String) {
    let text = std::ffi::CString::new(text).unwrap();
    // SAFETY: both arguments are C strings, and the format asks for one.
    unsafe { libc::printf(c"%s".as_ptr(), text.as_ptr()) };
}

/// The output of C code once appeared when the worker exited, and not at all if it was killed.
fn output_of_c_code_appears_with_the_result_of_its_job() {
    fn spin(stage: PathBuf) {
        print!("lost");
        stage::forever(stage);
    }
    let name = "output_of_c_code_appears_with_the_result_of_its_job";
    if stage::part().is_none() {
        let said = stage::succeeds(helper(MODULE, name, "program"));
        assert!(said.contains("<one|two|three>"), "{said}");
        return;
    }
    stage::staged(WorkerConfig::new(), |workers| async move {
        workers.run_sync(print_in_c, "<one".into()).await.unwrap();
        workers.run_sync(|()| print!("|two"), ()).await.unwrap();
        workers
            .run_sync(print_in_c, "|three>".into())
            .await
            .unwrap();
        let stage = Stage::new();
        let call = workers.run_sync(spin, stage.path()).kill_on_cancel(true);
        stage.cancel_on_arrival(call).await;
    });
}

/// A library's log, for example. A worker with other threads, as a spawned one, writes out only the
/// standard output.
fn a_stream_that_c_code_keeps_open_is_written_with_each_result() {
    fn log(path: PathBuf) {
        let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: all arguments are C strings, and the stream is valid if it is not null. It stays
        // open.
        unsafe {
            let stream = libc::fopen(path.as_ptr(), c"a".as_ptr());
            assert!(!stream.is_null());
            assert!(libc::fputs(c"a line".as_ptr(), stream) >= 0);
        }
    }
    if common::worker_type() != WorkerType::ForkServer {
        println!("skipped: a spawned worker has two threads");
        return;
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        for name in ["first", "second"] {
            let path = folder.path().join(name);
            workers.run_sync(log, path.clone()).await.unwrap();
            assert_eq!(std::fs::read_to_string(path).unwrap(), "a line");
        }
    }));
}

unsafe extern "C" {
    static mut stdout: *mut libc::FILE;
    fn flockfile(stream: *mut libc::FILE);
}

fn an_answer_does_not_wait_for_a_thread_that_keeps_a_stream_of_c_locked() {
    fn leave_it_locked(_: ()) {
        let (locked, is_locked) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // SAFETY: the arguments are C strings, and the streams are valid and stay open.
            unsafe {
                flockfile(stdout);
                let other = libc::fopen(c"/dev/null".as_ptr(), c"w".as_ptr());
                flockfile(other);
                libc::fputs(c"never".as_ptr(), other);
            }
            locked.send(()).unwrap();
            loop {
                std::thread::park();
            }
        });
        is_locked.recv().unwrap();
    }
    fn write_another(_: ()) {
        // SAFETY: all arguments are C strings, and the stream is valid if it is not null.
        unsafe {
            let stream = libc::fopen(c"/dev/null".as_ptr(), c"w".as_ptr());
            assert!(!stream.is_null());
            assert!(libc::fputs(c"a line".as_ptr(), stream) >= 0);
        }
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let call = workers.run_sync(leave_it_locked, ());
        stage::within(call.into_future()).await.unwrap();
        // Other streams can be opened and written.
        let call = workers.run_sync(write_another, ());
        stage::within(call.into_future()).await.unwrap();
        kill_the_worker(&workers).await; // at its exit, the C library would wait for the lock
    }));
}

async fn kill_the_worker(workers: &WorkerContext) {
    let stage = Stage::new();
    let call = workers.run_sync(stage::forever, stage.path());
    stage.cancel_on_arrival(call.kill_on_cancel(true)).await;
}

// The tie to the parent.

fn parent_death_signal(_: ()) -> i32 {
    let mut signal: libc::c_int = -1;
    // SAFETY: the call writes to the variable.
    let asked = unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    assert_eq!(asked, 0);
    signal
}

fn change_the_user(_: ()) {
    if geteuid().is_root() {
        // SAFETY: changes the rights of this process and no memory.
        unsafe { assert_eq!(libc::setresuid(65534, 65534, 65534), 0) };
    } else {
        // The kernel does this when the user is changed. SAFETY: changes no memory.
        unsafe { assert_eq!(libc::prctl(libc::PR_SET_PDEATHSIG, 0), 0) };
    }
    assert_eq!(parent_death_signal(()), 0);
}

/// A worker that had changed its user once outlived its parent.
fn a_worker_ends_with_its_parent_also_after_a_change_of_its_user() {
    fn change() {
        change_the_user(());
    }
    test(async {
        let plain = WorkerConfig::new();
        for config in [plain.clone().init(change), plain.clone().preload(change)] {
            with_workers(config.clone(), |workers| async move {
                let tie = workers.run_sync(parent_death_signal, ()).await.unwrap();
                assert_eq!(tie, libc::SIGKILL);
            })
            .await;
            let config = config.worker_type(WorkerType::Spawn);
            seedbed::open_worker_context(config, |workers| async move {
                let tie = workers.run_sync(parent_death_signal, ()).await.unwrap();
                assert_eq!(tie, libc::SIGKILL);
            })
            .await;
        }
        for config in [plain.clone(), plain.kill_tree(true)] {
            with_workers(config, |workers| async move {
                let before = workers.run_sync(parent_death_signal, ()).await.unwrap();
                assert_ne!(before, 0);
                call_and_rest(&workers, change_the_user, ()).await;
                let after = workers.run_sync(parent_death_signal, ()).await.unwrap();
                assert_eq!(after, before);
            })
            .await;
        }
    });
}

suite! {
    timers_that_a_job_has_left_do_not_end_a_later_job,
    a_timer_whose_signal_is_handled_stays,
    timers_that_a_job_has_created_and_left_do_not_end_a_later_job,
    timers_that_were_created_before_the_jobs_or_whose_signals_are_handled_stay,
    an_idle_timeout_comes_while_signals_interrupt_the_wait,
    a_worker_with_a_cpu_limit_retires_after_a_job_that_has_left_threads,
    output_of_c_code_appears_with_the_result_of_its_job,
    a_stream_that_c_code_keeps_open_is_written_with_each_result,
    an_answer_does_not_wait_for_a_thread_that_keeps_a_stream_of_c_locked,
    a_worker_ends_with_its_parent_also_after_a_change_of_its_user,
}
