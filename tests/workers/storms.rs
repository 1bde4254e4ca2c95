//! Many workers: thousands that are killed and replaced, and hundreds at once.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::common;
use crate::common::dice::Dice;
use crate::common::stage::{self, Bystander, Stage, forever, staged, within};
use crate::common::{pid, worker_type};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, setrlimit,
};
use seedbed::worker::{WorkerErrorKind, WorkerType, cancelled};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerError, open_nursery};
use smol::Async;

/// The number of rounds. `SEEDBED_KILL_CYCLES` sets another one; a spawned worker takes ten times
/// as long as a forked one.
fn cycles() -> usize {
    let asked = std::env::var("SEEDBED_KILL_CYCLES").ok();
    asked.map_or_else(
        || match worker_type() {
            WorkerType::ForkServer => 1_000,
            _ => 100,
        },
        |asked| asked.parse().unwrap(),
    )
}

fn thousands_of_killed_workers_are_replaced_and_nothing_accumulates() {
    staged(WorkerConfig::new(), |workers| async move {
        let bystander = Bystander::of(&workers).await;
        let many = CapacityLimiter::unlimited();
        let stage = Stage::new();
        let mut descriptors = None;
        for cycle in 0..cycles() {
            let victim = workers.run_sync(pid, ()).limiter(&many).await.unwrap();
            match cycle % 3 {
                // Kills the worker while it is idle.
                0 => {
                    stage::kill(victim);
                    stage::until_ended(victim);
                }
                // Its call kills the worker.
                1 => {
                    let call = workers.run_sync(forever, stage.path()).limiter(&many);
                    let call = call.kill_on_cancel(true);
                    assert_eq!(stage.cancel_on_arrival(call).await, victim);
                }
                // Kills the worker while it runs a job.
                _ => {
                    let call = workers.run_sync(forever, stage.path()).limiter(&many);
                    let kill = async {
                        assert_eq!(stage.reached().await, victim);
                        stage::kill(victim);
                    };
                    let (outcome, ()) = smol::future::zip(call.into_future(), kill).await;
                    assert_eq!(outcome.unwrap_err().kind(), WorkerErrorKind::Broken);
                }
            }
            assert_eq!(workers.statistics().idle_workers, 0);
            if cycle % 100 == 0 {
                let before = descriptors.get_or_insert_with(common::descriptors);
                // One more is the bystander's process, if it was looked at only after the first
                // time. A background task may still hold that of a victim.
                within(async {
                    while common::descriptors().len() > before.len() + 1 {
                        smol::future::yield_now().await;
                    }
                })
                .await;
            }
        }
        bystander.ends_unharmed().await;
    });
}

/// Holds a worker, so that a kill after its end meets no other process.
fn process_of(pid: u32) -> OwnedFd {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    pidfd_open(pid, PidfdFlags::empty()).unwrap()
}

/// Does this at a time after `began`. A sleep is not so exact.
fn spin_until(began: Instant, nanoseconds: u64) {
    while began.elapsed() < Duration::from_nanos(nanoseconds) {
        std::hint::spin_loop();
    }
}

/// Panics if a job has failed for another reason than the death of its worker. Returns its result.
fn unless_killed<T>(outcome: Result<T, WorkerError>) -> Option<T> {
    match outcome {
        Ok(result) => Some(result),
        Err(error) => {
            assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
            None
        }
    }
}

