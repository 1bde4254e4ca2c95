//! The resource limits of workers: memory, CPU time, descriptors, CPUs, stack.
//!
//! The kernel enforces each limit for a single process. Together they confine a job that allocates
//! too much, spins or leaks. They are no sandbox: malicious code evades them by starting another
//! process.

#[cfg(feature = "stack_size")]
use crate::worker::tuning::MIN_STACK_BYTES;
use std::time::Duration;

use rustix::thread::CpuSet;

use super::worker_config::{Fault, WorkerConfig};

impl WorkerConfig {
    /// Limits the private memory of each worker, in bytes. An allocation beyond the limit fails.
    /// Most programs abort then, so the call ends with
    /// [`Broken`](crate::worker::WorkerErrorKind::Broken), `SIGABRT` and the cause
    /// [`OutOfMemory`](crate::worker::ExitCause::OutOfMemory). Other calls are not
    /// affected.
    ///
    /// The limit counts all memory that only this process can write: the heap, the stacks of
    /// threads, private mappings, the program's static variables, and data that was
    /// [preloaded](Self::preload), even while the fork server shares it. So the limit is absolute:
    /// if a table of 4 GiB is preloaded, a limit of 5 GiB leaves 1 GiB. If a new worker already
    /// uses more than the limit, the call fails with
    /// [`Start`](crate::worker::WorkerErrorKind::Start).
    ///
    /// Shared memory, read-only file mappings and address space that is reserved but not writable
    /// do not count. (Garbage collectors and WebAssembly runtimes reserve terabytes of it.) This is
    /// the kernel's `RLIMIT_DATA` (`ulimit -d`). `RLIMIT_AS` (`ulimit -v`) also counts reserved
    /// address space; set it in an [`init`](Self::init) closure if you need it.
    ///
    /// Without a limit, a job that takes all memory is a case for the kernel's OOM killer. Workers
    /// volunteer to it: see [`oom_score_adj`](Self::oom_score_adj).
    ///
    /// The limit applies to each process separately: a process that the job starts has the same
    /// limit of its own. Use a control group to cap a whole service, and
    /// [`retire_above_memory`](Self::retire_above_memory) against leaks.
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

    /// Limits the CPU time of each job: the time that all threads of the worker run between the
    /// start and the end of the job. Time spent waiting does not count. `SIGXCPU` ends the worker
    /// of a job that exceeds the limit, and the call ends with
    /// [`Broken`](crate::worker::WorkerErrorKind::Broken). If the signal is blocked, ignored or
    /// handled, `SIGKILL` follows after one more second of CPU time.
    ///
    /// The time is counted anew for each job, which costs each job about three microseconds. Its
    /// resolution is the kernel's tick, a few milliseconds. A worker retires after a job that has
    /// left threads running, because they would use up the time of later jobs. The closures of the
    /// configuration are not limited, nor are processes that the job starts. For wall-clock time,
    /// use a deadline with [`kill_on_cancel`](crate::worker::RunSync::kill_on_cancel).
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
            self.refuse(
                setting,
                "a job needs some time; the minimum is a nanosecond",
            );
        }
        self.limits.cpu_time = Some(time);
        self
    }

    /// Limits how many files, sockets and pipes the jobs of a worker have open at the same time.
    /// With 0 they can open none. Opening one more fails with `EMFILE`.
    ///
    /// Descriptors that the worker has when it starts do not count, such as the standard streams
    /// and its socket. Descriptors that an [`init`](Self::init) closure opens or that arrive with a
    /// job do count. The worker itself briefly needs one for the shared memory that makes calls
    /// faster, and does without that memory if the limit forbids it.
    ///
    /// A process that a job starts inherits the limit (`RLIMIT_NOFILE`), and its standard streams
    /// take three. With a small limit it may fail to start.
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

    /// Sets the niceness of the workers, from -20 (highest priority) to 19 (lowest priority).
    /// Lowering the niceness needs privileges. The setting applies to the thread that runs the
    /// jobs, and to threads and processes that it starts. Threads that `main` started before the
    /// hook keep their niceness.
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

    /// Sets the workers' adjustment of the OOM killer's score, from -1000 (never killed) to 1000
    /// (killed first). Only a privileged process may lower it. Processes that jobs start inherit
    /// it.
    ///
    /// When memory runs out, in the whole system or in a control group, the kernel kills the
    /// process with the highest score: its memory in thousandths of all memory, and the adjustment.
    /// Without this setting, a worker has 1000, so that the kernel always kills a worker before
    /// this program, even if this program has nearly all memory. It then also kills workers before
    /// other large processes of the system; `oom_score_adj(500)` is a compromise. The call ends
    /// with [`Broken`](crate::worker::WorkerErrorKind::Broken) and `SIGKILL`.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn adjustment(_: ()) -> i32 {
    ///     let text = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    ///     text.trim().parse().unwrap()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     smol::block_on(async {
    ///         open_worker_context(WorkerConfig::new(), |workers| async move {
    ///             assert_eq!(workers.run_sync(adjustment, ()).await.unwrap(), 1000);
    ///         })
    ///         .await;
    ///         let config = WorkerConfig::new().oom_score_adj(900);
    ///         open_worker_context(config, |workers| async move {
    ///             assert_eq!(workers.run_sync(adjustment, ()).await.unwrap(), 900);
    ///         })
    ///         .await;
    ///     });
    /// }
    /// ```
    pub fn oom_score_adj(mut self, adjustment: i32) -> Self {
        if !(-1000..=1000).contains(&adjustment) {
            let words = "the adjustment goes from -1000 to 1000";
            self.refuse(format!("oom_score_adj({adjustment})"), words);
        }
        self.limits.oom_score_adj = Some(adjustment);
        self
    }

    /// Restricts the workers to these CPUs, which are numbered from zero as the kernel numbers
    /// them. Each of them must exist and be allowed to this program. Like [`nice`](Self::nice), the
    /// setting applies to the thread that runs the jobs, and to threads and processes that it
    /// starts. Libraries that make a pool of threads, such as rayon, make one thread for each of
    /// these CPUs, in each worker.
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

    /// Runs jobs, and `init` and `retire` closures, on a stack of this size in bytes, at least 64
    /// KiB. They still run on the worker's main thread. Needs the cargo feature `stack_size`, and
    /// with it a C compiler.
    ///
    /// The worker maps the stack when it starts, and a page takes memory once it is written. A
    /// guard page lies below: a job that needs more stack ends its worker, and the call ends with
    /// [`Broken`](crate::worker::WorkerErrorKind::Broken), `SIGSEGV` and the cause
    /// [`StackOverflow`](crate::worker::ExitCause::StackOverflow). Rust prints no message about a
    /// stack overflow in this case. The crate `stacker` knows the bounds of this stack. The
    /// C library reports those of the thread's original stack, which matters to conservative
    /// garbage collectors.
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
    #[cfg(feature = "stack_size")]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        if bytes < MIN_STACK_BYTES {
            let words = format!("the minimum is {MIN_STACK_BYTES} bytes");
            self.refuse(format!("stack_size({bytes})"), words);
        }
        self.limits.stack = Some(bytes);
        self
    }

    /// Marks a setting as unusable. [`check`](Self::check) reports the first one.
    pub(in crate::worker) fn refuse(&mut self, setting: String, words: impl Into<String>) {
        self.set_fault(Fault::Unusable {
            setting,
            words: words.into(),
        });
    }
}
