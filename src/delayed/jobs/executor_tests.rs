//! Blocks on another executor than the workers of this process. It runs each call from the offset
//! of its code and the bytes of its argument alone, as one on another machine would.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::handle::Jobs;
use super::open::open_on;
use crate::cancel::{CancelScope, checkpoint};
use crate::delayed::error::JobErrorKind;
use crate::delayed::executor::{Attempt, Executing, Executor, Surroundings, allocation};
use crate::delayed::setup::Setup;
use crate::delayed::value::{Delayed, each};
use crate::resource::{Amount, Resources, Units, ZERO};
use crate::sys::primitives::lock;
use crate::sys::process::Ended;
use crate::transport::job::code::run_here;
use crate::worker::{Answer, WorkerError, WorkerErrorKind, WorkerExit};

/// The course of an attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Succeeds,
    IsLost,
    Fails,
    NeverEnds,
}

/// Locked while a job runs: a worker runs one job at a time, and has the allocation of that.
static ONE_JOB: Mutex<()> = Mutex::new(());

/// Runs calls in this process, and has two licences.
#[derive(Default)]
struct InProcess {
    /// The courses of the next attempts. Further ones succeed.
    fates: Mutex<VecDeque<Fate>>,
    running: AtomicUsize,
    most_at_once: AtomicUsize,
    /// The allocation of each attempt.
    allocations: Mutex<Vec<String>>,
    ends: AtomicUsize,
}

impl Executor for InProcess {
    fn begin(&self) -> Result<Resources, String> {
        Ok(Resources::none().amount("licences", 2))
    }

    fn run(&self, attempt: Attempt) -> Executing<'_, Result<Answer, WorkerError>> {
        Box::pin(async move {
            let running = 1 + self.running.fetch_add(1, Ordering::Relaxed);
            self.most_at_once.fetch_max(running, Ordering::Relaxed);
            for _ in 0..5 {
                checkpoint().await; // others begin, if they may
            }
            self.running.fetch_sub(1, Ordering::Relaxed);
            let surroundings = attempt.allocation.as_deref().map(|allocation| {
                lock(&self.allocations).push(allocation.to_string());
                Surroundings {
                    allocation: allocation.clone(),
                    is_shared: true,
                }
            });
            let fate = lock(&self.fates).pop_front();
            match fate.unwrap_or(Fate::Succeeds) {
                Fate::Succeeds => {}
                Fate::IsLost => {
                    let exit = WorkerExit::new(1, Ended::Unknown, None);
                    return Err(WorkerError::broken(exit, Duration::ZERO));
                }
                Fate::Fails => return Err(WorkerError::closed()),
                Fate::NeverEnds => pending().await,
            }
            let mut argument = Vec::new();
            let encoded = attempt
                .call
                .encode(surroundings.as_ref(), &mut argument, None);
            let attached = encoded.map_err(WorkerError::encode_argument)?;
            assert!(attached.fds.is_empty());
            let code = attempt.call.code().unwrap();
            let _alone = lock(&ONE_JOB);
            let result = run_here(code, &argument).unwrap();
            Ok(Answer::of_bytes(attempt.call.waits().function(), &result))
        })
    }

    fn end(&self) -> Executing<'_, ()> {
        Box::pin(async {
            self.ends.fetch_add(1, Ordering::Relaxed);
        })
    }
}

/// Runs a block on this executor.
fn on(executor: &Arc<InProcess>, body: impl AsyncFnOnce(Jobs<'_>) + Send) {
    let executor = executor.clone();
    crate::run::run(open_on(executor, Setup::local(), async |jobs: Jobs<'_>| {
        body(jobs).await;
    }));
}

fn licences(_: ()) -> Option<Amount> {
    allocation()?.amount("licences")
}

fn describe(number: i32, name: String) -> String {
    format!("{number} of {name} in {}", std::process::id())
}

#[test]
fn a_call_is_run_from_its_bytes_on_what_it_was_granted() {
    let executor = Arc::new(InProcess::default());
    on(&executor, async |jobs| {
        let licence = jobs.on(Units("licences", 1));
        let text = licence.call(describe, (7, "nine".to_owned()));
        let here = format!("7 of nine in {}", std::process::id());
        assert_eq!((&text).await.unwrap(), here);
        assert_eq!(text.statistics().unwrap().attempts, 1);
        let both = jobs.on(Units("licences", 2)).call(licences, ());
        assert_eq!(both.await.unwrap(), Some(Amount::whole(2)));
        let none = jobs.on(ZERO).call(licences, ());
        assert_eq!(none.await.unwrap(), None);
        let error = jobs.on(Units("licences", 3)).call(licences, ());
        assert_eq!(error.await.unwrap_err().kind(), JobErrorKind::Impossible);
    });
    let granted = ["1 of `licences`", "2 of `licences`"];
    assert_eq!(*lock(&executor.allocations), granted);
    assert!(executor.ends.load(Ordering::Relaxed) > 0);
}

#[test]
fn no_more_calls_are_executed_at_once_than_have_their_resources() {
    let executor = Arc::new(InProcess::default());
    on(&executor, async |jobs| {
        let licence = jobs.on(Units("licences", 1));
        let absolute = (-4..0).map(|number| licence.call(i32::abs, number));
        let absolute: Vec<Delayed<i32>> = absolute.collect();
        assert_eq!(each(absolute).await.unwrap(), [4, 3, 2, 1]);
    });
    assert_eq!(executor.most_at_once.load(Ordering::Relaxed), 2);
}

