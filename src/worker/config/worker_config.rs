//! The configuration of a context: names, times, worker type, and how it becomes a set-up message.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::environment::Environment;
use super::launcher::Launcher;
use super::worker_type::WorkerType;
use crate::sync::CapacityLimiter;
use crate::transport::codec;
use crate::transport::codec_error::CodecError;
use crate::transport::frame;
use crate::transport::frame::Kind;
use crate::transport::job::image::Fingerprint;
use crate::transport::message::{Closure, Limits, Purpose, SetUp};
use crate::transport::out_message::OutMessage;
use crate::transport::traced::TracingLevel;
use crate::worker::error::{ExitLimits, WorkerError};
use crate::worker::name::{NewProcess, process_name};
use crate::worker::tuning::{
    DEFAULT_GRACE_PERIOD, DEFAULT_IDLE_TIMEOUT, DEFAULT_KILL_TIMEOUT, DEFAULT_START_TIMEOUT,
};

/// Settings of a context: how its workers start, how long they live, and when they exit.
///
/// The closures run in the worker, so like jobs they capture nothing and receive their data as an
/// encoded value. Several `init` closures run in the order in which they were given. A worker exits
/// when any `retire` closure returns true.
///
/// A context inherits no settings from the context around it. (Workers that a *job* starts do
/// inherit the job's resource limits, directory and environment from the kernel.)
///
/// # The start of a worker
///
/// 1. The program is executed with the configured [environment](Self::env), and reaches the hook.
/// 2. It closes [inherited descriptors](Self::close_inherited_descriptors) if it is told to,
///    changes to the [working directory](Self::current_dir), then calls the
///    [`preload`](Self::preload) closures. A fork server does this once for all its workers, and
///    the limits do not apply to it.
/// 3. The worker applies its limits: its own process group ([`kill_tree`](Self::kill_tree)),
///    [CPUs](Self::cpu_affinity), [niceness](Self::nice), its [score](Self::oom_score_adj) for the
///    OOM killer, [memory](Self::memory_limit), [open files](Self::open_file_limit), and the
///    [stack](Self::stack_size).
/// 4. It calls the [`init`](Self::init) closures, and then the jobs, each with its [CPU
///    time](Self::cpu_limit).
///
/// So the limits apply to all closures and jobs except `preload`. Use `preload` for work that needs
/// more than a job may have, such as reading a large table. If a step fails, the call for which the
/// worker was started ends with [`WorkerErrorKind::Start`](crate::worker::WorkerErrorKind::Start),
/// and the error names the setting. A setting that is invalid on any system, such as an empty set
/// of CPUs, fails each call with [`Config`](crate::worker::WorkerErrorKind::Config) before a
/// process is started.
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
    pub(super) start_timeout: Duration,
    /// How long a killed process is waited for.
    pub(super) kill_timeout: Duration,
    /// The limiter of calls that name none.
    pub(super) limiter: Option<CapacityLimiter>,
    pub(super) preload: Vec<Closure>,
    pub(super) init: Vec<Closure>,
    pub(super) retire: Vec<Closure>,
    /// The number of retire closures that only count jobs, and the smallest of their limits.
    pub(super) counting: usize,
    pub(super) most_jobs: u64,
    pub(super) worker_type: WorkerType,
    pub(super) launcher: Option<Launcher>,
    pub(super) capture_stderr: bool,
    pub(super) environment: Environment,
    pub(super) current_dir: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) close_inherited_descriptors: bool,
    pub(super) default_signals: bool,
    pub(super) forward_tracing: Option<TracingLevel>,
    /// The first fault that was found, which `check` reports.
    pub(super) fault: Option<Fault>,
}

/// A fault of a configuration.
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

