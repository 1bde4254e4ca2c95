//! `RunHandle`: how other threads have something done in a run.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use futures_lite::FutureExt;

use super::error::{EnterError, RunFinishedError};
use super::inbox::{Call, RunInbox};
use super::statistics::RunStatistics;
use super::system_task;
use crate::cancel::{SharedTree, position};
use crate::task::Task;

/// A handle on one run, by which other threads call into it; from
/// [`current_run`](super::current_run).
///
/// Cloning is cheap, and a handle may be sent anywhere. Two handles are equal if they belong to the
/// same run. Dropping a handle does nothing. A run does not wait for its handles: after the end of
/// the run, their methods return an error.
///
/// | to | use |
/// |---|---|
/// | have a function called some time soon | [`call_soon`](Self::call_soon) |
/// | the same, once for many requests | [`call_soon_once`](Self::call_soon_once) |
/// | have a function called, and wait for its value | [`call`](Self::call) |
/// | have a future run, and wait for its value | [`call_async`](Self::call_async) |
/// | have a future run | [`spawn_system_task`](Self::spawn_system_task) |
///
/// A thread of [`thread::run_sync`](crate::thread::run_sync) needs no handle to call into the task
/// that waits for it: see [`thread::call_in_task`](crate::thread::call_in_task).
///
/// ```
/// use seedbed::run::current_run;
/// use seedbed::sync::Event;
/// use seedbed::run;
///
/// run(async {
///     let (handle, ready) = (current_run(), Event::new());
///     let set = ready.clone();
///     std::thread::spawn(move || handle.call_soon(move || set.set()));
///     ready.wait().await;
/// });
/// ```
#[derive(Clone)]
#[doc(alias = "TrioToken")]
#[doc(alias = "from_thread")]
pub struct RunHandle {
    inbox: Arc<RunInbox>,
    tree: Arc<SharedTree>,
}

impl RunHandle {
    /// Returns a handle on the run that polls the running code; `None` outside of a run.
    pub(super) fn current() -> Option<Self> {
        let tree = position::tree_of_run()?;
        let inbox = tree.run()?.get_arc()?;
        Some(RunHandle { inbox, tree })
    }

