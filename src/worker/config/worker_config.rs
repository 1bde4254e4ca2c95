//! What a worker context does with its workers.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::environment::Environment;
use crate::sys::mapping::Segment;
use crate::transport::codec;
use crate::transport::frame;
use crate::transport::frame::Kind;
use crate::transport::job::image::fingerprint;
use crate::transport::message::{Closure, Limits, Purpose, SetUp};
use crate::worker::error::WorkerError;
use crate::worker::name::{NewProcess, process_name};

/// How the workers of a context come up, how long they stay, and when they go.
///
/// The closures run in the worker, so they are like jobs: they capture nothing and get their data as an encoded value.
/// Several `init` closures run in the order in which they were given; a worker retires when any `retire` closure says so.
///
/// A configuration is whole: a context inside another one has what its own says, and nothing of the outer one's. (What
/// the kernel hands down is another matter: workers that a *job* starts begin with that job's limits and surroundings.)
///
/// # What a new process goes through
///
/// 1. The program is executed, with the [environment](Self::env) as configured, and comes to the hook.
/// 2. It changes to the [working directory](Self::current_dir), then calls the [`preload`](Self::preload) closures. A
///    fork server does this once, for all its workers, and none of the limits concern it.
/// 3. The worker submits to its limits: its own process group ([`kill_tree`](Self::kill_tree)),
///    [CPUs](Self::cpu_affinity), [niceness](Self::nice), [memory](Self::memory_limit), [open
///    files](Self::open_file_limit), and the [stack](Self::stack_size).
/// 4. It calls the [`init`](Self::init) closures, and then the jobs, each with its [CPU time](Self::cpu_limit).
///
/// So everything of the program's own that happens in a worker is under its limits, but for what `preload` does, which
/// is the place for what needs more than a job may have: reading a large table, opening what a job may not. What a step
/// cannot carry out fails the call for which the worker was started with
/// [`WorkerErrorKind::Start`](crate::worker::WorkerErrorKind::Start), and the error names the setting. A setting that makes no sense
/// on any system, such as an empty set of CPUs, fails each call with [`Config`](crate::worker::WorkerErrorKind::Config) before
/// anything is started.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use seedbed::{WorkerConfig, open_worker_context, run_sync};
///
/// fn pid(_: ()) -> u32 {
///     std::process::id()
/// }
///
/// fn main() {
///     seedbed::init();
///     let config = WorkerConfig::new().single_use().grace_period(Duration::from_secs(5));
///     smol::block_on(open_worker_context(config, |workers| async move {
///         let first = workers.run_sync(pid, ()).await.unwrap();
///         let second = workers.run_sync(pid, ()).await.unwrap();
///         assert_ne!(first, second);
///     }));
/// }
/// ```
#[derive(Clone)]
#[must_use = "a configuration does nothing until a context is opened with it"]
pub struct WorkerConfig {
    pub(super) name: Option<Arc<str>>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) grace_period: Option<Duration>,
    pub(super) preload: Vec<Closure>,
    pub(super) init: Vec<Closure>,
    pub(super) retire: Vec<Closure>,
    /// The retire closures that only count, and the least that one of them counts to.
    pub(super) counting: usize,
    pub(super) most_jobs: u64,
    pub(super) worker_type: WorkerType,
    pub(super) capture_stderr: bool,
    pub(super) environment: Environment,
    pub(super) current_dir: Option<PathBuf>,
    pub(super) limits: Limits,
    /// The first thing that is wrong with it, to be reported by what uses it.
    pub(super) fault: Option<Fault>,
}

/// What can be wrong with a configuration.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Foreign {
        closure: &'static str,
    },
    Unencodable {
        closure: &'static str,
        message: String,
    },
    Unusable {
        setting: String,
        words: String,
    },
}