impl Default for WorkerConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl WorkerConfig {
    /// Creates a configuration with the defaults: an idle timeout of 10 minutes, a grace period of
    /// 30 seconds, a start timeout of 10 seconds, no closures, and standard error shared with this
    /// process.
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
            idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
            grace_period: Some(DEFAULT_GRACE_PERIOD),
            start_timeout: DEFAULT_START_TIMEOUT,
            kill_timeout: DEFAULT_KILL_TIMEOUT,
            limiter: None,
            preload: Vec::new(),
            init: Vec::new(),
            retire: Vec::new(),
            counting: 0,
            most_jobs: u64::MAX,
            worker_type: WorkerType::default(),
            launcher: None,
            capture_stderr: false,
            environment: Environment::default(),
            current_dir: None,
            limits: Limits::default(),
            close_inherited_descriptors: false,
            default_signals: false,
            forward_tracing: None,
            fault: None,
        }
    }

    /// Names the context. `ps -e`, `top` and `pstree` show its workers as `NAME-worker`, cut to the
    /// 15 bytes that Linux allows. The name also appears in [errors](crate::WorkerError::context)
    /// and `tracing` output.
    ///
    /// Without a name, workers are shown with the program's name. Only this short name (`comm`)
    /// tells a worker from the program: the arguments that `ps -ef` shows are the program's own,
    /// because code before the hook may read them.
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

    /// Sets the limiter of the context's calls, for those that name none. By default the calls of
    /// all contexts share [one](crate::worker::current_default_worker_limiter), with a token for
    /// each processor, so calls of one context can keep those of another waiting.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{CapacityLimiter, WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let limiter = CapacityLimiter::new(2);
    ///     let config = WorkerConfig::new().limiter(&limiter);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let _both = (limiter.acquire().await, limiter.acquire().await);
    ///         let call = smol::future::poll_once(workers.run_sync(i32::abs, -3).into_future());
    ///         assert!(call.await.is_none()); // it waits for a token
    ///     }));
    /// }
    /// # use std::future::IntoFuture;
    /// ```
    pub fn limiter(mut self, limiter: &CapacityLimiter) -> Self {
        self.limiter = Some(limiter.clone());
        self
    }

    /// Sets how worker processes are created.
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

    /// Sets whether this process captures the standard error of workers. If so, an error shows the
    /// last four kilobytes that its worker wrote. Otherwise workers write to the standard error of
    /// this process.
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

    /// Returns a setting that contradicts the launcher, and advice.
    fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        let forks = self.worker_type == WorkerType::ForkServer;
        (forks && self.launcher.is_some()).then_some((
            "worker_type(WorkerType::ForkServer)",
            "a launcher executes each worker; take `WorkerType::Auto` with it",
        ))
    }

    pub(super) fn set_fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }
}

