//! Tests of the pool with wakers that panic: nothing is lost, and no other waker is left out.

use std::future::Future;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_lite::Stream;

use super::handle::Jobs;
use super::open::open;
use super::options::Checked;
use super::pool::Pool;
use super::progress::Progress;
use super::recorded_wait::RecordedWait;
use super::ticket::Ticket;
use crate::delayed::error::JobError;
use crate::delayed::value::awaiter::JobId;
use crate::delayed::value::watcher::Watcher;
use crate::resource::{Cores, Resources};
use crate::sys::primitives::lock;

/// Panics when it is woken.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a foreign waker");
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `body` with the pool of a block that has one core.
fn with_pool(body: impl AsyncFnOnce(&Jobs<'_>, &Arc<Pool>) + Send) {
    let one_core = Resources::none().cores([0]);
    crate::run::run(open(one_core, async |jobs: Jobs<'_>| {
        body(&jobs, jobs.pool()).await;
    }));
}

fn one_core(pool: &Pool) -> Checked {
    pool.check(Cores(1).into(), &[])
}

fn submit(pool: &Arc<Pool>) -> Ticket {
    Ticket::submit(pool, (JobId::next(), "job"), &one_core(pool), false)
        .unwrap()
        .unwrap()
}

/// Observes the block with a waker that panics at the next change.
fn observe(jobs: &Jobs<'_>) -> Progress {
    let mut progress = jobs.progress();
    let waker = Waker::from(Arc::new(Panics));
    let mut cx = Context::from_waker(&waker);
    while Pin::new(&mut progress).poll_next(&mut cx).is_ready() {}
    progress
}

fn assert_panics<T>(act: impl FnOnce() -> T) {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(act()))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"a foreign waker"));
}

#[test]
fn a_waker_of_an_observer_that_panics_keeps_no_job_from_its_resources() {
    with_pool(async |jobs, pool| {
        let (first, second) = (submit(pool), submit(pool));
        let (mut queued, mut queued_too) = (Duration::ZERO, Duration::ZERO);
        let first = first.granted(&mut queued).await.unwrap();
        let woken = Arc::new(Counts::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut second = pin!(second.granted(&mut queued_too));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        let _observer = observe(jobs);
        assert_panics(|| drop(first));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(matches!(second.as_mut().poll(&mut cx), Poll::Ready(Ok(_))));
    });
}

#[test]
fn a_job_whose_submission_panics_takes_no_resources() {
    with_pool(async |jobs, pool| {
        let _observer = observe(jobs);
        assert_panics(|| submit(pool));
        let now = jobs.statistics();
        assert_eq!((now.queued, now.running), (0, 0));
        assert_eq!(now.resources[0].free, now.resources[0].total);
    });
}

#[test]
fn a_wait_whose_beginning_panics_has_ended() {
    with_pool(async |jobs, pool| {
        let _observer = observe(jobs);
        let watcher = Arc::new(Watcher::new());
        let waiting = (JobId::next(), true);
        let begin = || RecordedWait::begin(pool, waiting, Vec::new(), &[], &watcher).ok();
        assert_panics(begin);
        assert_eq!(pool.waiting_holders(), 0);
        let wait = begin();
        assert_eq!(pool.waiting_holders(), 1);
        drop(wait);
        assert_eq!(pool.waiting_holders(), 0);
    });
}

#[test]
fn a_job_is_counted_once_although_an_observer_panics_when_it_is() {
    with_pool(async |jobs, _| {
        let record = || jobs.record(JobId::next(), "job");
        let counts = || {
            let now = jobs.statistics();
            [now.submitted, now.succeeded, now.failed, now.cancelled]
        };
        let value = Ok::<_, JobError>(());
        let ended = record();
        let _observer = observe(jobs);
        assert_panics(|| ended.end(value.clone()).1);
        assert_eq!(counts(), [1, 1, 0, 0]);
        let failed = record();
        let _observer = observe(jobs);
        assert_panics(|| failed.fail::<()>(JobError::cancelled("job")).1);
        assert_eq!(counts(), [2, 1, 1, 0]);
        let _observer = observe(jobs);
        assert_panics(record);
        assert_eq!(counts(), [3, 1, 1, 1]);
    });
}

/// A file in memory.
#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_trace_is_complete_although_an_observer_panics_at_the_end() {
    with_pool(async |jobs, pool| {
        let file = File::default();
        pool.begin_trace(|| Ok(file.clone())).unwrap();
        let _observer = observe(jobs);
        assert_panics(|| pool.close());
        assert!(lock(&file.0).ends_with(b"\n]\n"));
        let error = pool.begin_trace(|| Ok(File::default())).unwrap_err();
        assert_eq!(error.to_string(), "the block has ended");
    });
}