/// A job that must be asked to end, and then one that must not: the request comes while the job is
/// sent, begins, looks, or has ended because its worker was killed. A request that is lost lets the
/// test hang; one that meets the next job is found by that.
fn requests_end_their_jobs_and_no_others_while_workers_are_killed() {
    const PATIENCE: Duration = Duration::from_secs(600);
    fn end_when_asked(_: ()) {
        while !cancelled() {
            std::hint::spin_loop();
        }
    }
    fn is_asked(looks: u64) -> bool {
        (0..looks).any(|_| cancelled())
    }
    staged(WorkerConfig::new(), |workers| async move {
        let one = CapacityLimiter::new(1);
        let seed = u64::from(std::process::id());
        let dice = Dice::new(seed);
        for cycle in 0..cycles() {
            let story = format!("seed {seed}, cycle {cycle}");
            // The jobs before decide whether the worker has a mailbox.
            for _ in 0..dice.throw(3) {
                workers.run_sync(pid, ()).limiter(&one).await.unwrap();
            }
            let worker = workers.run_sync(pid, ()).limiter(&one).await.unwrap();
            let (worker, ended) = (process_of(worker), Async::new(process_of(worker)).unwrap());
            let scope = CancelScope::new();
            let asked_after = dice.throw(60_000);
            // In a third of all cycles the worker lives on.
            let killed_after = Some(dice.throw(120_000)).filter(|_| cycle % 3 != 0);
            let looks = 1 + dice.throw(400);
            let faults = thread::spawn({
                let scope = scope.clone();
                move || {
                    let began = Instant::now();
                    let ask = || {
                        spin_until(began, asked_after);
                        scope.cancel();
                    };
                    let kill = |after| {
                        spin_until(began, after);
                        let killed = pidfd_send_signal(&worker, Signal::KILL);
                        assert!(matches!(killed, Ok(()) | Err(Errno::SRCH)));
                    };
                    match killed_after {
                        Some(after) if after < asked_after => {
                            kill(after);
                            ask();
                        }
                        _ => {
                            ask();
                            killed_after.map(kill);
                        }
                    }
                }
            });
            let call = workers.run_sync(end_when_asked, ()).limiter(&one);
            if let Some(outcome) = scope.run(call.kill_after(PATIENCE)).await {
                unless_killed(outcome);
            }
            let next = workers.run_sync(is_asked, looks).limiter(&one);
            assert_ne!(unless_killed(next.await), Some(true), "{story}");
            faults.join().unwrap();
            if killed_after.is_some() {
                ended.readable().await.unwrap();
            }
        }
        let statistics = workers.statistics();
        assert_eq!(statistics.killed, 0, "no patience was over");
        assert_eq!(one.borrowed(), 0);
    });
}

/// Raises the limit of descriptors to the hard limit until this is dropped.
struct ManyDescriptors(Rlimit);

impl ManyDescriptors {
    fn new() -> Self {
        let before = getrlimit(Resource::Nofile);
        let most = Rlimit {
            current: before.maximum,
            ..before
        };
        setrlimit(Resource::Nofile, most).unwrap();
        ManyDescriptors(before)
    }
}

impl Drop for ManyDescriptors {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

/// No job goes on before all have begun.
fn two_hundred_workers_run_jobs_at_once() {
    const MANY: usize = 200;
    let _room = ManyDescriptors::new();
    staged(WorkerConfig::new(), |workers| async move {
        let mut stage = Stage::new();
        let limiter = CapacityLimiter::new(MANY);
        let mut pids = std::collections::BTreeSet::new();
        let (workers, limiter, path, arrived) = (&workers, &limiter, stage.path(), &mut pids);
        let stage = &mut stage;
        open_nursery(|n| async move {
            let calls: Vec<_> = (0..MANY)
                .map(|_| {
                    let call = workers
                        .run_sync(stage::halting_pid, path.clone())
                        .limiter(limiter);
                    n.spawn(call.into_future())
                })
                .collect();
            for _ in 0..MANY {
                assert!(arrived.insert(stage.reached().await));
            }
            assert_eq!(workers.statistics().running_workers, MANY);
            stage.release();
            for call in calls {
                assert!(arrived.remove(&call.await.unwrap()));
            }
        })
        .await;
        assert!(pids.is_empty());
        assert_eq!(workers.statistics().idle_workers, MANY);
    });
}

/// All results are sent at the same time, and none fits into the buffer of a socket.
fn large_results_of_many_workers_do_not_mix() {
    const MANY: u8 = 40;
    fn fill((file, with): (PathBuf, u8)) -> String {
        let mut pipe = File::options().write(true).open(file).unwrap();
        pipe.write_all(&[with]).unwrap();
        String::from_utf8(vec![with; 1 << 20]).unwrap()
    }
    staged(WorkerConfig::new(), |workers| async move {
        let stage = Stage::new();
        let limiter = CapacityLimiter::new(usize::from(MANY));
        let here = stage.path().join("here");
        let (workers, limiter, here) = (&workers, &limiter, &here);
        let _keep_open = File::options().read(true).write(true).open(here).unwrap();
        open_nursery(|n| async move {
            let calls: Vec<_> = (0..MANY)
                .map(|with| {
                    let call = workers
                        .run_sync(fill, (here.clone(), with))
                        .limiter(limiter);
                    (with, n.spawn(call.into_future()))
                })
                .collect();
            for (with, call) in calls {
                let filled = call.await.unwrap();
                assert_eq!(filled.len(), 1 << 20);
                assert!(filled.bytes().all(|byte| byte == with));
            }
        })
        .await;
        let mut all = vec![0; usize::from(MANY)];
        (&_keep_open).read_exact(&mut all).unwrap();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..MANY), "each job ran once");
    });
}

suite! {
    thousands_of_killed_workers_are_replaced_and_nothing_accumulates,
    requests_end_their_jobs_and_no_others_while_workers_are_killed,
    two_hundred_workers_run_jobs_at_once,
    large_results_of_many_workers_do_not_mix,
}
