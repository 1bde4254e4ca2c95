//! Limits that are learned from earlier jobs.

mod common;

use std::future::pending;
use std::time::Duration;

use common::{poll_with_yields, test};
use rustix::thread::sched_getaffinity;
use seedbed::delayed::{
    Cores, Delayed, JobErrorKind, Jobs, Learned, Memory, Resources, Units, WallTime, allocation,
    each, open,
};
use seedbed::process::{Command, run_process};
use seedbed::testing::MockClock;
use seedbed::worker::{ExitCause, WorkerErrorKind};
use seedbed::{CancelScope, RunBuilder, checkpoint, sleep};
use smol::future::{yield_now, zip};

const MEBIBYTE: u64 = 1 << 20;

fn core_only() -> Resources {
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..1024).find(|&cpu| allowed.is_set(cpu));
    Resources::none().cores(first)
}

/// One core that this process may use, and memory.
fn one_core() -> Resources {
    core_only().memory(Memory::mib(512))
}

/// Writes to this many mebibytes, and returns the memory that the job may have.
fn fill(mebibytes: u64) -> u64 {
    let bytes = vec![1_u8; (mebibytes * MEBIBYTE) as usize];
    std::hint::black_box(bytes);
    allocation().unwrap().memory().unwrap()
}

/// Makes a group known by eight jobs of 20 MiB.
async fn know(learning: &Jobs<'_>) {
    for _ in 0..8 {
        learning.call(fill, 20).await.unwrap();
    }
}

#[test]
fn the_first_jobs_have_the_memory_of_their_cores_and_later_ones_what_was_learned() {
    test(open(one_core(), async |jobs| {
        let learning = jobs.memory(Learned::new("group"));
        let half = jobs
            .on(Cores::share(0.5))
            .memory(Learned::new("another group"));
        assert_eq!(half.call(fill, 1).await.unwrap(), 256 * MEBIBYTE);
        for _ in 0..8 {
            assert_eq!(learning.call(fill, 20).await.unwrap(), 512 * MEBIBYTE);
        }
        let learned = learning.call(fill, 20).await.unwrap();
        assert!(
            (64 * MEBIBYTE..256 * MEBIBYTE).contains(&learned),
            "{learned}"
        );
        // Another handle of the same group knows it, too, and the other group does not.
        let same = jobs.memory(Learned::new("group")).call(fill, 1);
        assert!(same.await.unwrap() < 256 * MEBIBYTE);
        assert_eq!(half.call(fill, 1).await.unwrap(), 256 * MEBIBYTE);
    }));
}

#[test]
fn memory_is_fixed_when_a_job_is_submitted() {
    test(open(one_core(), async |jobs| {
        let learning = jobs.memory(Learned::new("group"));
        // There is one core, so that the ninth job begins after eight were learned from.
        let at_once: Vec<Delayed<u64>> = (0..9).map(|_| learning.call(fill, 20)).collect();
        assert_eq!(each(at_once).await.unwrap(), [512 * MEBIBYTE; 9]);
        assert!(learning.call(fill, 20).await.unwrap() < 256 * MEBIBYTE);
    }));
}

#[test]
fn a_job_that_runs_out_of_learned_memory_runs_once_more_with_all_and_is_learned_from() {
    test(open(one_core(), async |jobs| {
        let learning = jobs.memory(Learned::new("group"));
        know(&learning).await;
        let much = learning.call(fill, 300);
        assert_eq!((&much).await.unwrap(), 512 * MEBIBYTE);
        let cost = much.statistics().unwrap();
        assert_eq!(cost.attempts, 2);
        assert!(cost.peak_memory.unwrap() >= 300 * MEBIBYTE);
        let next = learning.call(fill, 300);
        assert!((&next).await.unwrap() >= 375 * MEBIBYTE);
        assert_eq!(next.statistics().unwrap().attempts, 1);
    }));
}

#[test]
fn the_second_run_is_next_to_no_other_job_with_memory_and_before_those_that_wait() {
    let resources = Resources::none()
        .amount("places", 2)
        .memory(Memory::mib(512));
    test(open(resources, async |jobs| {
        let learning = jobs.memory(Learned::new("group"));
        let place = Units("places", 1);
        let learning = learning.on(place);
        know(&learning).await;
        let much = learning.call(fill, 300);
        let others: Vec<Delayed<u64>> = (0..6).map(|_| learning.call(fill, 20)).collect();
        each(others).await.unwrap();
        assert_eq!(much.await.unwrap(), 512 * MEBIBYTE);
        let statistics = jobs.statistics();
        let resources = &statistics.resources;
        assert!(resources.iter().all(|one| one.free == one.total));
    }));
}

