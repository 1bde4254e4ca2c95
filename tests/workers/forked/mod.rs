//! Behaviour that only forked workers have.

pub mod hostile;
pub mod unable;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::common::stage::{kill, signal, within};
use crate::common::{
    children, is_alive, is_worker, name_of, pid, test, wait_until_gone, with_workers,
};
use rustix::process::Signal;
use seedbed::worker::{WorkerErrorKind, WorkerType};
use seedbed::{CancelScope, WorkerConfig, open_worker_context};

static PRELOADED: AtomicU32 = AtomicU32::new(0);
static TABLE: OnceLock<Vec<u64>> = OnceLock::new();

fn parent(_: ()) -> u32 {
    std::os::unix::process::parent_id()
}

/// Returns the process id of the fork server.
fn fork_server() -> u32 {
    let servers: Vec<u32> = children()
        .into_iter()
        .filter(|&pid| name_of(pid).ends_with("-fork"))
        .collect();
    assert_eq!(servers.len(), 1, "one fork server for a context");
    servers[0]
}

/// A configuration with a new worker for each job.
fn single_use() -> WorkerConfig {
    WorkerConfig::new().single_use()
}

fn forked_workers_are_children_of_the_program_with_a_name_of_their_own() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        assert_eq!(
            workers.run_sync(parent, ()).await.unwrap(),
            std::process::id()
        );
        let worker = workers.run_sync(pid, ()).await.unwrap();
        assert!(is_worker(worker), "{}", name_of(worker));
        assert_ne!(worker, fork_server());
        assert_eq!(children().len(), 2);
    }));
}

fn preload_closures_run_once_for_all_workers_in_their_order_with_their_data() {
    fn count() {
        PRELOADED.fetch_add(1, Relaxed);
    }
    fn fill(&(from, to): &(u64, u64)) {
        assert_eq!(
            PRELOADED.load(Relaxed),
            1,
            "in the order in which they were given"
        );
        TABLE.get_or_init(|| (from..to).collect());
    }
    fn look(at: usize) -> (u32, u64, u32) {
        let table = TABLE.get().expect("it was preloaded");
        (PRELOADED.load(Relaxed), table[at], std::process::id())
    }
    let config = single_use()
        .preload(count)
        .preload_with((100u64, 200u64), fill);
    test(with_workers(config, |workers| async move {
        let mut seen = Vec::new();
        for at in 0..5 {
            let (times, value, worker) = workers.run_sync(look, at).await.unwrap();
            assert_eq!((times, value), (1, 100 + at as u64));
            assert!(!seen.contains(&worker));
            seen.push(worker);
        }
        assert_eq!(PRELOADED.load(Relaxed), 0, "not in this process");
    }));
}

fn changes_by_one_worker_are_not_seen_by_others() {
    static CHANGED: AtomicU32 = AtomicU32::new(0);
    fn change(_: ()) -> u32 {
        CHANGED.fetch_add(1, Relaxed)
    }
    test(with_workers(single_use(), |workers| async move {
        for _ in 0..5 {
            assert_eq!(workers.run_sync(change, ()).await.unwrap(), 0);
        }
    }));
}

fn a_preload_closure_that_panics_fails_the_call_and_is_tried_again_by_the_next() {
    fn fail() {
        panic!("no table");
    }
    test(with_workers(
        WorkerConfig::new().preload(fail),
        |workers| async move {
            for _ in 0..2 {
                let error = workers.run_sync(pid, ()).await.unwrap_err();
                assert_eq!(error.kind(), WorkerErrorKind::Init);
                assert_eq!(error.panic().unwrap().message(), "no table");
            }
            assert_eq!(children(), []);
        },
    ));
}

fn a_preload_closure_that_leaves_a_thread_makes_forking_unsafe_and_auto_spawns() {
    fn start_thread() {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    test(async {
        let config = WorkerConfig::new().preload(start_thread);
        let error = with_workers(config.clone(), |workers| async move {
            workers.run_sync(pid, ()).await.unwrap_err()
        })
        .await;
        assert_eq!(error.kind(), WorkerErrorKind::UnsafeFork);
        assert!(error.to_string().contains("has 2 threads"), "{error}");
        let config = config.worker_type(WorkerType::Auto);
        open_worker_context(config, |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
            assert_eq!(children().len(), 1, "the worker, and no fork server");
        })
        .await;
        let config = WorkerConfig::new().worker_type(WorkerType::Auto);
        open_worker_context(config, |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
            assert!(is_alive(fork_server()), "the other context is not to blame");
        })
        .await;
    });
}

