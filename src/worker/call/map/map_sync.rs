//! The public API of maps: `map_sync`, and the builder that it returns.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use futures_lite::StreamExt;

use super::block;
use super::block::Delivered;
use super::driver::Driver;
use super::order::{MapOrder, MapOrdered, MapUnordered};
use super::plan::{MapCode, Plan, Settings};
use super::results::{MapResults, Outlet};
use super::source::{MapItems, MapSource};
use crate::cancel::checkpoint_if_cancelled;
use crate::sync::CapacityLimiter;
use crate::sys::fork_detector::is_forked_copy;
use crate::sys::role::{has_reached_hook, refuse_unless_hooked};
use crate::transport::job::code::{Code, assert_captures_nothing};
use crate::worker::call::limiter::current_default_worker_limiter;
use crate::worker::data::{Argument, JobResult};
use crate::worker::error::WorkerError;
use crate::worker::pool::context::WorkerContext;
use crate::worker::pool::current::current;
use crate::worker::tuning::MAP_MOST_RESERVED;

/// Calls `f` with each of many items, in several worker processes at once.
///
/// `f` is a function as for [`run_sync`](crate::run_sync()), and items and results are values as
/// its argument and result. `items` is an iterator or a stream ([`MapItems`]), which may be endless
/// and may borrow. The map does nothing before it is used up by one of
/// [`collect`](MapSync::collect), [`try_collect`](MapSync::try_collect),
/// [`for_each`](MapSync::for_each) and [`open`](MapSync::open). When one of these returns, nothing
/// of the map runs any more.
///
/// # Chunks
///
/// Workers get items in chunks, and have the next chunk before they have finished one. Chunks
/// size themselves so that each takes about a millisecond, from what items really take, unless
/// [`chunk`](MapSync::chunk) sets their size. Towards the end they get smaller, and a worker
/// without items takes over some of another's that have not begun. A result is delivered when it is
/// made, whatever becomes of the rest of its chunk. (If items take less than 5 µs, up to 100 µs of
/// results are delivered together.)
///
/// Items are pulled only as fast as results are taken. At most a *window* of items has been pulled
/// without its result being taken: for each worker, that is four chunks, but at least 16 and at
/// most 16,384 items. Within it, workers do not wait for the code that takes the results. (An
/// ordered map holds the results that come before their turn, so an item that takes very long
/// delays the others after a window.)
///
/// # Workers
///
/// The map uses as many workers at a time as its [limiter](MapSync::limiter) has tokens, which is
/// by default one for each processor, and holds a token for each. It gives a worker and its token
/// back when it has no items for it, and soon after another call waits for a token. The
/// [statistics](crate::worker::WorkerStatistics) count each such hand-over as one call.
///
/// An item or result of more than 16 KiB, or with [shared memory](crate::worker::SharedBytes), a
/// [file](crate::worker::Descriptor) or a side of a [channel](crate::worker::channel()) in it, is
/// sent as that of a call is, with a hand-over of its own. If the context has
/// [`retire`](crate::WorkerConfig::retire) closures or limits for each job
/// ([CPU time](crate::WorkerConfig::cpu_limit), [open
/// files](crate::WorkerConfig::open_file_limit)), every item is a job of its own.
///
/// # Cancellation
///
/// If cancelled before it has begun, nothing has happened: entry is always a cancel point. After
/// that no further item begins. By default, the map waits for the items in progress, one for each
/// worker; their results are lost. With [`kill_on_cancel(true)`](MapSync::kill_on_cancel), their
/// workers are killed, and the cancellation completes when they have been reaped. A map also ends
/// like this if the code that takes the results ends early or panics; a panic is resumed
/// afterwards.
///
/// If the future is dropped from outside (by a foreign `select!`, for example), no further item
/// begins. Killable workers are killed, and reaped in the background; others finish the item in
/// progress in the background.
///
/// # Errors
///
/// Each item has a result of its own. A panic of `f`, a value that cannot be encoded, the end of a
/// worker or a [time limit](MapSync::time_limit) are the error of the item that they struck, and of
/// no other: results that were made are delivered, and items that have not begun are run by other
/// workers. No item is run twice, unless [`retry`](MapSync::retry) asks for it. A worker that
/// cannot be started is the error of one item, too. [`WorkerError::item`] is the index of the item.
///
/// # Examples
///
/// ```
/// use seedbed::map_sync;
///
/// fn is_prime(n: u64) -> bool {
///     n > 1 && (2..n).all(|d| n % d != 0)
/// }
///
/// fn main() {
///     seedbed::init(); // in a worker process, serves jobs and does not return
///     let primes = smol::block_on(map_sync(is_prime, 90..100).try_collect()).unwrap();
///     assert_eq!(primes.iter().filter(|prime| **prime).count(), 1);
/// }
/// ```
#[doc(alias = "imap")]
#[doc(alias = "parallel_map")]
#[doc(alias = "executor.map")]
pub fn map_sync<'a, F, A, R, I, How>(f: F, items: I) -> MapSync<'a, A, R>
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static, // one argument: use a tuple for several
    A: Argument,
    R: JobResult,
    I: MapItems<'a, A, How>,
{
    const { assert_captures_nothing::<F>() };
    MapSync::new(f, items.into_source(), None)
}