/// The view of a configuration that the rest of `worker` uses.
impl WorkerConfig {
    /// Returns the first fault of the configuration as an error.
    pub(in crate::worker) fn check(&self) -> Result<(), WorkerError> {
        if let Some((setting, words)) = self.contradiction() {
            return Err(WorkerError::unusable_setting(setting, words));
        }
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

    /// Encodes the set-up frame, the first frame that a new process with this image receives.
    pub(in crate::worker) fn set_up(
        &self,
        role: NewProcess,
        image: &Fingerprint,
    ) -> Result<Vec<u8>, WorkerError> {
        self.check()?;
        let message = SetUp {
            image: image.clone(),
            purpose: match role {
                NewProcess::Spawned => Purpose::Work,
                NewProcess::ForkServer => Purpose::Fork,
            },
            name: process_name(self.name.as_deref(), role),
            forked_workers: process_name(self.name.as_deref(), NewProcess::Spawned),
            preload: self.preload.clone(),
            current_dir: self
                .current_dir
                .as_ref()
                .map(|path| path.as_os_str().as_bytes().to_vec()),
            limits: self.limits.clone(),
            close_inherited_descriptors: self.close_inherited_descriptors,
            default_signals: self.default_signals,
            forward_tracing: self.forward_tracing,
            idle_timeout: self.idle_timeout,
            forked_workers_report: !self.starts_with_its_job(),
            has_only_jobs: self.starts_with_its_job() && !self.preloads() && !self.retires(),
            init: self.init.clone(),
            retire: self.retire.clone(),
        };
        let frame = frame::build(Kind::SetUp, 0, |out| codec::encode_onto(&message, out));
        Ok(frame.unwrap_or_else(|error| unreachable!("our own messages can be encoded: {error}")))
    }

    /// Returns the limits that a worker may have met when it ended.
    pub(in crate::worker) fn exit_limits(&self) -> ExitLimits {
        ExitLimits {
            memory: self.limits.memory,
            cpu_time: self.limits.cpu_time,
            stack: self.limits.stack,
        }
    }

    /// Returns whether arguments are sent in frames, however large: because the number of open
    /// files is limited, so that a worker may have no descriptor to spare, or because workers share
    /// no memory with this process.
    pub(in crate::worker) fn sends_in_frames(&self) -> bool {
        self.limits.open_files.is_some() || self.launcher.is_some()
    }

    /// Returns the job if a worker can receive it.
    ///
    /// # Errors
    ///
    /// Fails if the job holds what cannot leave this machine, and a launcher starts the workers.
    pub(in crate::worker) fn admit(&self, job: OutMessage) -> Result<OutMessage, CodecError> {
        if self.launcher.is_some() && job.has_descriptors() {
            return Err(CodecError::descriptor_for_elsewhere());
        }
        Ok(job)
    }

    /// Returns whether each item of a map is a job: because it matters how many jobs a worker runs,
    /// or what each of them uses, or because there is no memory that workers share with this
    /// process.
    pub(in crate::worker) fn counts_jobs(&self) -> bool {
        !self.retire.is_empty() || self.limits.cpu_time.is_some() || self.sends_in_frames()
    }

    pub(in crate::worker) fn kind_of_workers(&self) -> WorkerType {
        self.worker_type
    }

    /// Returns how long a new process may take to reach the hook.
    pub(in crate::worker) fn time_to_start(&self) -> Duration {
        self.start_timeout
    }

    /// Returns whether there are preload closures.
    pub(in crate::worker) fn preloads(&self) -> bool {
        !self.preload.is_empty()
    }

    /// Returns whether a forked worker can receive its first job together with its fork request,
    /// because it has no init closures and no limits. An init closure may block, and a limit may be
    /// refused; the job must not have begun then.
    pub(in crate::worker) fn starts_with_its_job(&self) -> bool {
        self.init.is_empty() && self.limits == Limits::default()
    }

    /// Returns the number of jobs that a worker runs at most, if only counting closures decide
    /// that.
    pub(in crate::worker) fn most_jobs(&self) -> u64 {
        if self.counting == self.retire.len() {
            self.most_jobs
        } else {
            u64::MAX
        }
    }

    /// Returns whether a worker may retire after a job that is not its last one by number.
    pub(in crate::worker) fn retires(&self) -> bool {
        self.counting < self.retire.len()
    }

    /// Returns the name of the context.
    pub(in crate::worker) fn context_name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    pub(in crate::worker) fn grace(&self) -> Option<Duration> {
        self.grace_period
    }

    pub(in crate::worker) fn limiter_of_calls(&self) -> Option<&CapacityLimiter> {
        self.limiter.as_ref()
    }

    pub(in crate::worker) fn kill_limit(&self) -> Duration {
        self.kill_timeout
    }

    pub(in crate::worker) fn captures_stderr(&self) -> bool {
        self.capture_stderr
    }

    pub(in crate::worker) fn forwards_tracing(&self) -> bool {
        self.forward_tracing.is_some()
    }

    pub(in crate::worker) fn environment(&self) -> Environment {
        self.environment.clone()
    }

    pub(in crate::worker) fn kills_tree(&self) -> bool {
        self.limits.own_group
    }
}

/// Hides the data of closures and the values of environment variables, which may be secrets.
impl fmt::Debug for WorkerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConfig")
            .field("name", &self.name)
            .field("idle_timeout", &self.idle_timeout)
            .field("grace_period", &self.grace_period)
            .field("start_timeout", &self.start_timeout)
            .field("kill_timeout", &self.kill_timeout)
            .field("preload", &self.preload.len())
            .field("init", &self.init.len())
            .field("retire", &self.retire.len())
            .field("worker_type", &self.worker_type)
            .field("launcher", &self.launcher)
            .field("capture_stderr", &self.capture_stderr)
            .field("environment", &self.environment)
            .field("current_dir", &self.current_dir)
            .field("limits", &self.limits)
            .field(
                "close_inherited_descriptors",
                &self.close_inherited_descriptors,
            )
            .field("default_signals", &self.default_signals)
            .field("forward_tracing", &self.forward_tracing)
            .finish_non_exhaustive()
    }
}
