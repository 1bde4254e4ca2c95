//! Tools for tests of faults: jobs that report a point that they have reached and wait there,
//! signals, a call in progress that must not be harmed, and helper processes that run one test of
//! this program again.
//!
//! Nothing sleeps for a fixed time. A job reports through a named pipe, and waits by opening
//! another one for reading, which blocks until that pipe has a writer.

#![allow(dead_code)] // each test program uses its own part of this

use std::fs::{File, Permissions};
use std::future::{Future, IntoFuture};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use seedbed::worker::WorkerErrorKind;
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext, WorkerError};
use smol::{Async, Timer};

use super::{alone, modes, test, with_workers};

/// The longest time that a test may take. A busy machine needs far less: the limit fails a test
/// that hangs. `SEEDBED_TEST_LIMIT` sets another number of seconds, for a soak test.
const LIMIT: Duration = Duration::from_secs(60);

fn limit() -> Duration {
    let asked = std::env::var("SEEDBED_TEST_LIMIT").ok();
    asked.map_or(LIMIT, |asked| Duration::from_secs(asked.parse().unwrap()))
}

/// Runs a test with a worker context of its own. A test that hangs fails.
pub fn staged<F, Fut>(config: WorkerConfig, body: F)
where
    F: FnOnce(WorkerContext) -> Fut,
    Fut: Future<Output = ()>,
{
    test(within(with_workers(config, body)));
}

/// Waits for `body`, and panics after the time limit of a test.
pub async fn within<T>(body: impl Future<Output = T>) -> T {
    let too_long = async {
        Timer::after(limit()).await;
        panic!("it hangs")
    };
    smol::future::or(body, too_long).await
}

/// A point that jobs reach, and where they wait until the test lets them continue.
pub struct Stage {
    folder: tempfile::TempDir,
    announced: Async<File>,
    /// The writer that the waiting jobs need.
    release: Option<File>,
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for pipe in ["here", "on"] {
            let path = folder.path().join(pipe);
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
        }
        let announced = open_both_ways(&folder.path().join("here"));
        Stage {
            announced: Async::new(announced).unwrap(),
            folder,
            release: None,
        }
    }

    /// Gives processes of all users access to the pipes.
    pub fn open_to_all_users(&self) {
        let folder = self.folder.path();
        for (path, mode) in [(folder, 0o755), (&folder.join("on"), 0o666)] {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    }

    /// The argument for a job that is to reach this point.
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Waits until a job has reached this point, and returns the job's process id.
    pub async fn reached(&self) -> u32 {
        let mut pid = [0; 4];
        let read = self.announced.read_with(|mut pipe| pipe.read(&mut pid));
        assert_eq!(read.await.unwrap(), pid.len(), "it is written at once");
        u32::from_ne_bytes(pid)
    }

    /// Cancels a call as soon as its job has reached this point. Returns the job's process id.
    pub async fn cancel_on_arrival<T>(&self, call: impl IntoFuture<Output = T>) -> u32 {
        let scope = CancelScope::new();
        let cancel = async {
            let pid = self.reached().await;
            scope.cancel();
            pid
        };
        let (outcome, pid) = smol::future::zip(scope.run(call), cancel).await;
        assert!(outcome.is_none(), "the call was not cancelled");
        pid
    }

    /// Lets the waiting jobs continue, and those that come later.
    pub fn release(&mut self) {
        self.release = Some(open_both_ways(&self.folder.path().join("on")));
    }
}

/// Opens a named pipe for reading and writing, which does not wait for the other end to be opened.
fn open_both_ways(pipe: &Path) -> File {
    let mut options = File::options();
    options.read(true).write(true).open(pipe).unwrap()
}

/// For jobs: reports that this process has reached the point.
pub fn announce(stage: &Path) {
    let mut pipe = File::options()
        .write(true)
        .open(stage.join("here"))
        .unwrap();
    pipe.write_all(&std::process::id().to_ne_bytes()).unwrap();
}

/// For jobs: reports that this process has reached the point, and waits until the test lets it
/// continue.
pub fn halt(stage: &Path) {
    announce(stage);
    drop(File::open(stage.join("on")).unwrap());
}

/// A job that halts and then returns its process id.
pub fn halting_pid(stage: PathBuf) -> u32 {
    halt(&stage);
    std::process::id()
}

/// A job that never ends.
pub fn forever(stage: PathBuf) {
    announce(&stage);
    loop {
        std::thread::park();
    }
}

/// A job that appends a byte to a file: the length of the file is the number of runs.
pub fn leave_a_byte(path: PathBuf) {
    let mut options = File::options();
    let mut file = options.append(true).create(true).open(path).unwrap();
    file.write_all(b"x").unwrap();
}

/// A call that is in progress during a test, and must not be harmed by the faults of other calls.
pub struct Bystander {
    stage: Stage,
    call: smol::Task<Result<u32, WorkerError>>,
    pid: u32,
}