/// Calls of a function with many items, made by [`map_sync`] or [`WorkerContext::map_sync`], to be
/// used up by one of its last four methods.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use seedbed::map_sync;
///
/// fn length(word: String) -> usize {
///     word.len()
/// }
///
/// fn main() {
///     seedbed::init();
///     let words = ["mandrake", "nettle"].map(String::from);
///     let map = map_sync(length, words).time_limit(Duration::from_secs(5)).kill_on_cancel(true);
///     assert_eq!(smol::block_on(map.try_collect()).unwrap(), [8, 6]);
/// }
/// ```
#[must_use = "a map does nothing unless it is used up by `collect`, `try_collect`, `for_each` or `open`"]
pub struct MapSync<'a, A, R, O = MapOrdered> {
    settings: Settings,
    source: MapSource<'a, A>,
    kind: PhantomData<fn(A) -> (R, O)>,
}

impl<'a, A: Argument, R: JobResult> MapSync<'a, A, R> {
    fn new<F>(f: F, source: MapSource<'a, A>, context: Option<WorkerContext>) -> Self
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
    {
        let code = Code::of_map(f).zip(Code::of_job(f));
        Self {
            settings: Settings {
                job_name: std::any::type_name::<F>(),
                code: code.map(|(session, single)| MapCode { session, single }),
                context,
                limiter: None,
                chunk: None,
                kill_on_cancel: false,
                time_limit: None,
                retries: 0,
            },
            source,
            kind: PhantomData,
        }
    }
}

impl<'a, A, R, O> MapSync<'a, A, R, O> {
    fn with_order<P>(self) -> MapSync<'a, A, R, P> {
        MapSync {
            settings: self.settings,
            source: self.source,
            kind: PhantomData,
        }
    }