#[test]
fn a_job_that_runs_out_of_all_memory_fails() {
    test(open(one_core(), async |jobs| {
        let learning = jobs.memory(Learned::new("group"));
        for (attempts, after) in [(1, "nothing"), (2, "eight jobs")] {
            let error = learning.call(fill, 700).await.unwrap_err();
            assert_eq!(error.kind(), JobErrorKind::Worker(WorkerErrorKind::Broken));
            let cause = error.worker().unwrap().exit().unwrap().cause();
            assert_eq!(
                (cause, error.attempts()),
                (ExitCause::OutOfMemory, attempts),
                "after {after}"
            );
            know(&learning).await;
        }
    }));
}

#[test]
fn a_second_run_that_can_never_have_all_memory_is_refused_and_does_not_wait() {
    test(open(one_core(), async |jobs| {
        know(&jobs.memory(Learned::new("group"))).await;
        let outer = jobs.clone();
        let holder = jobs.on(Memory::mib(100)).spawn(async move {
            let block = outer.open(async |inner| {
                let learning = inner.memory(Learned::new("group"));
                let much = learning.call(fill, 300);
                // Not awaited, as an await in this future could be ended by a deadlock.
                while !much.is_done() {
                    assert_eq!(inner.statistics().queued, 0);
                    checkpoint().await;
                }
                much.await.unwrap_err()
            });
            block.await
        });
        let error = holder.await.unwrap();
        assert_eq!(
            (error.kind(), error.attempts()),
            (JobErrorKind::Impossible, 1)
        );
        let text = error.to_string();
        assert!(
            text.contains("ran out of its memory")
                && text.contains("holds 100 MiB until the block"),
            "{text}"
        );
    }));
}

#[test]
fn a_second_run_needs_the_learned_time_as_the_first_does() {
    seedbed::init();
    let _alone = common::alone(); // it has workers
    let clock = MockClock::new();
    let run = RunBuilder::new().clock(clock.clone());
    let block = open(one_core().wall_time(seconds(190)), async |jobs| {
        know(&jobs.memory(Learned::new("group"))).await;
        let timed = jobs.time_limit(Learned::new("group"));
        for _ in 0..8 {
            let passing = clock.clone();
            let job = timed.spawn(async move { passing.jump(seconds(20)) });
            job.await.unwrap();
        }
        let both = timed.memory(Learned::new("group"));
        // Such jobs take 20 seconds, and 30 are left when the first run begins, but 15 at its end.
        let much = both.call(fill, 300);
        assert_eq!(jobs.statistics().running, 1);
        clock.jump(seconds(15));
        let error = much.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (JobErrorKind::Impossible, 1)
        );
        assert!(error.to_string().contains("20s of wall time"), "{error}");
    });
    run.run(block);
}

fn abort(_: ()) {
    std::process::abort();
}

#[test]
fn a_job_that_crashes_for_another_reason_is_not_run_again() {
    test(open(one_core(), async |jobs| {
        let learning = jobs.memory(Learned::new("group"));
        know(&learning).await;
        let error = learning.call(abort, ()).await.unwrap_err();
        assert_eq!(error.attempts(), 1);
        let error = learning.retry(1).call(abort, ()).await.unwrap_err();
        assert_eq!(error.attempts(), 2);
    }));
}

#[test]
fn a_block_that_is_dropped_or_cancelled_at_any_moment_of_a_second_run_leaves_nothing() {
    async fn body(jobs: Jobs<'_>) {
        // Without earlier jobs, each of two cores has half of the memory.
        let learning = jobs.on(Cores::share(0.5)).memory(Learned::new("group"));
        drop(learning.call(fill, 300));
        drop(learning.call(fill, 300));
        pending::<()>().await;
    }
    for polls in [0, 1, 3, 10, 100, 1000, 5000] {
        test(async {
            assert!(!poll_with_yields(open(one_core(), body), polls).await);
        });
        test(async {
            let scope = CancelScope::new();
            let cancelling = async {
                for _ in 0..polls {
                    yield_now().await;
                }
                scope.cancel();
            };
            let (ended, ()) = zip(scope.run(open(one_core(), body)), cancelling).await;
            assert!(ended.is_none() && common::children().is_empty());
        });
    }
}

