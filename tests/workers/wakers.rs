//! Wakers of other runtimes, which may do anything in `wake`, also where a call waits for a new
//! worker.

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::common::in_waker::run_in_waker;
use crate::common::stage::within;
use crate::common::{pid, test, with_workers};
use seedbed::{CapacityLimiter, WorkerConfig, thread};

/// The longest time that a test waits for something that happens soon, unless it deadlocks.
const DEADLOCK: Duration = Duration::from_secs(60);

/// Such a waker once found a lock held by the thread that woke it: the launcher thread, or the
/// background thread when a fork server was up. All later calls waited forever.
fn tasks_that_run_in_their_wakers_get_new_workers() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let call = || {
            let workers = workers.clone();
            run_in_waker(Box::pin(async move {
                let limiter = CapacityLimiter::unlimited();
                workers.run_sync(pid, ()).limiter(&limiter).await.unwrap();
            }))
        };
        let calls: Vec<_> = (0..4).map(|_| call()).collect();
        for ended in calls {
            let ended = thread::run_sync(move || ended.recv_timeout(DEADLOCK)).await;
            assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
        }
    }));
}

struct Panics {
    has_panicked: AtomicBool,
}

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.has_panicked.store(true, SeqCst);
        panic!("a waker that panics");
    }
}

/// The launcher thread once ended by such a panic, and with it all workers that it had started.
fn a_waker_that_panics_when_its_worker_is_up_ends_no_worker() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let panics = Arc::new(Panics {
            has_panicked: AtomicBool::new(false),
        });
        let waker = Waker::from(panics.clone());
        let mut call = pin!(workers.run_sync(pid, ()).into_future());
        let first = call.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(matches!(first, Poll::Pending));
        within(async {
            while !panics.has_panicked.load(SeqCst) {
                smol::future::yield_now().await;
            }
        })
        .await;
        let worker = call.await.unwrap();
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
    }));
}

suite! {
    tasks_that_run_in_their_wakers_get_new_workers,
    a_waker_that_panics_when_its_worker_is_up_ends_no_worker,
}
