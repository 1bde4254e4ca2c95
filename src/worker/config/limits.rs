//! What the workers of a context may use: memory, CPU time, descriptors, CPUs, stack.
//!
//! Each limit is one of the kernel's for a single process. Together they keep a job that explodes, spins or leaks from
//! harming anything but itself. They are no sandbox: code that is out to get around them starts another process.

use std::time::Duration;

use rustix::thread::CpuSet;

use super::{Fault, WorkerConfig};

/// A stack must have room for a panic's description.
const LEAST_STACK: usize = 64 << 10;

impl WorkerConfig {
    /// Limits the memory of each worker to so many bytes. An allocation beyond it fails; as most programs do not get
    /// over that, it usually aborts the worker, which is [`Broken`](crate::worker::WorkerErrorKind::Broken) with `SIGABRT` for
    /// that one call.
    ///
    /// What counts is all that only this process can write: the heap, the stacks of threads, private mappings, and what
    /// it had from the start, such as the program's own variables and whatever was [preloaded](Self::preload), be it
    /// shared with the fork server or not. So the limit is not relative to what a new worker has: with a table of 4 GiB
    /// preloaded, 5 GiB leave 1 GiB. Where a new worker has more than the limit already, the call fails with
    /// [`Start`](crate::worker::WorkerErrorKind::Start). What does not count: memory shared with other processes, files that
    /// are mapped to be read, and address space that is reserved and not yet writable, as runtimes with a garbage
    /// collector and WebAssembly take by the terabyte. This is the kernel's `RLIMIT_DATA` (`ulimit -d`). `RLIMIT_AS`
    /// (`ulimit -v`) counts those, too, and so stops programs that use little; who wants it sets it in an
    /// [`init`](Self::init) closure.
    ///
    /// It holds for each process by itself: a process that the job starts has a limit of its own, just as high. To cap
    /// what a whole service uses, there are control groups. See [`retire_above_memory`](Self::retire_above_memory) for
    /// leaks.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::WorkerErrorKind;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn zeros(count: usize) -> usize {
    ///     std::hint::black_box(vec![0_u8; count]).len()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().memory_limit(256 << 20).capture_stderr(true);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(zeros, 1 << 20).await.unwrap(), 1 << 20);
    ///         let error = workers.run_sync(zeros, 1 << 30).await.unwrap_err();
    ///         assert_eq!(error.kind(), WorkerErrorKind::Broken);
    ///         assert_eq!(error.exit().unwrap().signal_name(), Some("SIGABRT"));
    ///     }));
    /// }
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.limits.memory = Some(bytes);
        self
    }

    /// Limits the CPU time of each job: what all threads of the worker use together from the job's beginning to its
    /// end, waiting not included. A job that uses more gets `SIGXCPU`, which ends the worker:
    /// [`Broken`](crate::worker::WorkerErrorKind::Broken) for that one call. If the signal is blocked, ignored or handled,
    /// `SIGKILL` follows after one more second of CPU time.
    ///
    /// The clock begins anew with each job, however many its worker has done, which takes each job about two
    /// microseconds. It is as fine as the kernel's ticks, some milliseconds. The closures of the configuration are not
    /// limited, and neither is what the job starts as processes of its own. For time on the wall, there are deadlines:
    /// see [`kill_on_cancel`](crate::worker::RunSync::kill_on_cancel).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::worker::WorkerErrorKind;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn spin(_: ()) {
    ///     loop {
    ///         std::hint::spin_loop();
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().cpu_limit(Duration::from_millis(50));
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let error = workers.run_sync(spin, ()).await.unwrap_err();
    ///         assert_eq!(error.kind(), WorkerErrorKind::Broken);
    ///         assert_eq!(error.exit().unwrap().signal_name(), Some("SIGXCPU"));
    ///     }));
    /// }
    /// ```
    pub fn cpu_limit(mut self, time: Duration) -> Self {
        if time.is_zero() {
            let setting = format!("cpu_limit({time:?})");
            self.refuse(setting, "a job needs some time; the least is a nanosecond");
        }
        self.limits.cpu_time = Some(time);
        self
    }

    /// Lets the workers' jobs have no more than so many files, sockets and pipes open at once; with 0 they can open
    /// nothing. To open one more is the error `EMFILE`.
    ///
    /// What the worker has open when it comes up, the standard streams and its own socket among it, is not counted, but
    /// what an [`init`](Self::init) closure opens is. So is a descriptor that arrives with a job; the worker itself
    /// gets one for a moment, for memory through which calls go faster, and does without where there is no room for it.
    /// For processes that a job starts, the limit (`RLIMIT_NOFILE`) is the same number, of which their standard streams
    /// take three: with a small one they hardly come up.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn can_open(count: usize) -> bool {
    ///     let files: Result<Vec<File>, _> = (0..count).map(|_| File::open("/dev/null")).collect();
    ///     files.is_ok()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().open_file_limit(2);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert!(workers.run_sync(can_open, 2).await.unwrap());
    ///         assert!(!workers.run_sync(can_open, 3).await.unwrap());
    ///     }));
    /// }
    /// ```
    pub fn open_file_limit(mut self, count: u32) -> Self {
        self.limits.open_files = Some(count);
        self
    }

    /// Sets the niceness of the workers: from -20, which goes first, to 19, which lets all others go first. Only a
    /// privileged process may be less nice than it was. It is that of the thread that runs the jobs and of what that
    /// starts; threads that `main` started before the hook keep theirs.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn niceness(_: ()) -> i32 {
    ///     rustix::process::getpriority_process(None).unwrap()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().nice(19);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(niceness, ()).await.unwrap(), 19);
    ///     }));
    /// }
    /// ```
    pub fn nice(mut self, niceness: i32) -> Self {
        if !(-20..=19).contains(&niceness) {
            self.refuse(format!("nice({niceness})"), "niceness goes from -20 to 19");
        }
        self.limits.nice = Some(niceness);
        self
    }

    /// Lets the workers run on these CPUs only, counted from zero as the kernel does. All of them must be there and be
    /// allowed to the program. As with [`nice`](Self::nice), it is the thread that runs the jobs, and what that starts,
    /// that stays there.
    ///
    /// # Examples
    ///
    /// ```
    /// use rustix::thread::sched_getaffinity;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn cpus(_: ()) -> u32 {
    ///     sched_getaffinity(None).unwrap().count()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let mine = sched_getaffinity(None).unwrap();
    ///     let one = (0..1024).find(|&cpu| mine.is_set(cpu)).unwrap();
    ///     let config = WorkerConfig::new().cpu_affinity([one]);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(cpus, ()).await.unwrap(), 1);
    ///     }));
    /// }
    /// ```
    pub fn cpu_affinity(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        let cpus: Vec<usize> = cpus.into_iter().collect();
        let setting = || format!("cpu_affinity({cpus:?})");
        if cpus.is_empty() {
            self.refuse(setting(), "a worker needs a CPU to run on; name one");
        } else if cpus.iter().any(|&cpu| cpu >= CpuSet::MAX_CPU) {
            let words = format!("CPUs are numbered from 0 to {}", CpuSet::MAX_CPU - 1);
            self.refuse(setting(), words);
        }
        self.limits.cpus = Some(cpus);
        self
    }

    /// Gives jobs, and `init` and `retire` closures, a stack of so many bytes, at least 64 KiB, instead of the one that
    /// their thread has. They stay on that thread.
    ///
    /// The memory is taken when the worker comes up, and a page of it is used once it is written to. Beyond its end
    /// there is a page that may not be touched: a job that needs more ends its worker, which is
    /// [`Broken`](crate::worker::WorkerErrorKind::Broken) with `SIGSEGV`; unlike on a thread's own stack, the runtime of Rust
    /// has no words for it. What asks the C library for the bounds of the thread's stack, as conservative garbage
    /// collectors do, gets those of the other one; the crate `stacker`, and what grows its stack by it, knows the right
    /// ones.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn sum_to(n: u64) -> u64 {
    ///     let room = std::hint::black_box([n; 32]); // 256 bytes and more in each call
    ///     if n == 0 { 0 } else { room[7] + sum_to(n - 1) }
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().stack_size(256 << 20);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(sum_to, 100_000).await.unwrap(), 5_000_050_000);
    ///     }));
    /// }
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        if bytes < LEAST_STACK {
            let words = format!("the least is {LEAST_STACK} bytes");
            self.refuse(format!("stack_size({bytes})"), words);
        }
        self.limits.stack = Some(bytes);
        self
    }

    /// Notes that a setting cannot be used.
    pub(in crate::worker) fn refuse(&mut self, setting: String, words: impl Into<String>) {
        self.set_fault(Fault::Unusable {
            setting,
            words: words.into(),
        });
    }
}
