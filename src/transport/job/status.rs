//! The status of a worker, by which retire closures decide.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::sys::thread;

/// The status of a worker, passed to retire closures after each job.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use seedbed::WorkerConfig;
/// use seedbed::worker::WorkerStatus;
///
/// fn past_its_prime(worker: &WorkerStatus) -> bool {
///     assert!(worker.jobs() > 0);
///     worker.age() > Duration::from_secs(3600) || worker.memory() > 1 << 30
/// }
/// let config = WorkerConfig::new().retire(past_its_prime);
/// # drop(config);
/// ```
pub struct WorkerStatus {
    jobs: u64,
    started: Instant,
    /// The open file with the memory use, if a later call might not be able to open it.
    kept: Option<File>,
}

/// The file with the memory use of this process, in pages.
const ACCOUNT: &str = "/proc/self/statm";

impl WorkerStatus {
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            jobs: 0,
            started,
            kept: None,
        }
    }

    /// Keeps the file with the memory use open.
    pub(crate) fn keep_memory_open(&mut self) {
        self.kept = File::open(ACCOUNT).ok(); // if it cannot be opened now, it cannot later
    }

    pub(crate) fn count_job(&mut self) {
        self.jobs += 1;
    }

    /// Returns how many jobs the worker has answered, the present one included.
    ///
    /// ```
    /// use seedbed::worker::WorkerStatus;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn has_done_two(worker: &WorkerStatus) -> bool {
    ///     worker.jobs() == 2
    /// }
    ///
    /// fn pid(_: ()) -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().retire(has_done_two);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///         assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn jobs(&self) -> u64 {
        self.jobs
    }

    /// Returns the current resident set of the worker in bytes, or 0 if `/proc` is not mounted.
    /// Each call reads it again.
    ///
    /// ```
    /// use seedbed::worker::WorkerStatus;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn holds_something(worker: &WorkerStatus) -> bool {
    ///     worker.memory() > 0
    /// }
    ///
    /// fn pid(_: ()) -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().retire(holds_something);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         assert_ne!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn memory(&self) -> u64 {
        let mut numbers = [0; 256]; // the file has seven numbers of at most twenty digits
        let read = match &self.kept {
            Some(account) => account.read_at(&mut numbers, 0),
            None => File::open(ACCOUNT).and_then(|account| account.read_at(&mut numbers, 0)),
        };
        let pages = read
            .ok()
            .and_then(|length| resident_pages(std::str::from_utf8(&numbers[..length]).ok()?));
        pages.unwrap_or(0) * rustix::param::page_size() as u64
    }

    /// Returns how many threads the worker has in addition to those that it had before its first
    /// job: threads that jobs have started and that have not ended. 0 if `/proc` is not mounted.
    /// Each call counts them again.
    ///
    /// ```
    /// use seedbed::worker::WorkerStatus;
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
    ///     let config = WorkerConfig::new().retire(|worker: &WorkerStatus| worker.threads_left() > 0);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(leave_a_thread, false).await.unwrap();
    ///         assert_eq!(workers.run_sync(leave_a_thread, true).await.unwrap(), first);
    ///         assert_ne!(workers.run_sync(leave_a_thread, false).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn threads_left(&self) -> usize {
        thread::count_above_baseline()
    }

    /// Returns the time since the worker started.
    ///
    /// ```
    /// use seedbed::worker::WorkerStatus;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn is_of_yesterday(worker: &WorkerStatus) -> bool {
    ///     worker.age().as_secs() > 24 * 3600
    /// }
    ///
    /// fn pid(_: ()) -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().retire(is_of_yesterday);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

impl fmt::Debug for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerStatus")
            .field("jobs", &self.jobs)
            .field("memory", &self.memory())
            .field("threads_left", &self.threads_left())
            .field("age", &self.age())
            .finish()
    }
}

/// The second number of `/proc/self/statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_when_pages_are_touched() {
        let status = WorkerStatus::new(Instant::now());
        let before = status.memory();
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(
            status.memory() >= before + (32 << 20),
            "{before} before, {} after",
            status.memory()
        );
        drop(held);
    }

    #[test]
    fn memory_is_read_again_from_the_file_that_is_kept_open() {
        let mut status = WorkerStatus::new(Instant::now());
        status.keep_memory_open();
        let before = status.memory();
        // Other tests of this process free memory at the same time, so this may take several
        // attempts.
        let mut held = Vec::new();
        while status.memory() < before + (32 << 20) {
            assert!(held.len() < 64, "the reading does not follow");
            held.push(std::hint::black_box(vec![1u8; 32 << 20]));
        }
    }

    #[test]
    fn a_text_that_is_no_statm_gives_nothing() {
        assert_eq!(resident_pages("100 42 7 1 0 9 0\n"), Some(42));
        assert_eq!(resident_pages(""), None);
        assert_eq!(resident_pages("1 many"), None);
    }
}