#[test]
fn memory_that_is_asked_for_twice_is_an_error_and_a_block_without_memory_has_no_limit() {
    test(async {
        open(one_core(), async |jobs| {
            let twice = jobs.on(Cores(1) & Memory::mib(64));
            let error = twice.memory(Learned::new("group")).call(fill, 1).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), JobErrorKind::Impossible);
            assert!(
                error.to_string().contains("memory stands on both sides"),
                "{error}"
            );
        })
        .await;
        open(core_only(), async |jobs| {
            let free = jobs.memory(Learned::new("group"));
            assert_eq!(free.call(i32::abs, -3).await.unwrap(), 3);
        })
        .await;
    });
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_time_limit_is_learned_from_eight_jobs_and_none_holds_before() {
    let run = RunBuilder::new().clock(MockClock::autojump());
    run.run(open(one_core(), async |jobs| {
        let learning = jobs.time_limit(Learned::new("group"));
        for _ in 0..7 {
            learning.spawn(sleep(seconds(20))).await.unwrap();
        }
        // The eighth job may still take as long as it wants.
        let unlimited = seedbed::move_on_after(seconds(100_000), async {
            learning.spawn(sleep(seconds(90_000))).await
        });
        assert!(unlimited.await.unwrap().is_ok());

        let learning = jobs.time_limit(Learned::new("others"));
        for _ in 0..8 {
            learning.spawn(sleep(seconds(20))).await.unwrap();
        }
        let error = learning.spawn(pending::<()>()).await.unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::TimedOut);
        assert!(error.to_string().contains("40s"), "{error}");
        learning.spawn(sleep(seconds(39))).await.unwrap();
    }));
}

#[test]
fn jobs_that_fail_or_run_in_another_block_teach_nothing() {
    let run = RunBuilder::new().clock(MockClock::autojump());
    run.run(async {
        open(one_core(), async |jobs| {
            let learning = jobs.time_limit(Learned::new("group"));
            for _ in 0..8 {
                learning.spawn(sleep(seconds(20))).await.unwrap();
            }
            for _ in 0..8 {
                learning.spawn(pending::<()>()).await.unwrap_err();
            }
            let error = learning.spawn(pending::<()>()).await.unwrap_err();
            assert!(error.to_string().contains("40s"), "{error}");
        })
        .await;
        open(one_core(), async |jobs| {
            let learning = jobs.time_limit(Learned::new("group"));
            learning.spawn(sleep(seconds(1000))).await.unwrap();
        })
        .await;
    });
}

#[test]
fn a_job_does_not_begin_when_the_block_has_less_time_than_such_jobs_take() {
    let run = RunBuilder::new().clock(MockClock::autojump());
    run.run(open(one_core().wall_time(seconds(190)), async |jobs| {
        let learning = jobs.time_limit(Learned::new("group"));
        for _ in 0..9 {
            learning.spawn(sleep(seconds(20))).await.unwrap();
        }
        // Ten seconds are left.
        let error = learning.spawn(sleep(seconds(1))).await.unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::Impossible);
        assert!(error.to_string().contains("20s of wall time"), "{error}");
        // A wall time in the request takes the place of a learned one.
        let knows = learning.on(WallTime(seconds(5)));
        knows.spawn(sleep(seconds(1))).await.unwrap();
    }));
}

fn endless(_: u32) {
    loop {
        std::thread::park();
    }
}

#[test]
fn calls_and_programs_learn_and_have_the_least_limit_when_they_are_short() {
    test(open(one_core(), async |jobs| {
        let calls = jobs.time_limit(Learned::new("calls"));
        let programs = jobs.time_limit(Learned::new("programs"));
        for n in 0..8 {
            calls.call(i32::abs, n).await.unwrap();
            programs.run_process(Command::new("true")).await.unwrap();
        }
        let error = jobs
            .time_limit(Duration::from_millis(1))
            .call(endless, 1)
            .await;
        assert_eq!(error.unwrap_err().kind(), JobErrorKind::TimedOut);
        // The learned limits are ten seconds, so that these end by their own limits.
        let mut command = Command::new("sleep");
        command.arg("1000");
        let brief = run_process(command).time_limit(Duration::from_millis(1));
        let error = programs.run_process(brief).await.unwrap_err();
        assert!(error.to_string().contains("1ms"), "{error}");
        calls.call(i32::abs, -1).await.unwrap();
    }));
}