/// How worker processes are made.
///
/// # Examples
///
/// ```
/// use seedbed::worker::WorkerType;
/// assert_eq!(WorkerType::default(), WorkerType::Auto);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerType {
    /// Forked where that is safe, else spawned. It is safe where this program, when it is executed again, has a single
    /// thread at the hook. That is tried once for each hook; a test under libtest, for one, has more.
    #[default]
    Auto,
    /// Each worker is this program, executed again: it takes the better part of a millisecond, and starts from nothing.
    Spawn,
    /// This program is executed again once, to be a *fork server*, which forks a worker upon each request: in less than
    /// half of the time that executing takes, and with all memory shared until it is written to.
    ///
    /// What is different: a worker starts as a copy of the fork server at the hook, after
    /// [`preload`](WorkerConfig::preload). So it shares with its siblings whatever was drawn at random or looked up before,
    /// such as the seeds of hash maps, the state of a random number generator, a process id that a library keeps, and the
    /// addresses of everything; handlers of `pthread_atfork` are not called; and the data of
    /// [`retire_with`](WorkerConfig::retire_with) is decoded once, for all of them. Where the fork server would have
    /// more than one thread, calls fail with [`WorkerErrorKind::UnsafeFork`](crate::worker::WorkerErrorKind::UnsafeFork). If
    /// the fork server dies, another one is started for the next worker, and the workers that it made live on.
    ///
    /// The fork server stays as long as its context, whatever the [`idle_timeout`](WorkerConfig::idle_timeout), and is not
    /// counted in the [statistics](crate::worker::WorkerStatistics). What a new worker inherits, such as the working directory, the
    /// environment and standard output, is what the fork server got when it was started, by the context's first call.
    ForkServer,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl WorkerConfig {
    /// Starts with the defaults: ten minutes of idleness, thirty seconds of grace, no closures, standard error shared
    /// with this process.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new();
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn new() -> Self {
        Self {
            name: None,
            idle_timeout: Some(Duration::from_secs(600)),
            grace_period: Some(Duration::from_secs(30)),
            preload: Vec::new(),
            init: Vec::new(),
            retire: Vec::new(),
            counting: 0,
            most_jobs: u64::MAX,
            worker_type: WorkerType::default(),
            capture_stderr: false,
            environment: Environment::default(),
            current_dir: None,
            limits: Limits::default(),
            fault: None,
        }
    }

    /// Names the context, for people: its workers are shown as `NAME-worker` by `ps -e`, `top` and `pstree` (cut to the
    /// 15 bytes that Linux has for it), it is in [errors](crate::WorkerError::context), and in what is told to
    /// `tracing`.
    ///
    /// Without a name, workers are shown with the program's. Only that short name (`comm`) tells a worker from the program:
    /// its arguments, as `ps -ef` shows them, are the program's own, because code before the hook may look at them.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn shown_as(_: ()) -> String {
    ///     std::fs::read_to_string("/proc/self/comm").unwrap()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().name("parser");
    ///     let shown = smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(shown_as, ()).await.unwrap()
    ///     }));
    ///     assert_eq!(shown.trim(), "parser-worker");
    /// }
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into());
        self
    }

    /// Sets for how long a worker waits for a job before it leaves. Real time, whatever clock the run has; at least a
    /// millisecond.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().idle_timeout(Duration::from_millis(1));
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(i32::abs, -3).await.unwrap();
    ///         while workers.statistics().idle_workers > 0 {
    ///             smol::Timer::after(Duration::from_millis(1)).await; // the worker is about to leave
    ///         }
    ///         assert_eq!(workers.statistics().idle_workers, 0);
    ///     }));
    /// }
    /// ```
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Lets workers wait for jobs as long as their context exists.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn pid(_: ()) -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().no_idle_timeout();
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         // However long the pause is, the worker is there.
    ///         assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn no_idle_timeout(mut self) -> Self {
        self.idle_timeout = None;
        self
    }

    /// Sets for how long all workers together may take to exit when their context is shut down, before those left are
    /// killed. Real time, whatever clock the run has.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().grace_period(Duration::from_secs(5));
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(i32::abs, -3).await.unwrap();
    ///         // Nobody had to be killed.
    ///         assert!(workers.shutdown().await.is_ok());
    ///     }));
    /// }
    /// ```
    pub fn grace_period(mut self, grace: Duration) -> Self {
        self.grace_period = Some(grace);
        self
    }

    /// Waits for workers to exit as long as they take when their context is shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().no_grace_limit();
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(i32::abs, -3).await.unwrap();
    ///         assert!(workers.shutdown().await.is_ok());
    ///     }));
    /// }
    /// ```
    pub fn no_grace_limit(mut self) -> Self {
        self.grace_period = None;
        self
    }

    /// Sets how worker processes are made.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::WorkerType;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().worker_type(WorkerType::Spawn);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn worker_type(mut self, worker_type: WorkerType) -> Self {
        self.worker_type = worker_type;
        self
    }

    /// Keeps the last of what a worker writes to its standard error, to be shown when it breaks, instead of letting it
    /// write to this process's. It is read while a call is in progress.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn complain(_: ()) {
    ///     eprintln!("no more paint");
    ///     std::process::exit(1)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().capture_stderr(true);
    ///     let error = smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(complain, ()).await.unwrap_err()
    ///     }));
    ///     assert_eq!(error.exit().unwrap().stderr_tail(), Some("no more paint\n"));
    /// }
    /// ```
    pub fn capture_stderr(mut self, capture: bool) -> Self {
        self.capture_stderr = capture;
        self
    }

    pub(super) fn set_fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }
}

