//! `run_process`: the limits of a process.

use super::call::RunProcess;

impl RunProcess {
    /// Restricts the process, and those that it starts, to these CPUs, which are numbered from zero
    /// as the kernel numbers them. At least one of them must be allowed to this program. If not, or
    /// if there is none, the call fails with [`Start`](super::ProcessErrorKind::Start).
    ///
    /// ```
    /// use rustix::thread::sched_getaffinity;
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let mine = sched_getaffinity(None).unwrap();
    ///     let one = (0..1024).find(|&cpu| mine.is_set(cpu)).unwrap();
    ///     let output = run_process(Command::new("nproc")).cpu_affinity([one]).capture_stdout(true).await.unwrap();
    ///     assert_eq!(output.stdout, b"1\n");
    /// });
    /// ```
    #[doc(alias = "taskset")]
    pub fn cpu_affinity(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.0.cpus = Some(cpus.into_iter().collect());
        self
    }

    /// Limits the private memory of the process, in bytes: its heap, stacks of threads, writable
    /// private mappings and static variables. A program whose allocation fails says so in its own
    /// way, most often by an exit code. One that does not even start within the limit is killed.
    ///
    /// This is the kernel's `RLIMIT_DATA` (`ulimit -d`). Each process that the program starts has
    /// the same limit of its own.
    ///
    /// ```
    /// use seedbed::process::{Command, ProcessErrorKind, run_process};
    ///
    /// seedbed::run(async {
    ///     // Takes memory for a line that never ends.
    ///     let mut command = Command::new("sh");
    ///     command.args(["-c", "tr '\\0' a < /dev/zero | sort 2>&1"]);
    ///     let sort = run_process(command).memory_limit(64 << 20).capture_stdout(true).kill_tree(true);
    ///     let error = sort.await.unwrap_err();
    ///     assert_eq!(error.kind(), ProcessErrorKind::Failed);
    /// });
    /// ```
    #[doc(alias = "ulimit")]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.0.memory_limit = Some(bytes);
        self
    }
}
