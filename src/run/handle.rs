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

/// A handle on one run, with which threads have something done in it; from [`current_run`].
///
/// It is cheap to clone, and may go anywhere. Two handles are equal if they are of the same run. Dropping it does
/// nothing, and a run does not wait for its handles: after its end they refuse everything.
///
/// | to | use |
/// |---|---|
/// | have a function called some time soon | [`call_soon`](Self::call_soon) |
/// | the same, once for many requests | [`call_soon_once`](Self::call_soon_once) |
/// | have a function called, and wait for its value | [`call`](Self::call) |
/// | have a future run, and wait for its value | [`call_async`](Self::call_async) |
/// | have a future run | [`spawn_system_task`](Self::spawn_system_task) |
///
/// A thread of [`thread::run_sync`](crate::thread::run_sync) needs no handle to have something done in the task that
/// waits for it: see [`call_async_in_task`](crate::thread::call_async_in_task).
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

    /// Has `f` called in the run some time soon, on its thread, and does not wait for that.
    ///
    /// Calls happen in the order in which they were put in, between the polls of tasks: in the run, but in no task.
    /// Each turn of the run's loop calls those that were there when it began, then polls whoever is ready, so calls
    /// that put in calls starve nobody. `f` must not block.
    ///
    /// **Every call that is accepted happens before [`run`](crate::run()) returns**, also if the run panics. (If it is
    /// a clock or a foreign waker of yours that panics, the loop cannot go on, and the calls are dropped.)
    ///
    /// It may be called on any thread, also on the run's own. It allocates memory and takes a lock for a moment, so it
    /// does not belong into a signal handler; a thread that waits for signals may call it.
    ///
    /// If `f` panics, everybody in the run is cancelled, and the panic comes out of `run`. The calls behind it happen.
    ///
    /// # Errors
    ///
    /// [`RunFinishedError`], which gives `f` back, if the run has ended: from the moment at which the main future and all
    /// system tasks have, and only the calls that were accepted before are left.
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

    /// As [`call_soon`](Self::call_soon), but does nothing if `f` waits for its call already.
    ///
    /// The same is what is in the same [`Arc`]. The call keeps its first place in the order. From the moment at which
    /// it has
    /// *started*, `f` may be put in again, also by itself, and is then called again. So `f` sees everything that
    /// happened before it was last put in, and a thousand requests cost as much as one.
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

    /// Has `f` called in the run, and blocks this thread until it has returned.
    ///
    /// It is a [`call_soon`](Self::call_soon) whose value is waited for: `f` is called in its turn, in the run
    /// but in no task, and cancellation does not concern it.
    ///
    /// # Errors
    ///
    /// [`RunFinishedError`], which gives `f` back, if the run has ended: `f` was not called.
    ///
    /// # Panics
    ///
    /// With the panic of `f`, which harms the run in no way; on the run's own thread, which it would block for ever;
    /// and if the run's loop panics, because a clock or a foreign waker does.
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
                panic!("the loop of the run in which something was to be called has panicked")
            }
        }
    }

    /// Runs a future in the run, as a [system task](spawn_system_task), and blocks this thread until it is done.
    ///
    /// `make` is called there, too, so the future may be about things that exist only in a run. Its value comes back
    /// here, and so does its panic, which is no matter of the run's.
    ///
    /// It knows nothing of the task that may be waiting for this thread. So on a thread of
    /// [`thread::run_sync`](crate::thread::run_sync), [`call_async_in_task`](crate::thread::call_async_in_task) is what ends when
    /// that task is cancelled; with this, the main future could wait for the thread, and the thread for the main
    /// future's end.
    ///
    /// # Cancellation
    ///
    /// If the main future ends meanwhile, or somebody in the run panics, the future is dropped where it waits (shields
    /// in it are honoured), and the result is [`EnterError::Cancelled`]. What it did before that has happened.
    ///
    /// # Errors
    ///
    /// [`EnterError::Finished`] if the run has ended: nothing has happened. [`EnterError::Cancelled`]: see above.
    ///
    /// # Panics
    ///
    /// With the future's panic, or that of `make`; and on the run's own thread, which it would block for ever.
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

    /// Spawns a task of the run's, as [`spawn_system_task`] does. From other threads, too.
    ///
    /// While the system tasks are being cancelled, because the main future has ended, others may still be spawned: they
    /// run to their first await that has to wait.
    ///
    /// # Errors
    ///
    /// [`RunFinishedError`], which gives the future back, if the main future and all system tasks have ended.
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

    /// Says, for one moment, what the run has to do. From other threads, too; of a run that has ended, nothing is left.
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