impl Bystander {
    pub async fn of(workers: &WorkerContext) -> Self {
        let stage = Stage::new();
        let call = workers
            .run_sync(halting_pid, stage.path())
            .limiter(&CapacityLimiter::unlimited());
        let call = smol::spawn(call.into_future());
        let pid = stage.reached().await;
        Bystander { stage, call, pid }
    }

    pub async fn ends_unharmed(mut self) {
        self.stage.release();
        assert_eq!(self.call.await.unwrap(), self.pid);
    }
}

/// Sends a signal to a process that belongs to this test.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Kills a process that belongs to this test.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Stops a child, and waits until the child has stopped.
pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), options).unwrap();
}

/// Waits until a child has ended, and leaves it to be reaped.
pub fn until_ended(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    match waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    ) {
        Ok(_) | Err(Errno::CHILD) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Returns the name of the signal that ended a worker.
pub fn signal_of(error: &WorkerError) -> Option<&'static str> {
    assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
    error.exit().unwrap().signal_name()
}

/// Returns the state of a process as in `/proc/PID/stat`: `R` for running, `S` for sleeping, `T`
/// for stopped.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// The environment variable that holds the part of a helper.
pub const PART: &str = "SEEDBED_TEST_PART";

/// Returns the part that this process has in a test, if it was started as a helper.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Returns the command that runs a test of this program again, in a process of its own that has the
/// given part in the test.
pub fn helper(module: &str, test: &str, part: &str) -> Command {
    helper_in(&std::env::current_exe().unwrap(), module, test, part)
}

/// Like [`helper`], with the program file that is to be run.
pub fn helper_in(program: &Path, module: &str, test: &str, part: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--exact", &modes::name_of(module, test), "--nocapture"])
        .env(PART, part)
        .stdin(Stdio::null());
    command
}

/// Runs a helper until it exits. Kills a helper that hangs, and panics.
pub fn run_to_end(command: Command) -> (ExitStatus, String) {
    let _alone = alone();
    run_to_end_while_alone(command)
}

fn run_to_end_while_alone(mut command: Command) -> (ExitStatus, String) {
    let mut helper = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let outputs = [
        read_apart(helper.stdout.take().unwrap()),
        read_apart(helper.stderr.take().unwrap()),
    ];
    let status = wait_for(&mut helper);
    let said = outputs.map(|output| output.join().unwrap()).concat();
    (status, said)
}

/// Runs a helper, and panics unless it succeeds and has run exactly one test. Returns its output.
pub fn succeeds(command: Command) -> String {
    let _alone = alone();
    succeeds_while_alone(command)
}

/// Like [`succeeds`], for a test that has called [`alone`], because it prepares a helper with
/// descriptors or processes.
pub fn succeeds_while_alone(command: Command) -> String {
    let (status, said) = run_to_end_while_alone(command);
    assert!(status.success() && said.contains("1 passed"), "{said}");
    said
}

/// Waits until a helper exits. Kills a helper that hangs, and panics.
pub fn wait_for(helper: &mut Child) -> ExitStatus {
    let limit = Instant::now() + limit();
    loop {
        if let Some(status) = helper.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > limit {
            helper.kill().unwrap();
            helper.wait().unwrap();
            panic!("a helper hangs");
        }
        std::thread::yield_now();
    }
}

/// Reads the output of a helper until it contains `before`, some text and `after`, and returns that
/// text.
pub fn announced(output: &mut impl Read, before: &str, after: &str) -> String {
    let mut said = String::new();
    loop {
        let mut bytes = [0; 256];
        let length = output.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "the helper ended: {said}");
        said.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        let rest = said.split_once(before).map(|(_, rest)| rest);
        if let Some((announced, _)) = rest.and_then(|rest| rest.split_once(after)) {
            return announced.to_owned();
        }
    }
}

fn read_apart(mut output: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut said = Vec::new();
        output.read_to_end(&mut said).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    })
}

/// The environment variable that makes the workers of a helper fail before they reach the hook. Its
/// value is one of the ways in [`fail_before_the_hook`].
pub const BEFORE_THE_HOOK: &str = "SEEDBED_TEST_BEFORE_THE_HOOK";

/// Must be called before the hook. Ends or stops this process if it is a worker and
/// [`BEFORE_THE_HOOK`] says so.
pub fn before_the_hook() {
    let is_worker = std::env::var_os("SEEDBED_WORKER").is_some();
    if let Ok(way) = std::env::var(BEFORE_THE_HOOK)
        && is_worker
    {
        fail_before_the_hook(&way);
    }
}

fn fail_before_the_hook(way: &str) {
    let me = rustix::process::getpid();
    match way {
        "killed" => kill_process(me, Signal::KILL).unwrap(),
        "aborted" => std::process::abort(),
        "stopped" => kill_process(me, Signal::STOP).unwrap(),
        _ => unreachable!("no way to fail: {way}"),
    }
}