fn a_fork_server_that_is_killed_is_started_again_and_its_workers_live_on() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let worker = workers.run_sync(pid, ()).await.unwrap();
        let first = fork_server();
        kill(first);
        wait_until_gone(first);
        assert!(is_alive(worker));
        assert_eq!(
            workers.run_sync(pid, ()).await.unwrap(),
            worker,
            "it was idle"
        );
        kill(worker);
        wait_until_gone(worker);
        assert_ne!(workers.run_sync(pid, ()).await.unwrap(), worker);
        assert_ne!(fork_server(), first);
    }));
}

/// It stayed a zombie, with its descriptors, until the next call that needed a worker.
fn a_fork_server_that_ends_is_reaped_without_a_call() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        let server = fork_server();
        kill(server);
        within(async {
            while children().contains(&server) {
                smol::future::yield_now().await;
            }
        })
        .await;
    }));
}

fn workers_requested_while_the_fork_server_is_killed_are_started() {
    test(with_workers(single_use(), |workers| async move {
        for _ in 0..20 {
            workers.run_sync(pid, ()).await.unwrap();
            let victim = fork_server();
            let killer = smol::unblock(move || kill(victim));
            let calls = workers.run_sync(pid, ()).into_future();
            let (value, ()) = smol::future::zip(calls, killer).await;
            value.unwrap();
        }
    }));
}

/// Takes five seconds, the time that a fork server has to answer.
fn a_fork_server_that_does_not_answer_is_replaced() {
    test(with_workers(single_use(), |workers| async move {
        workers.run_sync(pid, ()).await.unwrap();
        let stopped = fork_server();
        signal(stopped, Signal::STOP);
        workers.run_sync(pid, ()).await.unwrap();
        assert_ne!(fork_server(), stopped);
    }));
}

fn a_call_that_is_cancelled_while_the_fork_server_starts_does_not_stop_it() {
    fn slowly() {
        std::thread::sleep(Duration::from_millis(200));
    }
    test(with_workers(
        WorkerConfig::new().preload(slowly),
        |workers| async move {
            let scope = CancelScope::new();
            let call = workers.run_sync(pid, ()).kill_on_cancel(true);
            let mut call = Box::pin(scope.run(call));
            assert!(smol::future::poll_once(&mut call).await.is_none());
            scope.cancel();
            assert!(call.await.is_none(), "at once");
            workers.run_sync(pid, ()).await.unwrap();
            fork_server();
        },
    ));
}

fn a_context_that_ends_while_its_fork_server_starts_leaves_no_process() {
    fn forever() {
        loop {
            std::thread::park();
        }
    }
    test(with_workers(
        WorkerConfig::new().preload(forever),
        |workers| async move {
            let call = workers.run_sync(pid, ()).kill_on_cancel(true).into_future();
            let mut call = Box::pin(call);
            while children().is_empty() {
                assert!(smol::future::poll_once(&mut call).await.is_none());
            }
        },
    ));
}

fn a_context_dropped_from_outside_takes_its_fork_server_with_it() {
    test(async {
        let block = with_workers(WorkerConfig::new(), |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
            smol::future::pending::<()>().await;
        });
        let mut block = Box::pin(block);
        while children().len() < 2 {
            assert!(smol::future::poll_once(&mut block).await.is_none());
            smol::future::yield_now().await;
        }
    });
}

suite! {
    forked_workers_are_children_of_the_program_with_a_name_of_their_own,
    preload_closures_run_once_for_all_workers_in_their_order_with_their_data,
    changes_by_one_worker_are_not_seen_by_others,
    a_preload_closure_that_panics_fails_the_call_and_is_tried_again_by_the_next,
    a_preload_closure_that_leaves_a_thread_makes_forking_unsafe_and_auto_spawns,
    a_fork_server_that_is_killed_is_started_again_and_its_workers_live_on,
    a_fork_server_that_ends_is_reaped_without_a_call,
    workers_requested_while_the_fork_server_is_killed_are_started,
    a_fork_server_that_does_not_answer_is_replaced,
    a_call_that_is_cancelled_while_the_fork_server_starts_does_not_stop_it,
    a_context_that_ends_while_its_fork_server_starts_leaves_no_process,
    a_context_dropped_from_outside_takes_its_fork_server_with_it,
}
