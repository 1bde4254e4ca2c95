//! Programs that start threads before the hook, reach it on other threads, or are not what
//! `/proc/self/exe` is.
//!
//! A worker executes `main` again. Other threads cannot be stopped there. So the program once ran
//! on in its workers, which started workers: 65 processes after two seconds.

use std::cell::RefCell;
use std::future::IntoFuture;
use std::process::Command;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;

use seedbed::worker::WorkerErrorKind;
use seedbed::{WorkerContext, WorkerError, open_worker_context, run, run_sync};

use crate::common::{children, pid};
use crate::{ALL_TYPES, PART, Play, TYPE, config, is_worker, played, player};

pub const PLAYS: &[Play] = &[
    (
        "a_program_whose_threads_reach_the_hook_before_main_starts_no_process",
        || refused("a_program_whose_threads_reach_the_hook_before_main_starts_no_process"),
        reach_the_hook_on_threads,
    ),
    (
        "a_program_that_starts_a_thread_before_the_hook_starts_no_process",
        || refused("a_program_that_starts_a_thread_before_the_hook_starts_no_process"),
        start_a_thread_before_the_hook,
    ),
    (
        "a_program_that_asks_for_spawned_workers_may_have_threads_before_the_hook",
        || {
            drop(played(player(
                "a_program_that_asks_for_spawned_workers_may_have_threads_before_the_hook",
                "spawn",
            )))
        },
        have_a_waiting_thread_before_the_hook,
    ),
    (
        "a_thread_that_the_program_starts_in_a_worker_does_not_start_workers_there",
        a_program_goes_on_in_its_workers,
        go_on_in_workers,
    ),
    (
        "threads_of_a_program_that_called_the_hook_first_have_workers",
        || for_all_types("threads_of_a_program_that_called_the_hook_first_have_workers"),
        call_on_threads_after_the_hook,
    ),
    (
        "threads_of_a_job_may_call_the_hook_and_have_workers",
        || for_all_types("threads_of_a_job_may_call_the_hook_and_have_workers"),
        call_on_threads_of_a_job,
    ),
    (
        "a_call_in_the_destructor_of_a_thread_local_is_made",
        || for_all_types("a_call_in_the_destructor_of_a_thread_local_is_made"),
        call_in_a_destructor,
    ),
    (
        "a_program_started_by_the_dynamic_loader_starts_no_process",
        the_loader_starts_the_program,
        call_as_an_argument_of_the_loader,
    ),
];

fn for_all_types(part: &str) {
    for &worker_type in ALL_TYPES {
        played(player(part, worker_type));
    }
}

/// Plays a part in which no worker may be started, and `main` must be executed once.
fn refused(part: &str) {
    for &worker_type in ALL_TYPES {
        let said = played(player(part, worker_type));
        assert_eq!(said, "in main\n", "with {worker_type}");
    }
}

fn assert_refused(error: &WorkerError) {
    let kinds = [WorkerErrorKind::Start, WorkerErrorKind::UnsafeFork];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("first thing in `main`") || text.contains("before anything in `main`"),
        "{text}"
    );
    assert_eq!(children(), []);
}

/// Runs a call on a thread of its own.
fn on_a_thread<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::spawn(call)
}

fn pid_of_a_worker() -> Result<u32, WorkerError> {
    run(open_worker_context(config(), |workers| async move {
        workers.run_sync(pid, ()).await
    }))
}

fn reach_the_hook_on_threads() {
    println!("in main");
    assert!(!is_worker());
    let (told, tell) = mpsc::channel();
    let first = on_a_thread(move || {
        let error = pid_of_a_worker().unwrap_err();
        told.send(()).unwrap();
        error
    });
    tell.recv().unwrap();
    let second = on_a_thread(pid_of_a_worker);
    assert_refused(&first.join().unwrap());
    assert_refused(&second.join().unwrap().unwrap_err());
}

fn start_a_thread_before_the_hook() {
    println!("in main");
    let (end, ended) = mpsc::channel::<()>();
    let thread = on_a_thread(move || ended.recv().unwrap_err());
    if std::env::var(TYPE).unwrap() == "spawn" {
        // This type is for threads that may run in workers. The default type is not.
        let error = run(run_sync(pid, ())).unwrap_err();
        assert_refused(&error);
    } else {
        assert_refused(&pid_of_a_worker().unwrap_err());
    }
    drop(end);
    thread.join().unwrap();
}

fn have_a_waiting_thread_before_the_hook() {
    let (end, ended) = mpsc::channel::<()>();
    let thread = on_a_thread(move || ended.recv().unwrap_err());
    assert_ne!(pid_of_a_worker().unwrap(), std::process::id());
    drop(end);
    thread.join().unwrap();
}

