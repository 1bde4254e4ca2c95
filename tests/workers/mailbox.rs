//! Calls through a mailbox, which workers have from their second job on, and which is used while
//! both sides are awake.
//!
//! `tests/socket_only.sh` runs the same tests with the socket alone, because only the speed may
//! differ.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::common::stage::{kill, until_ended};
use crate::common::{endless, pid, test, with_workers};
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::worker::{WorkerErrorKind, WorkerStatus};
use seedbed::{
    CapacityLimiter, WorkerConfig, WorkerContext, checkpoint, move_on_after, open_nursery,
};
use smol::future::poll_once;

fn increment(n: u64) -> u64 {
    n + 1
}

/// A job that returns its bytes in reverse order, and takes some time if their number is odd.
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

/// Returns the state of a process, and its CPU time in ticks.
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

fn values_of_all_sizes_arrive_by_mailbox_or_socket() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let mut seed = 1_u64;
        for _ in 0..300 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // Mostly small, some around the size of a slot, and some far larger.
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

fn threads_inside_and_outside_of_runs_share_a_worker() {
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
                smol::unblock(move || {
                    if runs {
                        seedbed::run(theirs)
                    } else {
                        smol::block_on(theirs)
                    }
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

fn a_task_that_blocks_on_a_call_in_a_run_gets_its_answer() {
    fn slowly(n: u64) -> u64 {
        std::thread::sleep(Duration::from_micros(30));
        n + 1
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        warm_up(&workers).await;
        for n in 0..200 {
            // The run's loop is blocked, so only the reactor notices this answer.
            let call = workers.run_sync(slowly, n).into_future();
            assert_eq!(smol::block_on(call).unwrap(), n + 1);
        }
    }));
}

fn a_task_that_makes_only_quick_calls_does_not_starve_its_siblings() {
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

/// A limit of the library's, after which a call yields.
fn at_most_a_few_calls_in_a_row_end_in_their_first_poll() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        warm_up(&workers).await;
        let mut in_a_row = 0;
        for n in 0..5000 {
            let mut call = workers.run_sync(increment, n).into_future();
            let result = match poll_once(&mut call).await {
                Some(result) => {
                    in_a_row += 1;
                    assert!(in_a_row < 32);
                    result
                }
                None => {
                    in_a_row = 0;
                    call.await
                }
            };
            assert_eq!(result.unwrap(), n + 1);
        }
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

fn a_worker_that_is_killed_between_two_quick_calls_fails_no_call() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for _ in 0..50 {
            warm_up(&workers).await;
            let worker = workers.run_sync(pid, ()).await.unwrap();
            kill(worker);
            until_ended(worker); // before that it may receive a job
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

fn a_slow_job_does_not_slow_down_the_next_quick_one() {
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

/// Like `test`, but inside a run, whose loop polls the mailboxes.
fn test_in_a_run<F, Fut>(config: WorkerConfig, body: F)
where
    F: FnOnce(WorkerContext) -> Fut,
    Fut: Future<Output = ()>,
{
    test(async { seedbed::run(with_workers(config, body)) });
}

/// Takes longer than a call spins for its answer.
fn slowly(n: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(5));
    n + 1
}

/// A worker that halts in its retire closure after the second job, until it is released.
struct Dawdler(tempfile::TempDir);

impl Dawdler {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> WorkerConfig {
        let dawdle = |folder: &PathBuf, worker: &WorkerStatus| {
            if worker.jobs() == 6 {
                std::fs::write(folder.join("answered"), "").unwrap();
                wait_for(&folder.join("go"));
            }
            false
        };
        WorkerConfig::new().retire_with(self.0.path().to_owned(), dawdle)
    }

    fn wait_until_it_has_answered(&self) {
        wait_for(&self.0.path().join("answered"));
    }

    fn let_it_go(&self) {
        std::fs::write(self.0.path().join("go"), "").unwrap();
    }
}

fn wait_for(path: &Path) {
    while !path.exists() {
        std::thread::yield_now();
    }
}

fn a_slow_retire_closure_does_not_delay_the_answer_to_a_blocked_thread() {
    let dawdler = Dawdler::new();
    test_in_a_run(dawdler.config(), async |workers| {
        warm_up(&workers).await;
        let call = workers.run_sync(slowly, 1).into_future();
        assert_eq!(smol::block_on(call).unwrap(), 2);
        dawdler.let_it_go();
    });
}

fn a_slow_retire_closure_does_not_delay_the_answer_to_a_busy_run() {
    let dawdler = Dawdler::new();
    test_in_a_run(dawdler.config(), async |workers| {
        warm_up(&workers).await;
        let done = AtomicBool::new(false);
        open_nursery(async |n| {
            n.spawn(async {
                while !done.load(Relaxed) {
                    checkpoint().await;
                }
            });
            assert_eq!(workers.run_sync(slowly, 1).await.unwrap(), 2);
            done.store(true, Relaxed);
        })
        .await;
        dawdler.let_it_go();
    });
}

fn an_answer_that_has_arrived_is_handled_before_all_tasks_count_as_blocked() {
    // An answer in the socket is noticed by the reactor, which may run on another thread.
    if cfg!(seedbed_socket_only) {
        return;
    }
    let dawdler = Dawdler::new();
    test_in_a_run(dawdler.config(), async |workers| {
        warm_up(&workers).await;
        let order = Mutex::new(Vec::new());
        open_nursery(async |n| {
            n.spawn(async {
                assert_eq!(workers.run_sync(slowly, 1).await.unwrap(), 2);
                order.lock().unwrap().push("answer");
            });
            checkpoint().await;
            dawdler.wait_until_it_has_answered();
            wait_all_tasks_blocked().await;
            order.lock().unwrap().push("blocked");
            dawdler.let_it_go();
        })
        .await;
        assert_eq!(*order.lock().unwrap(), ["answer", "blocked"]);
    });
}

fn a_worker_that_was_killed_right_after_its_answer_is_not_counted_as_idle() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for _ in 0..20 {
            warm_up(&workers).await;
            let worker = workers.run_sync(pid, ()).await.unwrap();
            kill(worker);
            until_ended(worker);
            assert_eq!(workers.statistics().idle_workers, 0);
        }
    }));
}

