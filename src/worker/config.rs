//! What a worker context does with its workers.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::WorkerError;
use crate::job::code::Code;
use crate::job::image::fingerprint;
use crate::job::status::WorkerStatus;
use crate::wire::codec::{self, CodecError};
use crate::wire::frame::{self, Kind};
use crate::wire::message::{Closure, Fingerprint, SetUp};

/// How the workers of a context come up, how long they stay, and when they go.
///
/// The closures run in the worker, so they are like jobs: they capture nothing and get their data as an encoded value.
/// Several `init` closures run in the order in which they were given; a worker retires when any `retire` closure says so.
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
    idle_timeout: Option<Duration>,
    grace_period: Option<Duration>,
    init: Vec<Closure>,
    retire: Vec<Closure>,
    worker_type: WorkerType,
    capture_stderr: bool,
    /// The first thing that is wrong with it, to be reported by what uses it.
    fault: Option<Fault>,
}

/// What can be wrong with a configuration.
#[derive(Clone, Debug)]
enum Fault {
    Foreign {
        closure: &'static str,
    },
    Unencodable {
        closure: &'static str,
        message: String,
    },
}

/// How worker processes are made.
///
/// # Examples
///
/// ```
/// use seedbed::WorkerType;
/// assert_eq!(WorkerType::default(), WorkerType::Spawn);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerType {
    /// Each worker is this program, executed again.
    #[default]
    Spawn,
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
            idle_timeout: Some(Duration::from_secs(600)),
            grace_period: Some(Duration::from_secs(30)),
            init: Vec::new(),
            retire: Vec::new(),
            worker_type: WorkerType::default(),
            capture_stderr: false,
            fault: None,
        }
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

    /// Calls `f` in each new worker before its first job. If it panics, the call for which the worker was started fails
    /// with [`WorkerErrorKind::Init`](crate::WorkerErrorKind::Init).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// static READY: AtomicBool = AtomicBool::new(false);
    ///
    /// fn prepare() {
    ///     READY.store(true, Relaxed); // lower the priority, limit the memory, warm a cache ..
    /// }
    ///
    /// fn is_ready(_: ()) -> bool {
    ///     READY.load(Relaxed)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().init(prepare);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert!(workers.run_sync(is_ready, ()).await.unwrap());
    ///     }));
    /// }
    /// ```
    pub fn init<F>(self, f: F) -> Self
    where
        F: Fn() + Copy + Send + Sync + 'static,
    {
        let name = std::any::type_name::<F>();
        self.add(
            Hook::Init,
            name,
            Code::of_init(move |&()| f()).map(Code::offset),
            codec::encode(&()),
        )
    }

    /// Calls `f` with a copy of `data` in each new worker before its first job, like [`init`](Self::init).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::OnceLock;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// static WORDS: OnceLock<String> = OnceLock::new();
    ///
    /// fn load(words: &String) {
    ///     WORDS.set(words.to_uppercase()).unwrap(); // once in each worker
    /// }
    ///
    /// fn knows(word: String) -> bool {
    ///     WORDS.get().unwrap().contains(&word)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().init_with(String::from("seed bed"), load);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert!(workers.run_sync(knows, "BED".to_owned()).await.unwrap());
    ///     }));
    /// }
    /// ```
    pub fn init_with<D, F>(self, data: D, f: F) -> Self
    where
        D: Serialize + DeserializeOwned + 'static,
        F: Fn(&D) + Copy + Send + Sync + 'static,
    {
        let name = std::any::type_name::<F>();
        self.add(
            Hook::Init,
            name,
            Code::of_init::<F, D>(f).map(Code::offset),
            codec::encode(&data),
        )
    }

    /// Asks `f` in the worker after each job, when the result has been sent; if it returns true the worker exits. If it
    /// panics, that job's result is unharmed, and the next call that would have got this worker fails with
    /// [`WorkerErrorKind::Retire`](crate::WorkerErrorKind::Retire).
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, WorkerStatus, open_worker_context};
    ///
    /// fn pid(_: ()) -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().retire(|worker: &WorkerStatus| worker.age().as_secs() > 3600);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn retire<F>(self, f: F) -> Self
    where
        F: Fn(&WorkerStatus) -> bool + Copy + Send + Sync + 'static,
    {
        let name = std::any::type_name::<F>();
        let code = Code::of_retire(move |&(), status: &WorkerStatus| f(status)).map(Code::offset);
        self.add(Hook::Retire, name, code, codec::encode(&()))
    }

    /// Asks `f` with a copy of `data` in the worker after each job, like [`retire`](Self::retire). The data is decoded
    /// once in each worker.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, WorkerStatus, open_worker_context};
    ///
    /// fn pid(_: ()) -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().retire_with(2, |most: &u64, worker: &WorkerStatus| worker.jobs() >= *most);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///         assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn retire_with<D, F>(self, data: D, f: F) -> Self
    where
        D: Serialize + DeserializeOwned + 'static,
        F: Fn(&D, &WorkerStatus) -> bool + Copy + Send + Sync + 'static,
    {
        let name = std::any::type_name::<F>();
        self.add(
            Hook::Retire,
            name,
            Code::of_retire::<F, D>(f).map(Code::offset),
            codec::encode(&data),
        )
    }

    /// Gives each job a process of its own.
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
    ///     let config = WorkerConfig::new().single_use();
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn single_use(self) -> Self {
        self.retire_after(1)
    }

    /// Lets a worker run that many jobs; zero is as good as one.
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
    ///     let config = WorkerConfig::new().retire_after(2);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///         assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn retire_after(self, jobs: u64) -> Self {
        self.retire_with(jobs, |most: &u64, worker: &WorkerStatus| {
            worker.jobs() >= *most
        })
    }

    /// Lets a worker go that holds more than so many bytes of memory (resident) after a job. This caps what a leak can
    /// do between jobs; it does not stop a single job from taking more.
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
    ///     let config = WorkerConfig::new().retire_above_memory(1 << 40);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first); // it holds less than a terabyte
    ///     }));
    /// }
    /// ```
    pub fn retire_above_memory(self, bytes: u64) -> Self {
        self.retire_with(bytes, |most: &u64, worker: &WorkerStatus| {
            worker.memory() > *most
        })
    }

    /// Sets how worker processes are made.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, WorkerType, open_worker_context};
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

    fn add(
        mut self,
        hook: Hook,
        closure: &'static str,
        code: Option<u64>,
        data: Result<Vec<u8>, CodecError>,
    ) -> Self {
        match (code, data) {
            (Some(code), Ok(data)) => match hook {
                Hook::Init => self.init.push(Closure { code, data }),
                Hook::Retire => self.retire.push(Closure { code, data }),
            },
            (None, _) => self.set_fault(Fault::Foreign { closure }),
            (_, Err(error)) => self.set_fault(Fault::Unencodable {
                closure,
                message: error.to_string(),
            }),
        }
        self
    }

    fn set_fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }
}

