//! `#[seedbed::test(keep_workers = true)]`. Alone in its process, because the default workers are
//! the process's.

use std::process::id;
use std::sync::Mutex;

use seedbed::run_sync;
use seedbed::worker::default_context_statistics;

/// The workers of all runs, in order.
static WORKERS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

#[seedbed::test(keep_workers = true)]
#[ignore = "called by the test below"]
async fn records_its_worker_and_keeps_it() {
    let worker = run_sync(|()| id(), ()).await.unwrap();
    WORKERS.lock().unwrap().push(worker);
}

#[test]
fn the_run_of_a_test_may_leave_its_workers_to_the_next_run() {
    records_its_worker_and_keeps_it();
    assert_eq!(default_context_statistics().idle_workers, 1);
    records_its_worker_and_keeps_it();
    let workers = WORKERS.lock().unwrap().clone();
    assert_eq!(workers[0], workers[1]);
}
