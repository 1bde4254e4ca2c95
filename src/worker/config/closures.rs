//! The closures of a configuration: before the fork, before the first job, and after each job.

use super::worker_config::{Fault, WorkerConfig};
use crate::transport::codec;
use crate::transport::codec_error::CodecError;
use crate::transport::job::code::{Code, assert_captures_nothing};
use crate::transport::job::status::WorkerStatus;
use crate::transport::message::Closure;
use crate::worker::data::ClosureData;

/// The event at which a closure is called.
enum Hook {
    Preload,
    Init,
    Retire,
}

impl WorkerConfig {
    /// Calls `f` once in the fork server, before it forks. All workers share the statics that `f`
    /// fills, without a copy until they are written. Spawned workers call `f` themselves, before
    /// [`init`](WorkerConfig::init). If `f` panics, calls fail with
    /// [`WorkerErrorKind::Init`](crate::worker::WorkerErrorKind::Init).
    ///
    /// If `f` starts a thread that outlives it, forking becomes unsafe; see
    /// [`WorkerType`](crate::worker::WorkerType).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::OnceLock;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// static TABLE: OnceLock<Vec<u64>> = OnceLock::new();
    ///
    /// fn fill_table() {
    ///     TABLE.get_or_init(|| (0..1_000_000).map(|n| n * n).collect());
    /// }
    ///
    /// fn look_up(n: usize) -> u64 {
    ///     TABLE.get().expect("it was preloaded")[n]
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().preload(fill_table);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(look_up, 9).await.unwrap(), 81);
    ///     }));
    ///     assert!(TABLE.get().is_none(), "not here");
    /// }
    /// ```
    pub fn preload<F>(self, f: F) -> Self
    where
        F: Fn() + Copy + Send + Sync + 'static,
    {
        const { assert_captures_nothing::<F>() };
        self.add_init(Hook::Preload, std::any::type_name::<F>(), (), move |&()| {
            f()
        })
    }

    /// Calls `f` with a copy of `data` once in the fork server, like [`preload`](Self::preload).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashSet;
    /// use std::sync::OnceLock;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// static WORDS: OnceLock<HashSet<String>> = OnceLock::new();
    ///
    /// fn load(dictionary: &String) {
    ///     WORDS.get_or_init(|| dictionary.split(' ').map(str::to_owned).collect());
    /// }
    ///
    /// fn knows(word: String) -> bool {
    ///     WORDS.get().expect("it was preloaded").contains(&word)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().preload_with(String::from("bed seed"), load);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert!(workers.run_sync(knows, "seed".to_owned()).await.unwrap());
    ///     }));
    /// }
    /// ```
    pub fn preload_with<D, F>(self, data: D, f: F) -> Self
    where
        D: ClosureData,
        F: Fn(&D) + Copy + Send + Sync + 'static,
    {
        const { assert_captures_nothing::<F>() };
        self.add_init(Hook::Preload, std::any::type_name::<F>(), data, f)
    }

    /// Calls `f` in each new worker before its first job. If it panics, the call for which the
    /// worker was started fails with
    /// [`WorkerErrorKind::Init`](crate::worker::WorkerErrorKind::Init).
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
    ///     READY.store(true, Relaxed); // install a signal handler, warm a cache ..
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
    #[doc(alias = "initializer")]
    pub fn init<F>(self, f: F) -> Self
    where
        F: Fn() + Copy + Send + Sync + 'static,
    {
        const { assert_captures_nothing::<F>() };
        self.add_init(Hook::Init, std::any::type_name::<F>(), (), move |&()| f())
    }

    /// Calls `f` with a copy of `data` in each new worker before its first job, like
    /// [`init`](Self::init).
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
        D: ClosureData,
        F: Fn(&D) + Copy + Send + Sync + 'static,
    {
        const { assert_captures_nothing::<F>() };
        self.add_init(Hook::Init, std::any::type_name::<F>(), data, f)
    }

    /// Calls `f` in the worker after each job, once the result has been sent. The worker exits if
    /// `f` returns true. If `f` panics, the job's result is not affected, and the next call that
    /// would have used this worker fails with
    /// [`WorkerErrorKind::Retire`](crate::worker::WorkerErrorKind::Retire).
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::WorkerStatus;
    /// use seedbed::{WorkerConfig, open_worker_context};
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
        const { assert_captures_nothing::<F>() };
        let name = std::any::type_name::<F>();
        let code = Code::of_retire(move |&(), status: &WorkerStatus| f(status)).map(Code::offset);
        self.add(Hook::Retire, name, code, codec::encode(&()))
    }

    /// Calls `f` with a copy of `data` in the worker after each job, like [`retire`](Self::retire).
    /// The data is decoded once in each spawned worker, and once in the fork server for all
    /// [forked](crate::worker::WorkerType) ones.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::WorkerStatus;
    /// use seedbed::{WorkerConfig, open_worker_context};
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
        D: ClosureData,
        F: Fn(&D, &WorkerStatus) -> bool + Copy + Send + Sync + 'static,
    {
        const { assert_captures_nothing::<F>() };
        let name = std::any::type_name::<F>();
        self.add(
            Hook::Retire,
            name,
            Code::of_retire::<F, D>(f).map(Code::offset),
            codec::encode_owned(data),
        )
    }

    /// Runs each job in a worker process of its own, like [`retire_after(1)`](Self::retire_after).
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

    /// Lets a worker exit after this many jobs. Zero means one.
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
    #[doc(alias = "maxtasksperchild")]
    pub fn retire_after(mut self, jobs: u64) -> Self {
        self.counting += 1;
        self.most_jobs = self.most_jobs.min(jobs.max(1));
        self.retire_with(jobs, |most: &u64, worker: &WorkerStatus| {
            worker.jobs() >= *most
        })
    }

    /// Lets a worker exit if its resident memory exceeds this many bytes after a job. This bounds
    /// leaks that build up over several jobs. It does not limit a single job; see
    /// [`memory_limit`](Self::memory_limit).
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

    /// Lets a worker exit if a job has left threads running, which would go on during later jobs:
    /// they use CPU time and memory, and may hold locks. (A worker with a
    /// [`cpu_limit`](Self::cpu_limit) does so in any case.)
    ///
    /// A library that keeps a pool of threads leaves them after its first use, so each worker that
    /// uses it then runs one job.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn leave_a_thread(leave: bool) -> u32 {
    ///     if leave {
    ///         std::thread::spawn(|| loop { std::thread::park() });
    ///     }
    ///     std::process::id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().retire_with_threads();
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(leave_a_thread, false).await.unwrap();
    ///         assert_eq!(workers.run_sync(leave_a_thread, true).await.unwrap(), first);
    ///         assert_ne!(workers.run_sync(leave_a_thread, false).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn retire_with_threads(self) -> Self {
        self.retire(|worker: &WorkerStatus| worker.threads_left() > 0)
    }

    /// Adds a closure that is called with a copy of `data`. `F` captures nothing.
    fn add_init<D, F>(self, hook: Hook, closure: &'static str, data: D, f: F) -> Self
    where
        D: ClosureData,
        F: Fn(&D) + Copy + Send + Sync + 'static,
    {
        let code = Code::of_init::<F, D>(f).map(Code::offset);
        self.add(hook, closure, code, codec::encode_owned(data))
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
                Hook::Preload => self.preload.push(Closure { code, data }),
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
}
