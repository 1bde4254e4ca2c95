//! Calls that go by a mailbox: from a worker's second job on, while both sides are awake.
//!
//! The same tests run with the socket alone (`tests/socket_only.sh`), as nobody must see a difference but in speed.

#[macro_use]
mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use common::{pid, test, with_workers};
use seedbed::{
    CapacityLimiter, WorkerConfig, WorkerContext, WorkerErrorKind, checkpoint, move_on_after,
    open_nursery,
};

fn increment(n: u64) -> u64 {
    n + 1
}

/// A job whose argument and result have as many bytes as is said, and which takes a while if they are odd.
fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() % 7 == 3 {
        std::thread::sleep(Duration::from_micros(100));
    }
    bytes.reverse();
    bytes
}

fn die(_: ()) {
    std::process::abort();
}

/// What a process does, and how much time it has had, in ticks.
fn account(pid: u32) -> (String, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    (fields[0].to_owned(), ticks(11) + ticks(12))
}

async fn warm_up(workers: &WorkerContext) {
    for n in 0..5 {
        assert_eq!(workers.run_sync(increment, n).await.unwrap(), n + 1);
    }
}

fn many_quick_calls_in_a_row_use_one_worker_and_come_back_in_order() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        for n in 0..20_000 {
            assert_eq!(workers.run_sync(increment, n).await.unwrap(), n + 1);
        }
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), worker);
        assert_eq!(workers.statistics().idle_workers, 1);
    }));
}

fn values_of_all_sizes_travel_one_after_the_other_by_whichever_way_fits() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let mut seed = 1_u64;
        for _ in 0..1_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // Around the size of a slot, far above, and small ones mostly.
            let length = match seed >> 60 {
                0 => 32_500 + (seed >> 33) as usize % 400,
                1 => (seed >> 33) as usize % 300_000,
                _ => (seed >> 33) as usize % 100,
            };
            let bytes: Vec<u8> = (0..length).map(|at| (at as u64 ^ seed) as u8).collect();
            let mut expected = bytes.clone();
            expected.reverse();
            assert_eq!(workers.run_sync(reverse, bytes).await.unwrap(), expected);
        }
    }));
}

fn callers_at_the_same_time_get_their_own_answers() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let limiter = CapacityLimiter::new(3);
        open_nursery(async |n| {
            for caller in 0..20_u64 {
                let (workers, limiter) = (&workers, &limiter);
                n.spawn(async move {
                    for round in 0..100 {
                        let number = 1_000 * caller + round;
                        let call = workers.run_sync(increment, number).limiter(limiter);
                        assert_eq!(call.await.unwrap(), number + 1);
                    }
                });
            }
        })
        .await;
        assert_eq!(limiter.borrowed(), 0);
        assert!(workers.statistics().idle_workers <= 3);
    }));
}

fn threads_that_run_and_threads_that_do_not_share_a_worker() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let limiter = CapacityLimiter::new(1);
        let calls = |workers: WorkerContext, limiter: CapacityLimiter| async move {
            for n in 0..300 {
                let call = workers.run_sync(increment, n).limiter(&limiter);
                assert_eq!(call.await.unwrap(), n + 1);
            }
        };
        let others: Vec<_> = [true, false]
            .into_iter()
            .map(|runs| {
                let theirs = calls(workers.clone(), limiter.clone());
                smol::unblock(move || match runs {
                    true => seedbed::run(theirs),
                    false => smol::block_on(theirs),
                })
            })
            .collect();
        calls(workers.clone(), limiter).await;
        for other in others {
            other.await;
        }
        assert_eq!(workers.statistics().idle_workers, 1);
    }));
}

fn a_task_that_blocks_on_a_call_in_the_middle_of_a_run_hears_its_answer() {
    fn slowly(n: u64) -> u64 {
        std::thread::sleep(Duration::from_micros(30));
        n + 1
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        warm_up(&workers).await;
        for n in 0..200 {
            // Nobody looks for this answer but the reactor: the run's loop stands still.
            let call = workers.run_sync(slowly, n).into_future();
            assert_eq!(smol::block_on(call).unwrap(), n + 1);
        }
    }));
}

fn a_task_that_makes_only_quick_calls_lets_its_siblings_have_their_turns() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        warm_up(&workers).await;
        let (stop, calls) = (AtomicBool::new(false), AtomicU32::new(0));
        open_nursery(async |n| {
            n.spawn(async {
                while !stop.load(Relaxed) {
                    workers.run_sync(increment, 1).await.unwrap();
                    calls.fetch_add(1, Relaxed);
                }
            });
            for _ in 0..100 {
                checkpoint().await;
            }
            stop.store(true, Relaxed);
        })
        .await;
        assert!(calls.load(Relaxed) > 0);
    }));
}

fn a_time_limit_ends_a_loop_of_quick_calls() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        warm_up(&workers).await;
        let endless = async {
            loop {
                workers.run_sync(increment, 1).await.unwrap();
            }
        };
        let outcome: Option<()> = move_on_after(Duration::from_millis(20), endless).await;
        assert!(outcome.is_none());
        warm_up(&workers).await;
    }));
}

fn a_worker_that_dies_with_a_job_from_its_mailbox_is_an_error_and_the_next_call_has_another() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for _ in 0..20 {
            warm_up(&workers).await;
            let error = workers.run_sync(die, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken);
            assert_eq!(error.exit().unwrap().signal_name(), Some("SIGABRT"));
        }
    }));
}

fn a_worker_that_is_killed_between_two_quick_calls_costs_no_call() {
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for _ in 0..50 {
            warm_up(&workers).await;
            let worker = workers.run_sync(pid, ()).await.unwrap();
            let process = Pid::from_raw(worker.cast_signed()).unwrap();
            kill_process(process, Signal::KILL).unwrap();
            // Until all its threads have ended it may take a job.
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(process), ended).unwrap();
            assert_eq!(workers.run_sync(increment, 1).await.unwrap(), 2);
        }
    }));
}

fn an_idle_worker_sleeps() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        warm_up(&workers).await;
        let worker = workers.run_sync(pid, ()).await.unwrap();
        while account(worker).0 != "S" {
            checkpoint().await;
        }
        let before = account(worker);
        seedbed::sleep(Duration::from_millis(300)).await;
        assert_eq!(account(worker), before);
    }));
}

fn a_job_that_takes_its_time_is_waited_for_and_the_next_quick_one_is_quick_again() {
    fn slowly(milliseconds: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(milliseconds));
        milliseconds
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for round in 0..30 {
            warm_up(&workers).await;
            let time = round % 3;
            assert_eq!(workers.run_sync(slowly, time).await.unwrap(), time);
        }
    }));
}

suite! {
    many_quick_calls_in_a_row_use_one_worker_and_come_back_in_order,
    values_of_all_sizes_travel_one_after_the_other_by_whichever_way_fits,
    callers_at_the_same_time_get_their_own_answers,
    threads_that_run_and_threads_that_do_not_share_a_worker,
    a_task_that_blocks_on_a_call_in_the_middle_of_a_run_hears_its_answer,
    a_task_that_makes_only_quick_calls_lets_its_siblings_have_their_turns,
    a_time_limit_ends_a_loop_of_quick_calls,
    a_worker_that_dies_with_a_job_from_its_mailbox_is_an_error_and_the_next_call_has_another,
    a_worker_that_is_killed_between_two_quick_calls_costs_no_call,
    an_idle_worker_sleeps,
    a_job_that_takes_its_time_is_waited_for_and_the_next_quick_one_is_quick_again,
}
