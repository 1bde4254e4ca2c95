//! Many calls with random kills. Each job leaves a mark in shared memory, which shows that it ran
//! exactly once if its call returned a value, and at most once if the call failed or was cancelled.
//!
//! `SEEDBED_SOAK_CALLS=1000000 cargo test --release --test workers --test fork_soak soak::` makes
//! more calls than the default, which takes seconds. One in a hundred calls is accompanied by a
//! kill.
//!
//! `unsafe` is needed to map the shared memory: a file that is never shortened, whose bytes are
//! only changed as atomics.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::common;
use crate::common::dice::Dice;
use crate::common::stage::within;
use crate::common::{modes, test, with_workers};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Pid, Signal, kill_process};
use seedbed::worker::WorkerErrorKind;
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext, run};

/// The number of calls for each seed.
fn calls() -> usize {
    let asked = std::env::var("SEEDBED_SOAK_CALLS").ok();
    asked.map_or(3_000, |asked| asked.parse().unwrap())
}

/// The number of concurrent callers, and of workers.
const CALLERS: usize = 4;
const WORKERS: usize = 3;

/// Maps one mark for each call, in memory shared with the workers.
fn map(marks: &Path, length: usize) -> &'static [AtomicU8] {
    let file = File::options().read(true).write(true).open(marks).unwrap();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses an unused address range. The file is at least this long, and stays
    // so.
    let place = unsafe {
        mmap(
            std::ptr::null_mut(),
            length,
            access,
            MapFlags::SHARED,
            file,
            0,
        )
        .unwrap()
    };
    // SAFETY: the mapping is never removed. A file's bytes are initialized, and `AtomicU8` has the
    // layout of a byte. Every process that maps the file changes it through atomics only.
    unsafe { std::slice::from_raw_parts(place.cast::<AtomicU8>(), length) }
}

/// The behaviour of a job, besides leaving its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Fate {
    Returns,
    DiesBefore,
    DiesAfter,
    Panics,
}

/// The job: leaves its mark, and returns its number. The long ones return much.
fn leave_a_mark(
    (marks, length, at, fate, weight): (PathBuf, usize, usize, Fate, usize),
) -> (usize, String) {
    static MARKS: OnceLock<&'static [AtomicU8]> = OnceLock::new();
    let marks = MARKS.get_or_init(|| map(&marks, length));
    if fate == Fate::DiesBefore {
        kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
        loop {
            std::thread::park(); // the signal may reach another thread first
        }
    }
    marks[at].fetch_add(1, Relaxed);
    match fate {
        Fate::Returns => (at, "x".repeat(weight)),
        Fate::Panics => panic!("as the dice fell"),
        Fate::DiesBefore | Fate::DiesAfter => std::process::abort(),
    }
}

/// The number of times that a job may have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ran {
    Once,
    Never,
    AtMostOnce,
}

struct Soak {
    marks: PathBuf,
    seen: &'static [AtomicU8],
    dice: Dice,
    /// The expected number of runs of each job, by its number.
    expected: RefCell<Vec<Ran>>,
    kills: Cell<usize>,
    limiter: CapacityLimiter,
}

impl Soak {
    fn length(&self) -> usize {
        self.seen.len()
    }

    fn choose_outcome(&self) -> Fate {
        match self.dice.throw(1000) {
            0..3 => Fate::DiesBefore,
            3..6 => Fate::DiesAfter,
            6..10 => Fate::Panics,
            _ => Fate::Returns,
        }
    }

    /// Makes the remaining calls, one after the other.
    async fn call_on(&self, workers: &WorkerContext) {
        loop {
            let at = self.expected.borrow().len();
            if at == self.length() {
                return;
            }
            self.expected.borrow_mut().push(Ran::AtMostOnce);
            let ran = self.call(workers, at).await;
            self.expected.borrow_mut()[at] = ran;
            // A violation fails the test at once, with the number of the job.
            self.check(at);
        }
    }

