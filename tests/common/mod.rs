//! What the worker tests share: they run one after the other, and each ends with a check that nothing is left.

#![allow(dead_code)] // each test program uses its own part of this

pub mod forked;
pub mod refusals;
pub mod stage;

use std::collections::BTreeSet;
use std::fs::ReadDir;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use seedbed::worker::{WorkerStatus, WorkerType};
use seedbed::{WorkerConfig, WorkerContext};

/// Makes a file's functions the tests of libtest, whose programs have several threads, so that their workers are spawned;
/// and names them for `fork_server.rs`, which is no such program, and of which the file is a module. A function that is not
/// listed is dead code.
#[allow(unused_macros)] // not every test program has such a file
macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        #[allow(dead_code)] // for one of the two programs
        pub const SUITE: &[(&str, fn())] = &[$((stringify!($test), $test)),*];

        mod of_libtest {
            $(#[test]
            fn $test() {
                super::$test();
            })*
        }
    };
}

/// How the tests' workers are made.
pub fn worker_type() -> WorkerType {
    match env!("CARGO_CRATE_NAME") {
        "fork_server" | "fork_soak" => WorkerType::ForkServer,
        _ => WorkerType::Auto,
    }
}

/// Children and descriptors belong to the process, so only one test may have any at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a test's future with the hook in place, and checks that it leaves no process, no zombie, no descriptor and no
/// token of the default limiter.
pub fn test<T>(body: impl Future<Output = T>) -> T {
    seedbed::init();
    let _alone = alone();
    end_default_workers();
    warm_up();
    let before = descriptors();
    let value = smol::block_on(body);
    settle(&before);
    value
}

/// A job that tells which worker runs it.
pub fn pid(_: ()) -> u32 {
    std::process::id()
}

/// A job that never ends.
pub fn endless(_: ()) {
    loop {
        std::thread::park();
    }
}

/// Runs `body` with a context of its own, whose end is part of the test.
pub async fn with_workers<F, Fut>(config: WorkerConfig, body: F) -> Fut::Output
where
    F: FnOnce(WorkerContext) -> Fut,
    Fut: Future,
{
    seedbed::open_worker_context(config.worker_type(worker_type()), body).await
}

/// Has workers stay after their first job, whatever they are told.
pub fn with_workers_that_stay(config: WorkerConfig) -> WorkerConfig {
    config.retire(|_: &WorkerStatus| {
        loop {
            std::thread::park();
        }
    })
}

/// Waits until a context has found out that all its idle workers have left.
pub async fn until_empty(workers: &WorkerContext) {
    while workers.statistics().idle_workers > 0 {
        smol::future::yield_now().await;
    }
}

/// Lets the default context's workers go.
pub fn end_default_workers() {
    let config = WorkerConfig::new().worker_type(worker_type());
    seedbed::worker::configure_default_context(config).unwrap();
}

/// Waits for the tests that run now; a test that failed does not fail the others.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the process make what it makes once: the reactor's descriptors, the executor's and the launcher's threads.
fn warm_up() {
    smol::block_on(async {
        let config = WorkerConfig::new().capture_stderr(true);
        let quiet = with_workers(config, |workers| async move {
            workers.run_sync(nothing, ()).await
        });
        quiet
            .await
            .expect("a worker that does nothing can be started");
        smol::spawn(async {}).await;
    });
}

fn nothing(_: ()) {}

/// Waits until nothing is left but those descriptors. What is dropped is killed and reaped in the background, so it may
/// take a moment; what is lost stays. The limit is there for a test that fails, and is far from what a busy machine needs.
pub fn settle(before: &BTreeSet<String>) {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let left = Left::behind(before);
        if left.is_nothing() {
            return;
        }
        assert!(Instant::now() < limit, "a test left behind {left:?}");
        std::thread::yield_now();
    }
}

#[derive(Debug)]
struct Left {
    children: Vec<u32>,
    descriptors: Vec<String>,
    tokens: usize,
}

impl Left {
    fn behind(before: &BTreeSet<String>) -> Self {
        Self {
            children: children(),
            descriptors: descriptors().difference(before).cloned().collect(),
            tokens: seedbed::worker::current_default_worker_limiter().borrowed(),
        }
    }

    fn is_nothing(&self) -> bool {
        self.children.is_empty() && self.descriptors.is_empty() && self.tokens == 0
    }
}

/// The children of this process, zombies included.
pub fn children() -> Vec<u32> {
    listed_by(std::fs::read_dir("/proc/self/task").expect("/proc is mounted"))
}

/// The children of a process that may have ended, or may end meanwhile.
pub fn children_of(pid: u32) -> Vec<u32> {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or_else(|_| Vec::new(), listed_by)
}

/// The children of a process, by its threads.
fn listed_by(threads: ReadDir) -> Vec<u32> {
    let lists = threads.filter_map(|thread| {
        // A thread may end between being listed and being looked at; then it has no children.
        std::fs::read_to_string(thread.ok()?.path().join("children")).ok()
    });
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// The workers among them: where there is a fork server, that is one of the children, too.
pub fn workers() -> Vec<u32> {
    let mut children = children();
    if worker_type() == WorkerType::ForkServer {
        children.retain(|&pid| is_worker(pid));
    }
    children
}

/// Whether a process calls itself a worker.
pub fn is_worker(pid: u32) -> bool {
    name_of(pid).ends_with("-worker")
}

/// What a process calls itself.
pub fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// The open descriptors of this process, by number and by what they lead to.
pub fn descriptors() -> BTreeSet<String> {
    let listed = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let paths: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    // The directory itself was among them, and is closed by now.
    paths
        .iter()
        .filter_map(|path| Some(format!("{} -> {}", path.display(), lead(path)?)))
        .collect()
}

/// How many of this process's descriptors its children inherit.
pub fn inheritable_descriptors() -> usize {
    let listed = std::fs::read_dir("/proc/self/fdinfo").expect("/proc is mounted");
    let infos = listed.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
    infos.filter(|info| !is_close_on_exec(info)).count()
}

fn is_close_on_exec(info: &str) -> bool {
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .unwrap()
        .trim();
    u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000 != 0
}

fn lead(path: &Path) -> Option<String> {
    Some(
        std::fs::read_link(path)
            .ok()?
            .to_string_lossy()
            .into_owned(),
    )
}

/// Waits until a process is gone, reaped and all, without being its parent.
pub fn wait_until_gone(pid: u32) {
    let limit = Instant::now() + Duration::from_secs(20);
    while is_alive(pid) {
        assert!(Instant::now() < limit, "process {pid} lives on");
        std::thread::yield_now();
    }
}

/// Tells whether a process exists and cannot be reaped yet. One of several threads cannot before the last of them has gone,
/// though its first thread, of which the file tells, is a zombie.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat.rsplit(')').next().unwrap().trim_start();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !state.starts_with(['Z', 'X']) || threads() > 1
}

/// Polls a future so many times at most, with time for others in between, and drops it. Tells whether it was ready.
pub async fn poll_so_often<F: Future>(future: F, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        let done = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if done {
            return true;
        }
        smol::future::yield_now().await;
    }
    false
}