    /// Delivers the results in the order of their items, which is the default.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::map_sync;
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let map = map_sync(|n: u32| n * n, 1..=3).ordered();
    ///     assert_eq!(smol::block_on(map.try_collect()).unwrap(), [1, 4, 9]);
    /// }
    /// ```
    pub fn ordered(self) -> MapSync<'a, A, R> {
        self.with_order()
    }

    /// Delivers the results as soon as they are made, each with the index of its item.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::map_sync;
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let map = map_sync(|n: u32| n * n, 1..=3).unordered();
    ///     let mut squares = smol::block_on(map.try_collect()).unwrap();
    ///     squares.sort();
    ///     assert_eq!(squares, [(0, 1), (1, 4), (2, 9)]);
    /// }
    /// ```
    pub fn unordered(self) -> MapSync<'a, A, R, MapUnordered> {
        self.with_order()
    }

    /// Sets how many items a worker is given at a time. Without it, chunks size themselves.
    ///
    /// Workers then take over no items from each other. A chunk is shorter if its items do not
    /// fit into 32 KiB, if the window has no room for more, if a stream has no more items at the
    /// time, and at the end.
    ///
    /// # Panics
    ///
    /// If `items` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::map_sync;
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let map = map_sync(i32::abs, -5..0).chunk(2);
    ///     assert_eq!(smol::block_on(map.try_collect()).unwrap(), [5, 4, 3, 2, 1]);
    /// }
    /// ```
    pub fn chunk(mut self, items: usize) -> Self {
        assert!(items > 0, "a chunk of a map has at least one item");
        self.settings.chunk = Some(items);
        self
    }

    /// Takes a token of `limiter` for each worker that the map uses. So the map uses at most as
    /// many workers as the limiter has tokens. Without this, the limiter is that of the
    /// [context](crate::WorkerConfig::limiter) or the [default
    /// one](crate::worker::current_default_worker_limiter).
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{CapacityLimiter, map_sync};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let one_worker = CapacityLimiter::new(1);
    ///     let map = map_sync(i32::abs, -5..0).limiter(&one_worker);
    ///     assert_eq!(smol::block_on(map.try_collect()).unwrap().len(), 5);
    ///     assert_eq!(one_worker.borrowed(), 0);
    /// }
    /// ```
    pub fn limiter(mut self, limiter: &CapacityLimiter) -> Self {
        self.settings.limiter = Some(limiter.clone());
        self
    }

    /// Sets whether workers in the middle of an item are killed when the map is cancelled, or is
    /// left early. By default, their items run to the end, and the map waits for that.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{map_sync, move_on_after};
    ///
    /// fn spin_forever(_: u32) {
    ///     loop {
    ///         std::hint::spin_loop();
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let map = map_sync(spin_forever, 0..).kill_on_cancel(true);
    ///     let outcome = smol::block_on(move_on_after(Duration::from_millis(50), map.collect()));
    ///     assert!(outcome.is_none()); // and no process is left
    /// }
    /// ```
    pub fn kill_on_cancel(mut self, kill: bool) -> Self {
        self.settings.kill_on_cancel = kill;
        self
    }

    /// Limits the time that each item may take. When an item exceeds it, its worker is killed and
    /// reaped, and the item's error is of the kind
    /// [`TimedOut`](crate::worker::WorkerErrorKind::TimedOut).
    ///
    /// The time counts from the item's beginning in the worker until its function has returned. It
    /// is real time, also in a run with a virtual clock. An item that ended in
    /// time has its result, even if this process learns of it after the limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::map_sync;
    /// use seedbed::worker::WorkerErrorKind;
    ///
    /// fn sleep(time: Duration) {
    ///     std::thread::sleep(time)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let times = [0, 3_600_000, 0].map(Duration::from_millis);
    ///     let map = map_sync(sleep, times).time_limit(Duration::from_millis(100));
    ///     let results = smol::block_on(map.collect());
    ///     let error = results[1].as_ref().unwrap_err();
    ///     assert_eq!((error.kind(), error.item()), (WorkerErrorKind::TimedOut, Some(1)));
    ///     assert!(results[0].is_ok() && results[2].is_ok());
    /// }
    /// ```
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.settings.time_limit = Some(limit);
        self
    }

    /// Runs an item up to `times` more times if its worker ends in the middle of it, by a crash or
    /// at the [time limit](MapSync::time_limit). Without this, no item is run twice. It is not
    /// known how far an item had come, so use it for functions that may run twice without harm. An
    /// item that panics is not run again, and neither is an item with a side of a
    /// [channel](crate::worker::channel()) in it, because the worker has taken the side with it.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::map_sync;
    ///
    /// fn crash_once(marker: std::path::PathBuf) {
    ///     if !marker.exists() {
    ///         std::fs::write(marker, "").unwrap();
    ///         std::process::abort();
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let name = format!("seedbed-retry-{}", std::process::id());
    ///     let marker = std::env::temp_dir().join(name);
    ///     let map = map_sync(crash_once, [marker.clone()]).retry(1);
    ///     assert!(smol::block_on(map.try_collect()).is_ok());
    ///     std::fs::remove_file(marker).unwrap();
    /// }
    /// ```
    pub fn retry(mut self, times: u32) -> Self {
        self.settings.retries = times;
        self
    }
}

