//! Jobs that misbehave: they leave processes and threads behind, block signals, set limits, become
//! other programs, panic through C code, and print without end.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common;
use crate::common::stage::{self, Bystander, Stage, announce, forever, halt, helper, staged};
use crate::common::{endless, pid};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use seedbed::worker::{WorkerErrorKind, WorkerStatus};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext};

fn echo(n: u32) -> (u32, u32) {
    (n, std::process::id())
}

/// Forks a process that has all descriptors of the worker and runs in a session of its own until it
/// is killed. Returns its process id.
fn leave_a_daemon(_: ()) -> u32 {
    // SAFETY: the child of a fork in a process with other threads may call only what is safe in a
    // signal handler, as `setsid`, `close` and `pause` are. It closes its own copies of the
    // descriptors, for whose end the harness waits.
    unsafe {
        match libc::fork() {
            0 => {
                libc::setsid();
                libc::close(1);
                libc::close(2);
                loop {
                    libc::pause();
                }
            }
            child => child.cast_unsigned(),
        }
    }
}

/// The daemon has the socket of the worker, so the socket stays open when the worker ends.
fn a_daemon_with_the_workers_descriptors_disturbs_no_call() {
    let config = WorkerConfig::new().capture_stderr(true);
    staged(config, |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let daemon = workers.run_sync(leave_a_daemon, ()).await.unwrap();
        assert_eq!(workers.run_sync(echo, 7).await.unwrap(), (7, worker));
        workers.shutdown().await.unwrap();
        assert!(!common::is_alive(worker));
        assert!(common::is_alive(daemon), "it is the job's, not ours");
        stage::kill(daemon);
        common::wait_until_gone(daemon);
    });
}

fn the_end_of_a_worker_is_noticed_while_a_daemon_has_its_descriptors() {
    staged(WorkerConfig::new(), |workers| async move {
        let daemon = workers.run_sync(leave_a_daemon, ()).await.unwrap();
        let stage = Stage::new();
        let call = workers.run_sync(forever, stage.path());
        stage.cancel_on_arrival(call.kill_on_cancel(true)).await;
        assert!(common::workers().is_empty());
        stage::kill(daemon);
        common::wait_until_gone(daemon);
        workers.run_sync(pid, ()).await.unwrap();
    });
}

/// `daemon(3)` makes the worker exit, and returns in a forked copy.
fn a_job_that_makes_a_daemon_of_its_worker_is_broken_and_the_daemon_sends_no_answer() {
    fn become_a_daemon(_: ()) -> u32 {
        // SAFETY: changes no memory. This worker has no other threads that hold locks.
        unsafe { libc::daemon(1, 1) };
        std::process::id()
    }
    staged(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        let error = workers.run_sync(become_a_daemon, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
        assert_eq!(error.exit().unwrap().pid(), first);
        assert_eq!(error.exit().unwrap().code(), Some(0));
        assert_eq!(workers.run_sync(echo, 7).await.unwrap().0, 7);
    });
}

