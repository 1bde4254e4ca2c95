//! Shared by the tests of workers: each test runs alone in its process, and fails if it leaves a
//! process, a descriptor or a limiter token behind.

#![allow(dead_code)] // each test program uses its own part of this

pub mod dice;
pub mod dispositions;
pub mod gate;
pub mod in_waker;
pub mod log;
pub mod modes;
pub mod programs;
pub mod refusals;
pub mod renames;
pub mod sandbox;
pub mod stage;

use std::collections::BTreeSet;
use std::fs::ReadDir;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use seedbed::worker::{WorkerStatus, WorkerType};
use seedbed::{WorkerConfig, WorkerContext};

/// Lists functions of a file as its tests, for [`modes::run`]. The list is `SUITE` or has another
/// name: `suite! { NAME: .. }`.
#[allow(unused_macros)] // not every test program has such a file
macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        suite! { SUITE: $($test),* }
    };
    ($name:ident: $($test:ident),* $(,)?) => {
        pub const $name: crate::common::modes::Suite = &[$((stringify!($test), $test)),*];
    };
}

/// Returns the line of `/proc/self/maps` that contains the address of a slice.
pub fn mapping_at<T>(slice: &[T]) -> String {
    let address = slice.as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let found = maps.lines().find(|line| {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let parse = |text| usize::from_str_radix(text, 16).unwrap();
        (parse(start)..parse(end)).contains(&address)
    });
    found.expect("an address that can be read is mapped").into()
}

/// How this process starts its workers.
pub fn worker_type() -> WorkerType {
    match modes::mode() {
        Some(modes::Mode::Forked) => WorkerType::ForkServer,
        _ => WorkerType::Auto,
    }
}

/// Tests count the children and descriptors of the process, so only one of them may run at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a test's future with the hook in place. Fails if the test leaves a process, zombies
/// included, a descriptor or a token of the default limiter behind.
pub fn test<T>(body: impl Future<Output = T>) -> T {
    seedbed::init();
    let _alone = alone();
    end_default_workers();
    warm_up();
    let check = LeakCheck::begin();
    // Boxed, so that one instance of the generic code serves all tests.
    let body: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(body);
    let value = smol::block_on(body);
    check.end();
    value
}

/// A job that returns the process id of its worker.
pub fn pid(_: ()) -> u32 {
    std::process::id()
}

/// A job that never ends.
pub fn endless(_: ()) {
    loop {
        std::thread::park();
    }
}

/// Runs `body` with a new worker context, and waits until the context has shut down.
pub async fn with_workers<F, Fut>(config: WorkerConfig, body: F) -> Fut::Output
where
    F: FnOnce(WorkerContext) -> Fut,
    Fut: Future,
{
    let body: Body<'_, Fut::Output> = Box::new(|workers| Box::pin(body(workers)));
    seedbed::open_worker_context(config.worker_type(worker_type()), body).await
}

/// A test's block, boxed: one instance of the generic code of contexts serves all tests, which are
/// hundreds.
type Body<'a, T> = Box<dyn FnOnce(WorkerContext) -> Pin<Box<dyn Future<Output = T> + 'a>> + 'a>;

/// Makes workers that do not exit when they are told to: each hangs after its first job.
pub fn with_workers_that_stay(config: WorkerConfig) -> WorkerConfig {
    config.retire(|_: &WorkerStatus| {
        loop {
            std::thread::park();
        }
    })
}

/// Waits until a context has noticed that all its idle workers have exited.
pub async fn until_empty(workers: &WorkerContext) {
    while workers.statistics().idle_workers > 0 {
        smol::future::yield_now().await;
    }
}

/// Retires the workers of the default context.
pub fn end_default_workers() {
    let config = WorkerConfig::new().worker_type(worker_type());
    seedbed::worker::configure_default_context(config).unwrap();
}

/// Waits for the test that runs now. Until the guard is dropped, no other test runs. A test that
/// panicked with the guard does not fail the others.
pub fn alone() -> MutexGuard<'static, ()> {
    dispositions::reset();
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates what the process creates once and keeps: the descriptors of the reactor, the threads of
/// the executor and the launcher, and what reports SIGINT to runs.
fn warm_up() {
    static IS_WARM: AtomicBool = AtomicBool::new(false);
    if IS_WARM.load(Relaxed) {
        return;
    }
    seedbed::run(async {});
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
    IS_WARM.store(true, Relaxed);
}

fn nothing(_: ()) {}

/// The longest time that dropped processes may take to be killed and reaped in the background. A
/// busy machine needs far less.
const REAP_LIMIT: Duration = Duration::from_secs(20);