/// The thread is started after the worker has taken over, so it is not on the worker's list of the
/// program's threads.
fn a_program_goes_on_in_its_workers() {
    let part = "a_thread_that_the_program_starts_in_a_worker_does_not_start_workers_there";
    played(player(part, "spawn"));
}

fn go_on_in_workers() {
    fn is_served(_: ()) {
        SERVED.send_to_the_program();
        loop {
            thread::park();
        }
    }
    let (begin, begun) = mpsc::channel();
    *SERVED.0.lock().unwrap() = Some(begin);
    let program = on_a_thread(move || {
        // In a worker, a job has begun by now.
        begun.recv().unwrap();
        on_a_thread(|| smol::block_on(async { run_sync(pid, ()).await.is_ok() }))
            .join()
            .unwrap()
    });
    run(open_worker_context(config(), |workers| async move {
        let error = workers.run_sync(is_served, ()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("first thing in `main`"), "{text}");
        assert_eq!(children(), []);
    }));
    SERVED.send_to_the_program();
    assert!(!program.join().unwrap(), "the default type is refused");
}

/// Tells the thread of the program, in this process, to go on.
struct Served(std::sync::Mutex<Option<mpsc::Sender<()>>>);

static SERVED: Served = Served(std::sync::Mutex::new(None));

impl Served {
    fn send_to_the_program(&self) {
        self.0.lock().unwrap().take().unwrap().send(()).unwrap();
    }
}

fn call_on_threads_after_the_hook() {
    seedbed::init();
    let calls: Vec<_> = (0..3).map(|_| on_a_thread(pid_of_a_worker)).collect();
    for call in calls {
        assert_ne!(call.join().unwrap().unwrap(), std::process::id());
    }
    let named = thread::Builder::new().name("parser".into());
    named
        .spawn(pid_of_a_worker)
        .unwrap()
        .join()
        .unwrap()
        .unwrap();
}

fn call_on_threads_of_a_job() {
    fn nested(_: ()) -> u32 {
        on_a_thread(|| run(run_sync(pid, ())).unwrap())
            .join()
            .unwrap()
    }
    let body = |workers: WorkerContext| async move {
        let nested = workers.run_sync(nested, ()).await.unwrap();
        assert_ne!(nested, std::process::id());
    };
    run(open_worker_context(config(), body));
}

struct CallsInDrop;

impl Drop for CallsInDrop {
    fn drop(&mut self) {
        // Executors have thread-locals too, which are gone by now.
        let mut call = Box::pin(run_sync(i32::abs, -3).into_future());
        let mut cx = Context::from_waker(Waker::noop());
        let result = loop {
            match call.as_mut().poll(&mut cx) {
                Poll::Ready(result) => break result,
                Poll::Pending => thread::yield_now(),
            }
        };
        assert_eq!(result.unwrap(), 3);
    }
}

/// It once aborted the program, because the thread-local of the hook was gone.
fn call_in_a_destructor() {
    thread_local! {
        static LATE: RefCell<Option<CallsInDrop>> = const { RefCell::new(None) };
    }
    seedbed::init();
    let thread = on_a_thread(|| {
        LATE.set(Some(CallsInDrop)); // registered first, so dropped last
        pid_of_a_worker().unwrap();
    });
    thread.join().unwrap();
}

/// The worker was once the loader itself, which executed the program's first argument.
fn the_loader_starts_the_program() {
    let me = std::env::current_exe().unwrap();
    let image = std::fs::read(&me).unwrap();
    let Some(loader) = loader_of(&image) else {
        return; // linked statically
    };
    let folder = tempfile::tempdir().unwrap();
    for &worker_type in ALL_TYPES {
        let mut command = Command::new(&loader);
        command.arg(&me).args(["/usr/bin/touch", "x"]);
        command.current_dir(folder.path());
        command.env(
            PART,
            "a_program_started_by_the_dynamic_loader_starts_no_process",
        );
        command.env(TYPE, worker_type);
        played(command);
        assert!(!folder.path().join("x").exists());
    }
}

/// Returns the path of the dynamic loader that the executable names.
fn loader_of(image: &[u8]) -> Option<String> {
    let start = image
        .windows(3)
        .take(4096)
        .position(|bytes| bytes == b"/li")?;
    let path = image[start..].split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(path).into_owned())
}

fn call_as_an_argument_of_the_loader() {
    let error = pid_of_a_worker().unwrap_err();
    assert_eq!(error.kind(), WorkerErrorKind::Start);
    assert!(error.to_string().contains("the dynamic loader"), "{error}");
    assert_eq!(children(), []);
}