/// For what uses a configuration.
impl WorkerConfig {
    /// Tells what is wrong with it.
    pub(in crate::worker) fn check(&self) -> Result<(), WorkerError> {
        match &self.fault {
            None => Ok(()),
            Some(Fault::Foreign { closure }) => Err(WorkerError::foreign_function(closure)),
            Some(Fault::Unencodable { closure, message }) => {
                Err(WorkerError::encode_closure_data(closure, message))
            }
            Some(Fault::Unusable { setting, words }) => {
                Err(WorkerError::unusable_setting(setting, words))
            }
        }
    }

    /// Makes the frame that a new process is told first.
    pub(in crate::worker) fn set_up(
        &self,
        role: NewProcess,
        table: Option<Segment>,
    ) -> Result<Vec<u8>, WorkerError> {
        self.check()?;
        let image = fingerprint().map_err(WorkerError::start_without_proc)?;
        let message = SetUp {
            image: image.clone(),
            purpose: match role {
                NewProcess::Spawned => Purpose::Work,
                NewProcess::ForkServer => Purpose::Fork,
            },
            name: process_name(self.name.as_deref(), role),
            copies: process_name(self.name.as_deref(), NewProcess::Spawned),
            preload: self.preload.clone(),
            current_dir: self
                .current_dir
                .as_ref()
                .map(|path| path.as_os_str().as_bytes().to_vec()),
            limits: self.limits.clone(),
            idle_timeout: self.idle_timeout,
            table,
            copies_report: !self.starts_with_its_job(),
            init: self.init.clone(),
            retire: self.retire.clone(),
        };
        let frame = frame::build(Kind::SetUp, 0, |out| codec::encode_onto(&message, out));
        Ok(frame.unwrap_or_else(|error| unreachable!("our own messages can be encoded: {error}")))
    }

    /// Whether a worker may have no descriptor to spare.
    pub(in crate::worker) fn limits_open_files(&self) -> bool {
        self.limits.open_files.is_some()
    }

    pub(in crate::worker) fn kind_of_workers(&self) -> WorkerType {
        self.worker_type
    }

    /// Whether a fork server calls closures of the program's before it forks.
    pub(in crate::worker) fn preloads(&self) -> bool {
        !self.preload.is_empty()
    }

    /// Whether a forked worker has nothing to do before its first job, and so may find it when it comes to life. An init
    /// closure may take for ever, and a caller that has gone by then has not had its job begun; and a limit may be refused,
    /// which is no fault of the job's.
    pub(in crate::worker) fn starts_with_its_job(&self) -> bool {
        self.init.is_empty() && self.limits == Limits::default()
    }

    /// How many jobs a worker does, as far as that can be told without asking it.
    pub(in crate::worker) fn most_jobs(&self) -> u64 {
        match self.counting == self.retire.len() {
            true => self.most_jobs,
            false => u64::MAX,
        }
    }

    /// Whether a worker may leave after a job that was not its last one by number.
    pub(in crate::worker) fn retires(&self) -> bool {
        self.counting < self.retire.len()
    }

    /// The name, if there is one.
    pub(in crate::worker) fn context_name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    pub(in crate::worker) fn grace(&self) -> Option<Duration> {
        self.grace_period
    }

    pub(in crate::worker) fn captures_stderr(&self) -> bool {
        self.capture_stderr
    }

    pub(in crate::worker) fn environment(&self) -> Environment {
        self.environment.clone()
    }

    pub(in crate::worker) fn kills_tree(&self) -> bool {
        self.limits.own_group
    }
}

/// Does not show the closures' data, which may be anything, nor the values of environment variables, which may be
/// secrets.
impl fmt::Debug for WorkerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConfig")
            .field("name", &self.name)
            .field("idle_timeout", &self.idle_timeout)
            .field("grace_period", &self.grace_period)
            .field("preload", &self.preload.len())
            .field("init", &self.init.len())
            .field("retire", &self.retire.len())
            .field("worker_type", &self.worker_type)
            .field("capture_stderr", &self.capture_stderr)
            .field("environment", &self.environment)
            .field("current_dir", &self.current_dir)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