impl<A: Argument, R: JobResult, O: MapOrder> MapSync<'_, A, R, O> {
    /// Waits for all items, and returns their results.
    ///
    /// # Cancellation
    ///
    /// The map is cancelled as [`map_sync`] says; the results are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::map_sync;
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let results = smol::block_on(map_sync(|n: u32| 12 / n, [3, 0, 4]).collect());
    ///     assert_eq!(results[0].as_ref().unwrap(), &4);
    ///     assert_eq!(results[1].as_ref().unwrap_err().item(), Some(1));
    ///     assert_eq!(results[2].as_ref().unwrap(), &3);
    /// }
    /// ```
    pub async fn collect(self) -> Vec<Delivered<R, O>> {
        let known = self.source.left().unwrap_or(0);
        self.open(async move |mut results| {
            let mut all = Vec::with_capacity(known.min(MAP_MOST_RESERVED));
            while let Some(result) = results.next().await {
                all.push(result);
            }
            all
        })
        .await
    }

    /// Waits for all items, and returns their values, or the first error. After an error, no
    /// further item begins.
    ///
    /// # Cancellation
    ///
    /// The map is cancelled as [`map_sync`] says; the results are lost.
    ///
    /// # Errors
    ///
    /// The error of the first item that has one: by index in an ordered map, by time in an
    /// unordered one.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::map_sync;
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let endless = map_sync(|n: u32| 12 / n, (0..=3).rev().cycle());
    ///     let error = smol::block_on(endless.try_collect()).unwrap_err();
    ///     assert_eq!(error.item(), Some(3));
    /// }
    /// ```
    pub async fn try_collect(self) -> Result<Vec<O::Delivered<R>>, WorkerError> {
        let known = self.source.left().unwrap_or(0);
        self.open(async move |mut results| {
            let mut all = Vec::with_capacity(known.min(MAP_MOST_RESERVED));
            while let Some(result) = results.next().await {
                all.push(O::transpose(result)?);
            }
            Ok(all)
        })
        .await
    }

    /// Calls `body` with each result, one after the other.
    ///
    /// While `body` waits, workers go on, within the [window](map_sync#chunks). An async closure
    /// cannot change variables that it borrows; a loop in [`open`](MapSync::open) can.
    ///
    /// # Cancellation
    ///
    /// The map is cancelled as [`map_sync`] says, after `body` was dropped where it waits.
    ///
    /// # Panics
    ///
    /// With a panic of `body` or of the iterator, after the map has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::map_sync;
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let sum = std::cell::Cell::new(0);
    ///     let map = map_sync(|n: u64| n * n, 1..=3);
    ///     smol::block_on(map.for_each(async |square| sum.set(sum.get() + square.unwrap())));
    ///     assert_eq!(sum.get(), 14);
    /// }
    /// ```
    pub async fn for_each<F, B>(self, mut body: F)
    where
        F: FnMut(Delivered<R, O>) -> B,
        B: Future<Output = ()>,
    {
        self.open(async move |mut results| {
            while let Some(result) = results.next().await {
                body(result).await;
            }
        })
        .await
    }

    /// Runs `body` with a stream of the results.
    ///
    /// The map runs while the block does, within the [window](map_sync#chunks), whatever `body`
    /// waits for. When `body` ends, no further item begins, and the block ends when nothing of the
    /// map runs any more: it waits for the items in progress, or kills their workers with
    /// [`kill_on_cancel(true)`](MapSync::kill_on_cancel). If the stream leaves the block, it still
    /// returns the results that it had fetched, and then ends.
    ///
    /// # Cancellation
    ///
    /// The map is cancelled as [`map_sync`] says, after `body` was dropped where it waits.
    ///
    /// # Panics
    ///
    /// With a panic of `body` or of the iterator, after the map has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures_lite::StreamExt;
    /// use seedbed::map_sync;
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let endless = map_sync(|n: u64| n * n, 1..);
    ///     let first = smol::block_on(endless.open(async |mut squares| {
    ///         squares.find(|square| *square.as_ref().unwrap() > 30).await
    ///     }));
    ///     assert_eq!(first.unwrap().unwrap(), 36); // and no item is in progress
    /// }
    /// ```
    pub async fn open<F, B>(self, body: F) -> B::Output
    where
        F: FnOnce(MapResults<Delivered<R, O>>) -> B,
        B: Future,
    {
        refuse_unless_hooked("seedbed::map_sync");
        checkpoint_if_cancelled().await;
        let Self {
            settings, source, ..
        } = self;
        let outlet = Outlet::new();
        let refusal: Option<fn(&'static str) -> WorkerError> = if is_forked_copy() {
            Some(|_| WorkerError::forked_program())
        } else if settings.code.is_none() {
            Some(WorkerError::foreign_function)
        } else if !has_reached_hook() {
            Some(|_| WorkerError::not_initialized())
        } else {
            None
        };
        let context = settings.context.unwrap_or_else(current);
        let limiter = settings
            .limiter
            .or_else(|| context.config().limiter_of_calls().cloned())
            .unwrap_or_else(current_default_worker_limiter);
        let plan = Plan {
            job_name: settings.job_name,
            context,
            limiter,
            chunk: settings.chunk,
            kill_on_cancel: settings.kill_on_cancel,
            time_limit: settings.time_limit,
            retries: settings.retries,
        };
        let driver = Driver::<_, _, O>::new(plan, settings.code, refusal, source, outlet.clone());
        block::run(driver, outlet, body).await
    }
}

impl WorkerContext {
    /// Calls `f` with each of many items in worker processes of this context; otherwise like the
    /// free function [`map_sync`](crate::map_sync()).
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
    ///         let absolute = workers.map_sync(i32::abs, -2..2).try_collect().await;
    ///         assert_eq!(absolute.unwrap(), [2, 1, 0, 1]);
    ///     }));
    /// }
    /// ```
    pub fn map_sync<'a, F, A, R, I, How>(&self, f: F, items: I) -> MapSync<'a, A, R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static, // one argument: use a tuple for several
        A: Argument,
        R: JobResult,
        I: MapItems<'a, A, How>,
    {
        const { assert_captures_nothing::<F>() };
        MapSync::new(f, items.into_source(), Some(self.clone()))
    }
}

impl<A, R, O> fmt::Debug for MapSync<'_, A, R, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapSync")
            .field("job", &self.settings.job_name)
            .field("chunk", &self.settings.chunk)
            .field("kill_on_cancel", &self.settings.kill_on_cancel)
            .field("time_limit", &self.settings.time_limit)
            .field("retries", &self.settings.retries)
            .finish_non_exhaustive()
    }
}