fn a_program_that_may_write_no_files_makes_calls() {
    /// Makes calls in a process of its own.
    fn call_without_files(_: ()) -> u64 {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Fsize);
        limit.current = Some(0);
        setrlimit(Resource::Fsize, limit).unwrap();
        smol::block_on(async {
            let mut sum = 0;
            for n in 0..5 {
                sum += seedbed::run_sync(increment, n).await.unwrap();
            }
            sum
        })
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert_eq!(workers.run_sync(call_without_files, ()).await.unwrap(), 15);
    }));
}

/// Returns the number of mailboxes that this process has mapped.
fn mailboxes() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.matches("seedbed-mailbox").count()
}

/// The run's loop once kept the mailboxes of all ended workers until its next poll.
fn a_task_that_blocks_in_a_run_does_not_accumulate_mailboxes() {
    test_in_a_run(WorkerConfig::new().retire_after(3), async |workers| {
        smol::block_on(async {
            for n in 0..300 {
                assert_eq!(workers.run_sync(increment, n).await.unwrap(), n + 1);
            }
        });
        assert!(mailboxes() < 20, "{} mailboxes", mailboxes());
    });
}

fn a_run_leaves_no_mailbox_behind() {
    test_in_a_run(WorkerConfig::new(), async |workers| {
        warm_up(&workers).await;
        let call = workers.run_sync(endless, ()).kill_on_cancel(true);
        let mut call = Box::pin(call.into_future());
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        drop(call);
    });
    assert_eq!(mailboxes(), 0);
}

fn a_job_that_closes_all_descriptors_harms_no_other() {
    fn close_everything(_: ()) {
        // SAFETY: unsound on purpose, because the descriptors have owners. The test is what such a
        // job brings about.
        unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for _ in 0..10 {
            warm_up(&workers).await;
            // The answer may have gone through the mailbox, which needs no descriptor.
            let _ = workers.run_sync(close_everything, ()).await;
            assert_eq!(workers.run_sync(increment, 1).await.unwrap(), 2);
        }
    }));
}

suite! {
    a_slow_retire_closure_does_not_delay_the_answer_to_a_blocked_thread,
    a_slow_retire_closure_does_not_delay_the_answer_to_a_busy_run,
    an_answer_that_has_arrived_is_handled_before_all_tasks_count_as_blocked,
    a_worker_that_was_killed_right_after_its_answer_is_not_counted_as_idle,
    a_program_that_may_write_no_files_makes_calls,
    a_task_that_blocks_in_a_run_does_not_accumulate_mailboxes,
    a_run_leaves_no_mailbox_behind,
    a_job_that_closes_all_descriptors_harms_no_other,
    many_quick_calls_in_a_row_use_one_worker_and_come_back_in_order,
    values_of_all_sizes_arrive_by_mailbox_or_socket,
    callers_at_the_same_time_get_their_own_answers,
    threads_inside_and_outside_of_runs_share_a_worker,
    a_task_that_blocks_on_a_call_in_a_run_gets_its_answer,
    a_task_that_makes_only_quick_calls_does_not_starve_its_siblings,
    at_most_a_few_calls_in_a_row_end_in_their_first_poll,
    a_time_limit_ends_a_loop_of_quick_calls,
    a_worker_that_dies_with_a_job_from_its_mailbox_is_an_error_and_the_next_call_has_another,
    a_worker_that_is_killed_between_two_quick_calls_fails_no_call,
    an_idle_worker_sleeps,
    a_slow_job_does_not_slow_down_the_next_quick_one,
}