fn block_all_signals(_: ()) {
    let mut all = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigfillset` initializes the set, which becomes the mask. No other memory is changed.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
    for signal in [Signal::TERM, Signal::HUP, Signal::CHILD, Signal::PIPE] {
        // SAFETY: to ignore a signal installs no code.
        unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
    }
}

fn a_worker_whose_job_blocks_all_signals_can_be_used_killed_and_shut_down() {
    fn block_and_never_end(stage: PathBuf) {
        block_all_signals(());
        forever(stage);
    }
    staged(WorkerConfig::new(), |workers| async move {
        workers.run_sync(block_all_signals, ()).await.unwrap();
        let first = workers.run_sync(pid, ()).await.unwrap();
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
        let stage = Stage::new();
        let call = workers.run_sync(block_and_never_end, stage.path());
        let call = call.kill_on_cancel(true);
        assert_eq!(stage.cancel_on_arrival(call).await, first);
        assert!(common::workers().is_empty());
        workers.run_sync(block_all_signals, ()).await.unwrap();
        workers.shutdown().await.unwrap();
    });
}

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
enum Limit {
    Files,
    FileSize,
    Processes,
    Core,
    Queues,
}

fn limit(limit: Limit) {
    let resource = match limit {
        Limit::Files => Resource::Nofile,
        Limit::FileSize => Resource::Fsize,
        Limit::Processes => Resource::Nproc,
        Limit::Core => Resource::Core,
        Limit::Queues => Resource::Sigpending,
    };
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(resource, nothing).unwrap();
}

fn a_worker_whose_job_sets_tight_limits_can_be_used() {
    fn weigh(bytes: String) -> (String, u32) {
        (bytes + "!", std::process::id())
    }
    staged(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        let all = [
            Limit::Files,
            Limit::FileSize,
            Limit::Processes,
            Limit::Core,
            Limit::Queues,
        ];
        for which in all {
            workers.run_sync(limit, which).await.unwrap();
            let (answer, worker) = workers.run_sync(weigh, "x".to_owned()).await.unwrap();
            assert_eq!((&*answer, worker), ("x!", first), "{which:?}");
        }
        // A large value is sent as shared memory, for which this worker has no descriptor.
        let large = workers.run_sync(weigh, "x".repeat(4 << 20)).await;
        let error = large.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::DecodeArgument);
        assert!(error.to_string().contains("too many files open"), "{error}");
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
        workers.shutdown().await.unwrap();
    });
}

fn a_job_that_exceeds_a_limit_which_it_has_set_is_broken_by_the_kernel() {
    fn burn(_: ()) {
        let a_second = Rlimit {
            current: Some(0),
            maximum: Some(1),
        };
        setrlimit(Resource::Cpu, a_second).unwrap();
        loop {
            std::hint::spin_loop();
        }
    }
    fn write_too_much(_: ()) {
        let little = Rlimit {
            current: Some(10),
            maximum: Some(10),
        };
        setrlimit(Resource::Fsize, little).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 100]).unwrap();
    }
    fn take_all_memory(_: ()) -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        let most = Some(pages * rustix::param::page_size() as u64 + (16 << 20));
        let limit = Rlimit {
            current: most,
            maximum: most,
        };
        setrlimit(Resource::As, limit).unwrap();
        std::hint::black_box(vec![1u8; 1 << 30]).len()
    }
    let config = WorkerConfig::new().capture_stderr(true);
    staged(config, |workers| async move {
        let bystander = Bystander::of(&workers).await;
        let many = CapacityLimiter::unlimited();
        let outcomes = [
            (
                workers.run_sync(burn, ()).limiter(&many).await.map(drop),
                "SIGXCPU",
            ),
            (
                workers
                    .run_sync(write_too_much, ())
                    .limiter(&many)
                    .await
                    .map(drop),
                "SIGXFSZ",
            ),
            (
                workers
                    .run_sync(take_all_memory, ())
                    .limiter(&many)
                    .await
                    .map(drop),
                "SIGABRT",
            ),
        ];
        for (outcome, name) in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
            assert_eq!(error.exit().unwrap().signal_name(), Some(name));
        }
        bystander.ends_unharmed().await;
        workers.run_sync(pid, ()).await.unwrap();
    });
}

fn a_job_that_becomes_another_program_is_broken() {
    fn become_another(arguments: Vec<String>) {
        let error = match arguments.split_first() {
            Some((program, arguments)) => Command::new(program).args(arguments).exec(),
            None => Command::new("/proc/self/exe")
                .arg("--list")
                .stdout(Stdio::null())
                .exec(),
        };
        panic!("{error}");
    }
    let config = WorkerConfig::new().capture_stderr(true);
    staged(config, |workers| async move {
        let programs: [(&[&str], Option<i32>); 4] = [
            (&["true"], Some(0)),
            (&["sh", "-c", "exit 9"], Some(9)),
            // Executing it closes the connection, and the process is killed because it runs on.
            (&["sleep", "1000"], None),
            // This program, which is no worker then.
            (&[], Some(0)),
        ];
        for (program, code) in programs {
            let first = workers.run_sync(pid, ()).await.unwrap();
            let arguments: Vec<String> = program.iter().copied().map(str::to_owned).collect();
            let error = workers.run_sync(become_another, arguments).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
            assert_eq!(error.exit().unwrap().pid(), first);
            assert_eq!(error.exit().unwrap().code(), code, "{program:?}");
        }
        workers.run_sync(pid, ()).await.unwrap();
    });
}

fn a_panic_in_a_function_that_c_calls_aborts_the_worker_and_is_broken() {
    extern "C" fn compare(_: *const libc::c_void, _: *const libc::c_void) -> libc::c_int {
        panic!("out of order")
    }
    fn sort(_: ()) {
        let mut numbers = [2, 1, 3];
        // SAFETY: the array has three elements of that size. That the comparison panics is the
        // test.
        unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 3, 4, Some(compare)) };
    }
    let config = WorkerConfig::new().capture_stderr(true);
    staged(config, |workers| async move {
        let error = workers.run_sync(sort, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Broken);
        let exit = error.exit().unwrap();
        assert_eq!(exit.signal_name(), Some("SIGABRT"));
        workers.run_sync(pid, ()).await.unwrap();
    });
}

fn a_panic_that_unwinds_through_c_is_a_panic_and_the_worker_stays() {
    if cfg!(target_env = "musl") {
        return; // it is compiled without unwind tables
    }
    extern "C-unwind" fn compare(_: *const libc::c_void, _: *const libc::c_void) -> libc::c_int {
        panic!("out of order")
    }
    unsafe extern "C-unwind" {
        fn qsort(
            base: *mut libc::c_void,
            count: usize,
            size: usize,
            compare: extern "C-unwind" fn(*const libc::c_void, *const libc::c_void) -> libc::c_int,
        );
    }
    fn sort(_: ()) {
        let mut numbers = [2, 1, 3];
        // SAFETY: the array has three elements of that size. The C library is compiled with unwind
        // tables.
        unsafe { qsort(numbers.as_mut_ptr().cast(), 3, 4, compare) };
    }
    staged(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        let error = workers.run_sync(sort, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Panicked);
        assert_eq!(error.panic().unwrap().message(), "out of order");
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    });
}

fn threads_that_a_job_leaves_running_disturb_neither_the_next_job_nor_the_exit() {
    fn leave_threads(stage: PathBuf) -> u32 {
        for _ in 0..4 {
            let stage = stage.clone();
            std::thread::spawn(move || forever(stage));
        }
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        std::thread::spawn(|| panic!("a stray thread's panic is its own"));
        std::process::id()
    }
    let config = WorkerConfig::new().capture_stderr(true);
    staged(config, |workers| async move {
        let stage = Stage::new();
        let first = workers.run_sync(leave_threads, stage.path()).await.unwrap();
        for _ in 0..4 {
            assert_eq!(stage.reached().await, first);
        }
        for n in 0..100 {
            assert_eq!(workers.run_sync(echo, n).await.unwrap(), (n, first));
        }
        workers.shutdown().await.unwrap();
    });
}

/// Makes calls that this worker answers, and shuts its context down.
async fn can_be_used_and_shut_down(workers: &WorkerContext, worker: u32) {
    for n in 0..20 {
        assert_eq!(workers.run_sync(echo, n).await.unwrap(), (n, worker));
    }
    workers.shutdown().await.unwrap();
}

/// Starts a thread that holds the lock of the standard output forever.
fn hold_the_standard_output_lock(forever: impl FnOnce() + Send + 'static) -> u32 {
    let (locked, is_locked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _stdout = std::io::stdout().lock();
        locked.send(()).unwrap();
        forever();
    });
    is_locked.recv().unwrap();
    std::process::id()
}

/// A worker flushes the standard output before it answers. It once waited forever for a thread that
/// held the lock.
fn a_thread_that_holds_the_standard_output_lock_does_not_delay_the_answer() {
    fn leave_a_thread(stage: PathBuf) -> u32 {
        hold_the_standard_output_lock(move || forever(stage))
    }
    staged(WorkerConfig::new(), |workers| async move {
        let stage = Stage::new();
        let first = workers
            .run_sync(leave_a_thread, stage.path())
            .await
            .unwrap();
        assert_eq!(stage.reached().await, first);
        can_be_used_and_shut_down(&workers, first).await;
    });
}

/// A process flushes its standard output when it exits, too.
fn a_worker_retires_while_a_thread_holds_the_standard_output_lock() {
    fn leave_a_thread(_: ()) -> u32 {
        print!("half a line ");
        hold_the_standard_output_lock(|| endless(()))
    }
    staged(WorkerConfig::new().single_use(), |workers| async move {
        let first = workers.run_sync(leave_a_thread, ()).await.unwrap();
        stage::until_ended(first);
        assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
    });
}

/// Between two calls, the captured standard error is not read.
fn a_thread_that_fills_the_captured_standard_error_delays_neither_job_nor_exit() {
    fn leave_a_thread(stage: PathBuf) -> u32 {
        std::thread::spawn(move || {
            announce(&stage);
            loop {
                eprintln!("and another thing");
            }
        });
        std::process::id()
    }
    let config = WorkerConfig::new().capture_stderr(true);
    staged(config, |workers| async move {
        let stage = Stage::new();
        let first = workers
            .run_sync(leave_a_thread, stage.path())
            .await
            .unwrap();
        assert_eq!(stage.reached().await, first);
        can_be_used_and_shut_down(&workers, first).await;
    });
}

fn a_retire_closure_that_fills_the_captured_standard_error_delays_neither_job_nor_exit() {
    fn complain(_: &WorkerStatus) -> bool {
        std::io::stderr().write_all(&[b'x'; 300 << 10]).unwrap();
        false
    }
    let config = WorkerConfig::new().capture_stderr(true).retire(complain);
    staged(config, |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        can_be_used_and_shut_down(&workers, first).await;
    });
}

const FLOOD: usize = 100 << 20;

fn a_hundred_megabytes_on_the_captured_standard_error_are_read_and_discarded() {
    fn flood(_: ()) {
        let piece = [b'x'; 64 << 10];
        for _ in 0..FLOOD / piece.len() {
            std::io::stderr().write_all(&piece).unwrap();
        }
        eprintln!("that was all");
        std::process::exit(3)
    }
    let config = WorkerConfig::new().capture_stderr(true);
    staged(config, |workers| async move {
        let error = workers.run_sync(flood, ()).await.unwrap_err();
        let exit = error.exit().unwrap();
        assert_eq!(exit.code(), Some(3));
        let tail = exit.stderr_tail().unwrap();
        assert_eq!(tail.len(), 4096);
        assert!(tail.ends_with("xthat was all\n"));
    });
}

const MODULE: &str = "misdeeds";

/// All bytes of the output arrive, and none is taken for a frame.
fn a_hundred_megabytes_on_the_standard_output_all_arrive() {
    fn flood(_: ()) -> u32 {
        let piece = [b'x'; 64 << 10];
        let mut stdout = std::io::stdout();
        for _ in 0..FLOOD / piece.len() {
            stdout.write_all(&piece).unwrap();
        }
        print!("the end");
        std::process::id()
    }
    if stage::part().is_none() {
        let name = "a_hundred_megabytes_on_the_standard_output_all_arrive";
        let said = stage::succeeds(helper(MODULE, name, "caller"));
        assert_eq!(said.len() / FLOOD, 1, "all of it, and little else");
        assert!(said.contains("the end"));
        return;
    }
    staged(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(flood, ()).await.unwrap();
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    });
}

/// Written as a number, and read as a string with this length. Such a result once ended the calling
/// program.
#[derive(Debug)]
struct Misread;

impl serde::Serialize for Misread {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (u64::MAX >> 3).serialize(to)
    }
}

impl<'de> serde::Deserialize<'de> for Misread {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|_| Misread)
    }
}

fn a_value_read_as_another_type_than_written_is_an_error_on_either_side() {
    staged(WorkerConfig::new(), |workers| async move {
        let first = workers.run_sync(pid, ()).await.unwrap();
        let error = workers.run_sync(|()| Misread, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::DecodeResult);
        let error = workers
            .run_sync(|_: Misread| (), Misread)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::DecodeArgument);
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    });
}

fn workers_of_workers_of_workers_answer() {
    fn descend(depth: u32) -> Vec<u32> {
        let mut pids = match depth {
            0 => Vec::new(),
            // In a run of its own, as in a program.
            _ => seedbed::run(async move { seedbed::run_sync(descend, depth - 1).await.unwrap() }),
        };
        pids.push(std::process::id());
        pids
    }
    staged(WorkerConfig::new(), |workers| async move {
        for _ in 0..3 {
            let mut pids = workers.run_sync(descend, 3).await.unwrap();
            assert_eq!(pids.len(), 4);
            let worker = pids.pop().unwrap();
            assert!(common::workers().contains(&worker));
            assert!(pids.into_iter().all(|pid| !common::is_alive(pid)));
        }
    });
}

fn the_workers_of_a_killed_worker_end_with_it() {
    fn nest(stage: PathBuf) {
        smol::block_on(async { seedbed::run_sync(forever, stage).await.unwrap() });
    }
    staged(WorkerConfig::new(), |workers| async move {
        let (stage, scope) = (Stage::new(), CancelScope::new());
        let call = workers.run_sync(nest, stage.path()).kill_on_cancel(true);
        let cancel = async {
            let inner = stage.reached().await;
            scope.cancel();
            inner
        };
        let (outcome, inner) = smol::future::zip(scope.run(call), cancel).await;
        assert!(outcome.is_none());
        assert!(!common::children().contains(&inner));
        common::wait_until_gone(inner);
    });
}

fn a_job_that_panics_while_its_own_worker_runs_leaves_no_process() {
    fn nest(stage: PathBuf) {
        smol::block_on(async {
            let call = seedbed::run_sync(halt_forever, stage.clone()).kill_on_cancel(true);
            let mut call = Box::pin(call.into_future());
            let reached = async {
                while !stage.join("inner").exists() {
                    smol::future::yield_now().await;
                }
            };
            smol::future::or(async { drop((&mut call).await) }, reached).await;
            panic!("in the middle")
        })
    }
    fn halt_forever(stage: PathBuf) {
        std::fs::write(stage.join("new"), std::process::id().to_string()).unwrap();
        std::fs::rename(stage.join("new"), stage.join("inner")).unwrap();
        halt(&stage);
    }
    staged(WorkerConfig::new(), |workers| async move {
        let stage = Stage::new();
        let first = workers.run_sync(pid, ()).await.unwrap();
        let error = workers.run_sync(nest, stage.path()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Panicked);
        let inner = std::fs::read_to_string(stage.path().join("inner")).unwrap();
        common::wait_until_gone(inner.parse().unwrap());
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    });
}

suite! {
    a_daemon_with_the_workers_descriptors_disturbs_no_call,
    the_end_of_a_worker_is_noticed_while_a_daemon_has_its_descriptors,
    a_job_that_makes_a_daemon_of_its_worker_is_broken_and_the_daemon_sends_no_answer,
    a_worker_whose_job_blocks_all_signals_can_be_used_killed_and_shut_down,
    a_worker_whose_job_sets_tight_limits_can_be_used,
    a_job_that_exceeds_a_limit_which_it_has_set_is_broken_by_the_kernel,
    a_job_that_becomes_another_program_is_broken,
    a_panic_in_a_function_that_c_calls_aborts_the_worker_and_is_broken,
    a_panic_that_unwinds_through_c_is_a_panic_and_the_worker_stays,
    threads_that_a_job_leaves_running_disturb_neither_the_next_job_nor_the_exit,
    a_thread_that_holds_the_standard_output_lock_does_not_delay_the_answer,
    a_worker_retires_while_a_thread_holds_the_standard_output_lock,
    a_thread_that_fills_the_captured_standard_error_delays_neither_job_nor_exit,
    a_retire_closure_that_fills_the_captured_standard_error_delays_neither_job_nor_exit,
    a_hundred_megabytes_on_the_captured_standard_error_are_read_and_discarded,
    a_hundred_megabytes_on_the_standard_output_all_arrive,
    a_value_read_as_another_type_than_written_is_an_error_on_either_side,
    workers_of_workers_of_workers_answer,
    the_workers_of_a_killed_worker_end_with_it,
    a_job_that_panics_while_its_own_worker_runs_leaves_no_process,
}