/// For what uses a configuration.
impl WorkerConfig {
    /// Tells what is wrong with it.
    pub(super) fn check(&self) -> Result<(), WorkerError> {
        match &self.fault {
            None => Ok(()),
            Some(Fault::Foreign { closure }) => Err(WorkerError::foreign_function(closure)),
            Some(Fault::Unencodable { closure, message }) => {
                Err(WorkerError::encode_closure_data(closure, message))
            }
        }
    }

    /// Makes the frame that a new worker is told first, and gives the fingerprint that its answer must have.
    pub(super) fn set_up(&self) -> Result<(Vec<u8>, &'static Fingerprint), WorkerError> {
        self.check()?;
        let image = fingerprint().map_err(WorkerError::start_without_proc)?;
        let message = SetUp {
            image: image.clone(),
            idle_timeout: self.idle_timeout,
            init: self.init.clone(),
            retire: self.retire.clone(),
        };
        let frame = frame::build(Kind::SetUp, 0, |out| codec::encode_onto(&message, out));
        Ok((
            frame.unwrap_or_else(|error| unreachable!("our own messages can be encoded: {error}")),
            image,
        ))
    }

    pub(super) fn grace(&self) -> Option<Duration> {
        self.grace_period
    }

    pub(super) fn captures_stderr(&self) -> bool {
        self.capture_stderr
    }
}

/// When a closure is called.
enum Hook {
    Init,
    Retire,
}

/// Does not show the closures' data, which may be anything.
impl fmt::Debug for WorkerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConfig")
            .field("idle_timeout", &self.idle_timeout)
            .field("grace_period", &self.grace_period)
            .field("init", &self.init.len())
            .field("retire", &self.retire.len())
            .field("worker_type", &self.worker_type)
            .field("capture_stderr", &self.capture_stderr)
            .finish_non_exhaustive()
    }
}
