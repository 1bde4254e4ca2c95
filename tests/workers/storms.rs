//! Many workers: thousands that are killed and replaced, and hundreds at once.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use crate::common;
use crate::common::stage::{self, Bystander, Stage, forever, staged, within};
use crate::common::{pid, worker_type};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seedbed::worker::{WorkerErrorKind, WorkerType};
use seedbed::{CapacityLimiter, WorkerConfig, open_nursery};

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
    two_hundred_workers_run_jobs_at_once,
    large_results_of_many_workers_do_not_mix,
}
