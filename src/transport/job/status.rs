//! What a worker knows of itself, for retire closures to decide by.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// A worker's account of itself, given to retire closures after each job.
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
    /// The kernel's account of this process's memory, if there may be no room to open it when it is asked for.
    kept: Option<File>,
}

/// The kernel's account of this process's memory, in pages.
const ACCOUNT: &str = "/proc/self/statm";

impl WorkerStatus {
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            jobs: 0,
            started,
            kept: None,
        }
    }

    /// Keeps open what the memory is read from.
    pub(crate) fn keep_memory_open(&mut self) {
        self.kept = File::open(ACCOUNT).ok(); // what is not to be had now will not be later, either
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

    /// Returns how many bytes of memory the worker holds at this moment (its resident set), or 0 where the kernel does
    /// not tell because `/proc` is not mounted. Read anew by each call.
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
        let mut numbers = [0; 256]; // seven of them, of twenty digits at most
        let read = match &self.kept {
            Some(account) => account.read_at(&mut numbers, 0),
            None => File::open(ACCOUNT).and_then(|account| account.read_at(&mut numbers, 0)),
        };
        let pages = read
            .ok()
            .and_then(|length| resident_pages(std::str::from_utf8(&numbers[..length]).ok()?));
        pages.unwrap_or(0) * rustix::param::page_size() as u64
    }

    /// Returns how long ago the worker came up.
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
    fn memory_grows_with_what_is_touched() {
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
    fn memory_is_read_anew_from_what_is_kept_open() {
        let mut status = WorkerStatus::new(Instant::now());
        status.keep_memory_open();
        let before = status.memory();
        // Other tests of this process let go of memory meanwhile, but not for ever.
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
