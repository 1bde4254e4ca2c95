//! Jobs whose results are kept for later runs.

use std::any::type_name;
use std::sync::Arc;

use super::callable::{Callable, Portable};
use super::handle::Jobs;
use super::record::{Ended, Record};
use crate::delayed::cache::{KeptResult, claim};
use crate::delayed::value::awaiter::JobId;
use crate::thread;

impl<'env> Jobs<'env> {
    /// Keeps the values of [`call`](Self::call) and [`then`](Self::then) in files, from which later
    /// runs take them. (Grain's `load_cache_or_exec1`.)
    ///
    /// A value is found by `key`, the name of the function, and the argument with its type. So one
    /// handle serves calls with many arguments. The code of the function is not compared: `key`
    /// names its version, and **is changed when the function would compute another value**.
    /// `jobs.cached("simulate-2")` leaves the values of `"simulate-1"` where they are.
    ///
    /// # Files
    ///
    /// Each value has a file in the [folder](crate::delayed::Setup::cache_folder) of the block,
    /// whose name begins with the key; deleting it deletes the value. A file is written under
    /// another name (`.new`), and renamed when it is on the disk, so a reader sees a whole file or
    /// none. Two programs, also on two machines, may use a folder at once: both run a job that
    /// neither has kept, and the file of the second replaces that of the first. A program that is
    /// killed while it writes may leave its `.new` file, which no run reads; delete it when no
    /// program uses the folder.
    ///
    /// A file that is torn, or whose value has another type than the function returns, is not used:
    /// a `tracing` event at WARN names the file and the reason, the job runs, and its value
    /// replaces the file. Types are compared by their names, and by the names, the order and the
    /// kinds of their fields and variants; only an exchange of kinds of numbers between fields that
    /// keep their names is not noticed. If a file cannot be written, a `tracing` event says so, and
    /// the value is returned.
    ///
    /// A version of this crate that encodes values in another way computes other names for the same
    /// jobs: it neither opens, reports nor replaces the files of the earlier version, which stay
    /// until they are deleted. A file of another format that has the name all the same is treated
    /// like a torn one.
    ///
    /// # What is kept
    ///
    /// Only values of jobs that succeed. A value that is found needs neither a worker nor
    /// resources, and counts as [`cached`](crate::delayed::Statistics::cached) in the statistics. A
    /// job enters the queue when its value was not found. An argument whose encoding differs each
    /// time, such as a `HashMap`, is not found again; use a `BTreeMap`. Futures and programs are
    /// not kept, as they depend on more than an argument.
    ///
    /// # Cancellation
    ///
    /// Cancelling the block waits until a file that is being read or written is complete.
    ///
    /// # Panics
    ///
    /// `call` and `then` panic if two functions of the same name use the key in this program. Two
    /// closures in one function have the same name.
    ///
    /// ```
    /// use seedbed::delayed::{Setup, open};
    ///
    /// fn simulate(seed: u64, steps: u32) -> f64 {
    ///     f64::from(steps) / (seed + 1) as f64
    /// }
    ///
    /// fn main() {
    ///     # let folder = tempfile::tempdir().unwrap();
    ///     # let folder = folder.path();
    ///     let study = || async {
    ///         open(Setup::local().cache_folder(folder), async |jobs| {
    ///             let kept = jobs.cached("simulate-1");
    ///             let sum = kept.call(simulate, (1, 10)) + kept.call(simulate, (3, 10));
    ///             (sum.await.unwrap(), jobs.statistics().cached)
    ///         })
    ///         .await
    ///     };
    ///     seedbed::run(async {
    ///         assert_eq!(study().await, (7.5, 0));
    ///         assert_eq!(study().await, (7.5, 2));
    ///     });
    /// }
    /// ```
    #[doc(alias = "load_cache_or_exec1")]
    #[doc(alias = "memoize")]
    pub fn cached(&self, key: impl Into<Arc<str>>) -> Self {
        let key = key.into();
        self.with(|options| options.cache_key = Some(key))
    }

    /// Returns the key under which the values of `F` are kept, if they are.
    #[track_caller]
    pub(super) fn claim_cache_key<F: 'static>(&self) -> Option<Arc<str>> {
        let key = self.options.cache_key.clone()?;
        claim::<F>(&key);
        Some(key)
    }

    /// Returns the kept value of a job, or runs the job and keeps its value. Arguments are encoded
    /// for their keys, and files read and written, in threads, because both may take long.
    pub(super) async fn run_cached<F, A, M>(
        self,
        key: Arc<str>,
        record: Record,
        (id, f, argument): (JobId, F, A),
    ) -> Ended<F::Value>
    where
        F: Callable<A, M>,
        A: Portable,
        F::Value: Portable,
    {
        let name = type_name::<F>();
        let folder = self.pool.cache_folder.clone();
        let looked_up = thread::run_sync(move || {
            let kept = KeptResult::new(&folder, &key, name, &argument);
            let kept = kept.map(|kept| (kept.read::<F::Value>(), kept));
            (argument, kept)
        });
        let (argument, kept) = looked_up.await;
        let kept = match kept {
            Ok((Ok(Some(value)), _)) => {
                return record.end_cached(value);
            }
            Ok((Ok(None), kept)) => Some(kept),
            Ok((Err(reason), kept)) => {
                let file = kept.path().display();
                tracing::warn!(%file, reason, "a kept result is not used, and the job runs");
                Some(kept)
            }
            Err(error) => {
                tracing::warn!(job = name, %error, "a result is not kept, because the job's argument cannot be part of a key");
                None
            }
        };
        let (result, cost) = self.run_call::<F, A, M>(record, (id, f, argument)).await;
        let (value, kept) = match (result, kept) {
            (Ok(value), Some(kept)) => (value, kept),
            (result, _) => return (result, cost),
        };
        let written = thread::run_sync(move || (kept.write(&value), value, kept));
        let (written, value, kept) = written.await;
        if let Err(reason) = written {
            let file = kept.path().display();
            tracing::warn!(%file, reason, "the result of a job cannot be kept");
        }
        (Ok(value), cost)
    }
}