    /// Queues a call of `f` on the run's thread, and returns without waiting for it.
    ///
    /// Calls happen in the order in which they were queued, between the polls of tasks: in the run,
    /// but in no task. Each turn of the run's loop makes the calls that were queued when the turn
    /// began, then polls the tasks that are ready, so calls that queue calls starve no task. `f`
    /// must not block.
    ///
    /// **Every call that is accepted is made before [`run`](crate::run()) returns**, also if the
    /// run panics. The one exception is a panic of a clock or a foreign waker: then the loop cannot
    /// go on, and the calls are dropped.
    ///
    /// This may be called on any thread, including the run's own. It allocates memory and takes a
    /// lock for a moment, so it must not be called in a signal handler; a thread that waits for
    /// signals may call it.
    ///
    /// If `f` panics, everything in the run is cancelled, and the panic comes out of `run`. The
    /// calls behind it are made.
    ///
    /// # Errors
    ///
    /// [`RunFinishedError`], which contains `f`, once the main future and all system tasks have
    /// ended. Then the run makes only the calls that it has already accepted.
    ///
    /// ```
    /// use seedbed::run::current_run;
    /// use seedbed::run;
    ///
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// let handle = run(async {
    ///     let handle = current_run();
    ///     for number in 0..3 {
    ///         let sender = sender.clone();
    ///         handle.call_soon(move || sender.send(number).unwrap()).unwrap();
    ///     }
    ///     handle
    /// });
    /// assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    /// let refused = handle.call_soon(|| {}).unwrap_err();
    /// refused.into_inner()();
    /// ```
    pub fn call_soon<F>(&self, f: F) -> Result<(), RunFinishedError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        let queued = self.inbox.calls.push(f, |f| Call::Once(Box::new(f)));
        self.wake(queued)
    }

    /// Queues a call of `f` like [`call_soon`](Self::call_soon), unless a call of the same `f` is
    /// queued already.
    ///
    /// Two functions are the same if they are in the same [`Arc`]. A queued call keeps its
    /// position. Once it has *started*, `f` may be queued again, also by itself. So `f` sees
    /// everything that happened before the last request, and a thousand requests cost as much as
    /// one.
    ///
    /// # Errors
    ///
    /// [`RunFinishedError`] if the run has ended.
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
    /// use seedbed::run::current_run;
    /// use seedbed::{checkpoint, run};
    ///
    /// run(async {
    ///     let flushed = Arc::new(AtomicU32::new(0));
    ///     let count = flushed.clone();
    ///     let flush = Arc::new(move || _ = count.fetch_add(1, Relaxed));
    ///     for _ in 0..1000 {
    ///         current_run().call_soon_once(&flush).unwrap();
    ///     }
    ///     checkpoint().await;
    ///     assert_eq!(flushed.load(Relaxed), 1);
    /// });
    /// ```
    pub fn call_soon_once<F>(&self, f: &Arc<F>) -> Result<(), RunFinishedError<Arc<F>>>
    where
        F: Fn() + Send + Sync + 'static,
    {
        // The queue keeps the function, and with it its address, while the call waits.
        let key = Arc::as_ptr(f).addr();
        let queued = self
            .inbox
            .calls
            .push_once(key, f.clone(), |f| Call::Shared(f));
        self.wake(queued)
    }

    fn wake<F>(&self, queued: Result<(), F>) -> Result<(), RunFinishedError<F>> {
        queued.map_err(RunFinishedError::new)?;
        self.inbox.wake_loop();
        Ok(())
    }

    /// Calls `f` in the run, and blocks this thread until it has returned.
    ///
    /// The call is queued like one of [`call_soon`](Self::call_soon): `f` is called in the run but
    /// in no task, and is not cancelled.
    ///
    /// # Errors
    ///
    /// [`RunFinishedError`], which contains `f`, if the run has ended: `f` was not called.
    ///
    /// # Panics
    ///
    /// With the panic of `f`, which does not affect the run; on the run's own thread, which the
    /// call would block forever; and if the run's loop panics because a clock or a foreign waker
    /// does.
    ///
    /// ```
    /// use seedbed::run::{current_run, in_run};
    /// use seedbed::{run, thread};
    ///
    /// run(async {
    ///     let handle = current_run();
    ///     let called = thread::run_sync(move || (in_run(), handle.call(in_run).unwrap()));
    ///     assert_eq!(called.await, (false, true));
    /// });
    /// ```
    pub fn call<F, T>(&self, f: F) -> Result<T, RunFinishedError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.refuse_own_thread("call");
        let (reply, answer) = sync_channel(1);
        let call = |(f, reply): (F, std::sync::mpsc::SyncSender<_>)| {
            Call::Once(Box::new(move || {
                // This thread waits for it, and cannot have stopped.
                drop(reply.send(catch_unwind(AssertUnwindSafe(f))));
            }))
        };
        match self.inbox.calls.push((f, reply), call) {
            Ok(()) => self.inbox.wake_loop(),
            Err((f, _)) => return Err(RunFinishedError::new(f)),
        }
        match answer.recv() {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => {
                panic!("the loop of the run has panicked before the call was made")
            }
        }
    }

    /// Runs a future in the run, as a [system task](super::spawn_system_task), and blocks this
    /// thread until it is done.
    ///
    /// `make` is called in the run, too, so the future may use what exists only in a run. Its
    /// value, or its panic, comes back to this thread; the panic does not affect the run.
    ///
    /// The future is not cancelled with a task that waits for this thread. A thread of
    /// [`thread::run_sync`](crate::thread::run_sync) should therefore use
    /// [`thread::call_async_in_task`](crate::thread::call_async_in_task), which is. With
    /// `call_async`, the main future could wait for the thread, and the thread for the end of the
    /// main future.
    ///
    /// # Cancellation
    ///
    /// If the main future ends during the call, or something in the run panics, the future is
    /// dropped at the await where it waits (after the end of its shields), and the result is
    /// [`EnterError::Cancelled`]. Its effects up to then have happened.
    ///
    /// # Errors
    ///
    /// [`EnterError::Finished`] if the run has ended: nothing has happened.
    /// [`EnterError::Cancelled`] if the future was cancelled.
    ///
    /// # Panics
    ///
    /// With the panic of the future or of `make`; and on the run's own thread, which the call would
    /// block forever.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::run::current_run;
    /// use seedbed::{run, sleep, thread};
    ///
    /// run(async {
    ///     let handle = current_run();
    ///     let value = thread::run_sync(move || {
    ///         handle.call_async(|| async {
    ///             sleep(Duration::from_millis(1)).await;
    ///             5
    ///         })
    ///     });
    ///     assert_eq!(value.await, Ok(5));
    /// });
    /// ```
    pub fn call_async<F, Fut>(&self, make: F) -> Result<Fut::Output, EnterError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        self.refuse_own_thread("call_async");
        let (reply, answer) = sync_channel(1);
        let task = self.spawn_system_task(async move {
            let outcome = AssertUnwindSafe(async move { make().await }).catch_unwind();
            // This thread waits for it, and cannot have stopped.
            drop(reply.send(outcome.await));
        });
        task.map_err(|_| EnterError::Finished)?;
        match answer.recv() {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(EnterError::Cancelled),
        }
    }

    fn refuse_own_thread(&self, what: &str) {
        let own = std::thread::current().id() == self.inbox.thread;
        assert!(
            !own || self.inbox.calls.is_closed(),
            "RunHandle::{what} was called on the thread of the run itself, which it would block for ever; await the future \
             there, or call the function, or use call_soon"
        );
    }

    /// Spawns a task that belongs to the run, like [`spawn_system_task`](super::spawn_system_task),
    /// from any thread.
    ///
    /// After the main future has ended, while the system tasks are being cancelled, others may
    /// still be spawned: they run to their first await that has to wait.
    ///
    /// # Errors
    ///
    /// [`RunFinishedError`], which contains the future, if the main future and all system tasks
    /// have ended.
    ///
    /// ```
    /// use seedbed::run::current_run;
    /// use seedbed::run;
    ///
    /// let handle = run(async {
    ///     let task = current_run().spawn_system_task(async { 5 }).unwrap();
    ///     assert_eq!(task.await, 5);
    ///     current_run()
    /// });
    /// assert!(handle.spawn_system_task(async {}).is_err());
    /// ```
    pub fn spawn_system_task<F>(
        &self,
        future: F,
    ) -> Result<Task<F::Output>, RunFinishedError<F::IntoFuture>>
    where
        F: IntoFuture,
        F::IntoFuture: Send + 'static,
        F::Output: Send + 'static,
    {
        system_task::spawn(&self.inbox, &self.tree, future.into_future())
            .map_err(RunFinishedError::new)
    }

    /// Returns a snapshot of what the run has to do, from any thread. After the end of the run, all
    /// counts are zero.
    ///
    /// ```
    /// use seedbed::run::current_run;
    /// use seedbed::run;
    ///
    /// run(async {
    ///     let handle = current_run();
    ///     handle.call_soon(|| {}).unwrap();
    ///     assert_eq!(handle.statistics().queued_calls, 1);
    /// });
    /// ```
    pub fn statistics(&self) -> RunStatistics {
        RunStatistics::new(&self.tree, &self.inbox)
    }
}

impl PartialEq for RunHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inbox, &other.inbox)
    }
}

impl Eq for RunHandle {}

impl fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunHandle")
            .field("finished", &self.inbox.calls.is_closed())
            .finish_non_exhaustive()
    }
}
