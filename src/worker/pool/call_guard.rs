//! A call in progress, as its pool sees it.

use std::sync::Arc;
use std::time::Duration;

use super::statistics::{CallAccount, CallOutcome};
use super::worker_pool::{Taken, WorkerPool};
use crate::sync::Token;
use crate::sys::arena::Arena;
use crate::worker::conn::worker::Worker;
use crate::worker::error::WorkerError;

/// A call in progress, and its limiter token. The pool counts the call's end when the guard is
/// dropped.
#[derive(Debug)]
pub(in crate::worker) struct CallGuard {
    job_name: &'static str,
    /// The number of times that the context had killed all its workers when the call began.
    kills: u32,
    account: CallAccount,
    /// The worker that answered, on its way back to the pool.
    worker: Option<Box<Worker>>,
    /// The number of fork servers that died with a request of this call.
    failed_forks: usize,
    /// The token is released after the pool has its worker back, and before the pool counts the
    /// call as over. So these are the last fields, in this order.
    _token: Token,
    open: OpenCall,
}

/// A call that has not released its token.
#[derive(Debug)]
struct OpenCall {
    pool: Arc<WorkerPool>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.pool.note_release();
    }
}

impl CallGuard {
    /// Counts a call that has its limiter token, and takes a worker for it.
    pub(in crate::worker) fn begin(
        pool: Arc<WorkerPool>,
        job_name: &'static str,
        token: Token,
        waited: Option<Duration>,
    ) -> Result<(Self, Taken), WorkerError> {
        let kills = pool.kills(); // before a worker is taken that they may concern
        let taken = pool.begin_call(waited)?;
        let guard = Self {
            job_name,
            kills,
            account: CallAccount::default(),
            worker: None,
            failed_forks: 0,
            _token: token,
            open: OpenCall { pool },
        };
        Ok((guard, taken))
    }

    /// Takes a worker for the next attempt.
    pub(in crate::worker) fn take(&self) -> Taken {
        self.open.pool.take()
    }

    /// Takes the idle worker that was used last.
    pub(in crate::worker) fn take_worker(&self) -> Option<Box<Worker>> {
        self.open.pool.take_idle()
    }

    pub(in crate::worker) fn job_name(&self) -> &'static str {
        self.job_name
    }

    /// Whether the context has killed all its workers since the call began.
    pub(in crate::worker) fn is_cut_off(&self) -> bool {
        self.open.pool.kills() != self.kills
    }

    /// Whether the context asks all its jobs to end.
    pub(in crate::worker) fn is_asked(&self) -> bool {
        self.open.pool.asks_jobs()
    }

    pub(in crate::worker) fn pool(&self) -> &WorkerPool {
        &self.open.pool
    }

    /// Recycles an arena that no worker reads any more.
    pub(in crate::worker) fn put_arena(&self, arena: Arena) {
        self.open.pool.arenas.put(arena);
    }

    /// Counts a request that died with its fork server, and returns how many did so far.
    pub(in crate::worker) fn count_failed_fork(&mut self) -> usize {
        self.failed_forks += 1;
        self.failed_forks
    }

    /// Notes the number of bytes of the encoded argument.
    pub(in crate::worker) fn set_sent(&mut self, bytes: usize) {
        self.account.sent = bytes;
    }

    /// Notes that the job returned, and the number of bytes of its encoded result.
    pub(in crate::worker) fn set_done(&mut self, bytes: usize) {
        self.account.received = bytes;
        self.account.outcome = CallOutcome::Done;
    }

    /// Notes that the call ends with an error.
    pub(in crate::worker) fn set_failed(&mut self) {
        self.account.outcome = CallOutcome::Failed;
    }

    /// Notes that the call ends because its job reached its time limit.
    pub(in crate::worker) fn set_timed_out(&mut self) {
        self.account.timed_out = true;
    }

    /// Ends the call, and puts its worker back in the same step.
    pub(in crate::worker) fn end_with(mut self, mut worker: Box<Worker>) {
        worker.resolve_fork();
        self.worker = Some(worker);
    }

    /// Lets a worker exit that has announced its exit or has ended.
    pub(in crate::worker) fn drain_worker(&self, worker: Box<Worker>) {
        self.open.pool.drain_worker(worker);
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.open.pool.end_call(&self.account, self.worker.take());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;
    use crate::sync::CapacityLimiter;
    use crate::worker::config::WorkerConfig;

    /// Asks, when a token is released, whether the pool has closed.
    struct Asks {
        pool: Arc<WorkerPool>,
        closed: Mutex<Option<Poll<()>>>,
    }

    impl Wake for Asks {
        fn wake(self: Arc<Self>) {
            *self.closed.lock().unwrap() = Some(poll_close(&self.pool));
        }
    }

    fn poll_close(pool: &WorkerPool) -> Poll<()> {
        pin!(pool.close()).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A context that had ended could once have a call whose token was still borrowed.
    #[test]
    fn a_pool_has_closed_when_the_last_call_has_released_its_token() {
        let pool = Arc::new(WorkerPool::new(WorkerConfig::new()));
        let limiter = CapacityLimiter::new(1);
        let token = limiter.try_acquire().unwrap();
        let (guard, _) = CallGuard::begin(pool.clone(), "job", token, None).unwrap();
        let asks = Arc::new(Asks {
            pool: pool.clone(),
            closed: Mutex::default(),
        });
        let mut next = pin!(limiter.acquire());
        let waker = Waker::from(asks.clone());
        assert!(
            next.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        assert!(poll_close(&pool).is_pending());
        drop(guard);
        assert_eq!(*asks.closed.lock().unwrap(), Some(Poll::Pending));
        assert!(poll_close(&pool).is_ready());
    }
}