#[test]
fn an_attempt_that_was_lost_is_made_again_as_often_as_the_job_allows() {
    let executor = Arc::new(InProcess::default());
    on(&executor, async |jobs| {
        let licence = jobs.on(Units("licences", 2));
        *lock(&executor.fates) = [Fate::IsLost; 2].into();
        let value = licence.retry(2).call(i32::abs, -3);
        assert_eq!((&value).await.unwrap(), 3);
        assert_eq!(value.statistics().unwrap().attempts, 3);
        *lock(&executor.fates) = [Fate::IsLost; 2].into();
        let error = licence.retry(1).call(i32::abs, -3).await.unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::Worker(WorkerErrorKind::Broken));
        assert_eq!(error.attempts(), 2);
    });
    // Each attempt had what the first one was granted.
    assert_eq!(lock(&executor.allocations).len(), 5);
}

#[test]
fn an_executor_is_ended_although_its_block_is_cancelled() {
    let executor = Arc::new(InProcess::default());
    let of_block = executor.clone();
    crate::run::run(async {
        let scope = CancelScope::new();
        let cancel = scope.clone();
        let block = open_on(of_block, Setup::local(), async |jobs: Jobs<'_>| {
            jobs.call(i32::abs, -3).await.unwrap_err();
            cancel.cancel();
            pending::<()>().await;
        });
        assert!(scope.run(block).await.is_none());
    });
    assert!(executor.ends.load(Ordering::Relaxed) > 0);
}

/// Cannot begin.
struct Broken;

impl Executor for Broken {
    fn begin(&self) -> Result<Resources, String> {
        Err("the engine does not answer".into())
    }

    fn run(&self, _: Attempt) -> Executing<'_, Result<Answer, WorkerError>> {
        unreachable!("no job begins")
    }

    fn end(&self) -> Executing<'_, ()> {
        Box::pin(async {})
    }
}

#[test]
fn the_reason_why_an_executor_cannot_begin_is_the_error_of_each_job() {
    crate::run::run(open_on(
        Arc::new(Broken),
        Setup::local(),
        async |jobs: Jobs<'_>| {
            for jobs in [jobs.clone(), jobs.on(ZERO)] {
                let error = jobs.call(i32::abs, -3).await.unwrap_err();
                assert_eq!(error.kind(), JobErrorKind::Impossible);
                assert!(error.to_string().ends_with("the engine does not answer"));
            }
        },
    ));
}

/// A job of a random block.
#[derive(Clone, Copy, Debug)]
struct RandomJob {
    licences: u32,
    retry: u32,
    is_prioritized: bool,
    /// Whether it is a future, which never ends, rather than a call.
    is_future: bool,
}

/// A block whose jobs are left, and which ends after some turns of the run.
#[derive(Clone, Debug)]
struct RandomBlock {
    jobs: Vec<RandomJob>,
    turns: usize,
    /// Whether it is cancelled rather than dropped.
    is_cancelled: bool,
}

fn blocks() -> impl Strategy<Value = Vec<RandomBlock>> {
    let job = (0..3u32, 0..3u32, any::<bool>(), prop::bool::weighted(0.2));
    let job = job.prop_map(|(licences, retry, is_prioritized, is_future)| RandomJob {
        licences,
        retry,
        is_prioritized,
        is_future,
    });
    let jobs = prop::collection::vec(job, 0..6);
    let block = (jobs, 0..60usize, any::<bool>());
    let block = block.prop_map(|(jobs, turns, is_cancelled)| RandomBlock {
        jobs,
        turns,
        is_cancelled,
    });
    prop::collection::vec(block, 1..6)
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        Just(Fate::Succeeds),
        Just(Fate::IsLost),
        Just(Fate::Fails),
        Just(Fate::NeverEnds)
    ];
    prop::collection::vec(fate, 0..20)
}

/// Opens a block within `jobs`, and ends it after its turns.
async fn run_block(jobs: &Jobs<'_>, random: RandomBlock) {
    let block = jobs.open(async |inner| {
        for job in random.jobs {
            let licences = Units("licences", job.licences);
            let inner = inner.on(licences).retry(job.retry);
            let inner = if job.is_prioritized {
                inner.prioritized()
            } else {
                inner
            };
            if job.is_future {
                drop(inner.spawn(pending::<()>()));
            } else {
                drop(inner.call(i32::abs, -3));
            }
        }
        pending::<()>().await;
    });
    let turns = async |scope: &CancelScope| {
        for _ in 0..random.turns {
            checkpoint().await;
        }
        scope.cancel();
    };
    let scope = CancelScope::new();
    if random.is_cancelled {
        let both = futures_lite::future::zip(scope.run(block), turns(&scope));
        assert!(both.await.0.is_none());
    } else {
        futures_lite::future::or(block, turns(&scope)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_and_each_job_is_counted_once_after_random_faults(
        (blocks, fates) in (blocks(), fates())
    ) {
        let executor = Arc::new(InProcess::default());
        *lock(&executor.fates) = fates.into();
        on(&executor, async move |jobs| {
            for block in blocks {
                run_block(&jobs, block).await;
            }
            let now = jobs.statistics();
            assert_eq!((now.running, now.queued), (0, 0));
            assert!(now.resources.iter().all(|resource| resource.free == resource.total));
            assert_eq!(now.submitted, now.succeeded + now.failed + now.cancelled);
        });
    }
}
