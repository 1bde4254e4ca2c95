//! A program that makes its first call while it has no free descriptor. It is a test program of its
//! own, because the reactor must not have been started.

use std::fs::File;
use std::future::IntoFuture;

use futures_lite::future::block_on;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seedbed::run_sync;
use seedbed::worker::WorkerErrorKind;

#[test]
fn a_first_call_without_room_for_smols_own_descriptors_is_an_error_and_the_next_one_is_done() {
    seedbed::init();
    let before = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(64),
        ..before
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    for _ in 0..3 {
        let error = block_on(run_sync(i32::abs, -1).into_future()).unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        assert!(error.to_string().contains("ulimit -n"), "{error}");
        taken.pop();
    }
    drop(taken);
    assert_eq!(block_on(run_sync(i32::abs, -1).into_future()).unwrap(), 1);
}