/// Checks that a test leaves nothing behind. If the test fails, kills and reaps all children, so
/// that the tests after it start without any.
pub struct LeakCheck {
    descriptors: BTreeSet<String>,
    tokens: usize,
}

impl LeakCheck {
    pub fn begin() -> Self {
        LeakCheck {
            descriptors: descriptors(),
            tokens: borrowed_tokens(),
        }
    }

    /// Waits until the process has no children and nothing that it did not have at the beginning.
    /// Panics if that takes too long.
    pub fn end(self) {
        self.end_within(REAP_LIMIT);
    }

    pub fn end_within(self, limit: Duration) {
        let limit = Instant::now() + limit;
        loop {
            let left = self.left();
            if left.is_nothing() {
                return;
            }
            assert!(Instant::now() < limit, "a test left behind {left:?}");
            pause();
        }
    }

    fn left(&self) -> Left {
        Left {
            children: children(),
            descriptors: descriptors()
                .difference(&self.descriptors)
                .cloned()
                .collect(),
            tokens: borrowed_tokens().saturating_sub(self.tokens),
        }
    }
}

impl Drop for LeakCheck {
    fn drop(&mut self) {
        if std::thread::panicking() {
            kill_children();
        }
    }
}

/// Children, descriptors and limiter tokens that a test has left behind.
#[derive(Debug)]
struct Left {
    children: Vec<u32>,
    descriptors: Vec<String>,
    tokens: usize,
}

impl Left {
    fn is_nothing(&self) -> bool {
        self.children.is_empty() && self.descriptors.is_empty() && self.tokens == 0
    }
}

fn borrowed_tokens() -> usize {
    seedbed::worker::current_default_worker_limiter().borrowed()
}

fn kill_children() {
    let limit = Instant::now() + REAP_LIMIT;
    // Orphans of a killed child may become children of this process, and those being forked may be
    // missed at first.
    while Instant::now() < limit {
        let children = children();
        if children.is_empty() {
            return;
        }
        for pid in children {
            let pid = Pid::from_raw(pid.cast_signed()).expect("a process has a number");
            // The library may reap the child first.
            _ = kill_process(pid, Signal::KILL);
            _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        pause();
    }
}

/// Leaves the processor to others before the next look at `/proc`, which is slow.
fn pause() {
    std::thread::sleep(Duration::from_micros(200));
}

/// Returns the children of this process, zombies included.
pub fn children() -> Vec<u32> {
    listed_by(std::fs::read_dir("/proc/self/task").expect("/proc is mounted"))
}

/// Returns the children of a process; none if that process has ended.
pub fn children_of(pid: u32) -> Vec<u32> {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or_else(|_| Vec::new(), listed_by)
}

/// Returns the children of a process, given the list of its threads.
fn listed_by(threads: ReadDir) -> Vec<u32> {
    let lists = threads.filter_map(|thread| {
        // A thread that has ended since it was listed has no children.
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

/// Returns the workers among the children of this process: all of them, except the fork server.
pub fn workers() -> Vec<u32> {
    let mut children = children();
    if worker_type() == WorkerType::ForkServer {
        children.retain(|&pid| is_worker(pid));
    }
    children
}

/// Tells by its name whether a process is a worker.
pub fn is_worker(pid: u32) -> bool {
    name_of(pid).ends_with("-worker")
}

/// Returns the name of a process; an empty one if there is no such process.
pub fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Returns the open descriptors of this process, each as its number and its target.
pub fn descriptors() -> BTreeSet<String> {
    let listed = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let paths: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    // The list includes the descriptor of the directory, which is closed by now.
    paths
        .iter()
        .filter_map(|path| Some(format!("{} -> {}", path.display(), target(path)?)))
        .collect()
}

/// Counts the descriptors of this process that a child inherits.
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

fn target(path: &Path) -> Option<String> {
    Some(
        std::fs::read_link(path)
            .ok()?
            .to_string_lossy()
            .into_owned(),
    )
}

/// Waits until a process has ended, whether or not it is a child of this one.
pub fn wait_until_gone(pid: u32) {
    let limit = Instant::now() + REAP_LIMIT;
    while is_alive(pid) {
        assert!(Instant::now() < limit, "process {pid} is still alive");
        pause();
    }
}

/// Tells whether a process exists and cannot be reaped yet. The first thread, whose state `stat`
/// shows, may be a zombie while others still run.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat.rsplit(')').next().unwrap().trim_start();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !state.starts_with(['Z', 'X']) || threads() > 1
}

/// Polls a future at most `times` times, yielding after each, and drops it. Returns whether it
/// became ready.
pub async fn poll_with_yields<F: Future>(future: F, times: usize) -> bool {
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