    async fn call(&self, workers: &WorkerContext, at: usize) -> Ran {
        let fate = self.choose_outcome();
        let weight = match self.dice.throw(500) {
            0 => 1 << 20,
            _ => self.dice.throw(100) as usize,
        };
        let argument = (self.marks.clone(), self.length(), at, fate, weight);
        let call = workers
            .run_sync(leave_a_mark, argument)
            .limiter(&self.limiter);
        let outcome = match self.dice.throw(200) {
            // Dropped after a few polls, which kills the worker.
            0 => {
                let scope = CancelScope::new();
                let give_up = async {
                    for _ in 0..self.dice.throw(20) {
                        smol::future::yield_now().await;
                    }
                    scope.cancel();
                };
                let call = scope.run(call.kill_on_cancel(true));
                let (outcome, ()) = smol::future::zip(call, give_up).await;
                self.kills.set(self.kills.get() + 1);
                match outcome {
                    Some(outcome) => outcome,
                    None => return Ran::AtMostOnce,
                }
            }
            // Kills a worker: that of this call, of another one, or an idle one.
            1 => {
                let kill = async {
                    for _ in 0..self.dice.throw(20) {
                        smol::future::yield_now().await;
                    }
                    self.kill_a_worker();
                };
                let (outcome, ()) = smol::future::zip(call.into_future(), kill).await;
                outcome
            }
            _ => call.await,
        };
        match outcome {
            Ok((number, much)) => {
                assert_eq!((number, much.len()), (at, weight));
                assert_eq!(fate, Fate::Returns);
                Ran::Once
            }
            Err(error) => match error.kind() {
                WorkerErrorKind::Panicked => {
                    assert_eq!(fate, Fate::Panics);
                    Ran::Once
                }
                WorkerErrorKind::Broken => Ran::AtMostOnce,
                // A new worker was killed before it was ready.
                WorkerErrorKind::Start => Ran::Never,
                kind => panic!("{kind:?}: {error}"),
            },
        }
    }

    /// Kills a worker. All calls run on this thread, so none is reaped at the same time.
    fn kill_a_worker(&self) {
        let workers = common::workers();
        if workers.is_empty() {
            return;
        }
        let victim = workers[self.dice.throw(workers.len() as u64) as usize];
        let pid = Pid::from_raw(victim.cast_signed()).unwrap();
        // Dropped workers are reaped on another thread.
        if kill_process(pid, Signal::KILL).is_ok() {
            self.kills.set(self.kills.get() + 1);
        }
    }

    fn check(&self, at: usize) {
        let (expected, seen) = (self.expected.borrow()[at], self.seen[at].load(Relaxed));
        let kept = match expected {
            Ran::Once => seen == 1,
            Ran::Never => seen == 0,
            Ran::AtMostOnce => seen <= 1,
        };
        assert!(
            kept,
            "job {at} should have run {expected:?} and ran {seen} times"
        );
    }
}

async fn soak(seed: u64) {
    let length = calls();
    let marks = tempfile::NamedTempFile::new().unwrap();
    marks.as_file().set_len(length as u64).unwrap();
    let soak = Soak {
        seen: map(marks.path(), length),
        marks: marks.path().to_owned(),
        dice: Dice::new(seed),
        expected: RefCell::default(),
        kills: Cell::default(),
        limiter: CapacityLimiter::new(WORKERS),
    };
    let config = WorkerConfig::new().capture_stderr(seed == 1);
    with_workers(config, async |workers: WorkerContext| {
        let (soak, workers) = (&soak, &workers);
        seedbed::nursery::open_local_nursery(async |n| {
            for _ in 0..CALLERS {
                n.spawn(soak.call_on(workers));
            }
        })
        .await;
        assert_eq!(workers.statistics().running_workers, 0);
    })
    .await;
    // Checks again, now that no worker is left that could run a job.
    (0..length).for_each(|at| soak.check(at));
    assert!(soak.kills.get() >= length / 200, "{}", soak.kills.get());
    let broken = soak.expected.borrow();
    let broken = broken.iter().filter(|&&ran| ran != Ran::Once).count();
    println!(
        "seed {seed}: {length} calls, {} kills, {broken} not answered",
        soak.kills.get()
    );
}

fn every_call_runs_once_or_is_reported_with_the_first_seed() {
    test(within(soak(1)));
}

fn every_call_runs_once_or_is_reported_with_the_second_seed_inside_a_run() {
    test(async {
        let thread = modes::thread_of_test();
        let thread = thread.spawn(|| run(within(soak(2)))).unwrap();
        smol::unblock(|| thread.join().unwrap()).await;
    });
}

fn every_call_runs_once_or_is_reported_with_the_third_seed_inside_tokio() {
    test(async {
        let in_tokio = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(within(soak(3)));
        };
        let thread = modes::thread_of_test().spawn(in_tokio).unwrap();
        smol::unblock(|| thread.join().unwrap()).await;
    });
}

suite! {
    every_call_runs_once_or_is_reported_with_the_first_seed,
    every_call_runs_once_or_is_reported_with_the_second_seed_inside_a_run,
    every_call_runs_once_or_is_reported_with_the_third_seed_inside_tokio,
}
