//! A parent of forked workers that has no free descriptor, or whose requests the fork server does
//! not read.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use seedbed::worker::WorkerErrorKind;
use seedbed::{CancelScope, CapacityLimiter, WorkerContext, WorkerError};

use super::hostile::asked_while_stopped;
use super::{fork_server, single_use};
use crate::common::stage::{signal, stop, within};
use crate::common::{is_alive, pid, test, wait_until_gone, with_workers};

/// Uses up all descriptors of the process until it is dropped.
struct Full {
    before: Rlimit,
    _taken: Vec<OwnedFd>,
}

impl Full {
    fn new() -> Self {
        let before = getrlimit(Resource::Nofile);
        let few = Rlimit {
            current: Some(64),
            ..before
        };
        setrlimit(Resource::Nofile, few).unwrap();
        let more = || rustix::io::dup(rustix::stdio::stdout()).ok();
        Full {
            before,
            _taken: std::iter::from_fn(more).collect(),
        }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.before).unwrap();
    }
}

fn a_worker_whose_descriptor_cannot_be_opened_does_its_job() {
    test(with_workers(single_use(), |workers| async move {
        let call = workers.run_sync(pid, ()).into_future();
        let (server, call) = asked_while_stopped(&workers, call).await;
        let full = Full::new();
        signal(server, Signal::CONT);
        call.await.unwrap();
        drop(full);
        workers.run_sync(pid, ()).await.unwrap();
        assert!(is_alive(server));
    }));
}

/// The kill used to wait for a descriptor.
fn a_worker_whose_descriptor_cannot_be_opened_is_killed_by_its_number() {
    fn forever(_: ()) -> u32 {
        loop {
            std::hint::spin_loop();
        }
    }
    test(with_workers(single_use(), |workers| async move {
        let scope = CancelScope::new();
        let call = workers.run_sync(forever, ()).kill_on_cancel(true);
        let (server, call) = asked_while_stopped(&workers, scope.run(call)).await;
        let full = Full::new();
        signal(server, Signal::CONT);
        scope.cancel();
        assert!(call.await.is_none());
        drop(full);
        assert!(crate::common::workers().is_empty());
    }));
}

fn the_crash_of_a_worker_whose_descriptor_cannot_be_opened_is_reported() {
    fn crash(pid: PathBuf) {
        let mut file = File::create(pid).unwrap();
        write!(file, "{}", std::process::id()).unwrap();
        std::process::abort()
    }
    test(within(with_workers(single_use(), |workers| async move {
        let file = tempfile::NamedTempFile::new().unwrap();
        let call = workers
            .run_sync(crash, file.path().to_owned())
            .into_future();
        let (server, call) = asked_while_stopped(&workers, call).await;
        let full = Full::new();
        signal(server, Signal::CONT);
        let error = call.await.unwrap_err();
        drop(full);
        assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
        let exit = error.exit().unwrap();
        assert_eq!(exit.signal_name(), Some("SIGABRT"));
        let said = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(said, exit.pid().to_string());
        workers.run_sync(pid, ()).await.unwrap();
        assert!(is_alive(server));
    })));
}

fn kill_tree_holds_for_a_worker_whose_descriptor_cannot_be_opened() {
    fn start_and_crash(pid: PathBuf) {
        let sleeper = Command::new("sleep")
            .arg("1000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        write!(File::create(pid).unwrap(), "{}", sleeper.id()).unwrap();
        std::process::abort()
    }
    let config = single_use().kill_tree(true);
    test(within(with_workers(config, |workers| async move {
        let file = tempfile::NamedTempFile::new().unwrap();
        let job = workers.run_sync(start_and_crash, file.path().to_owned());
        let (server, call) = asked_while_stopped(&workers, job.into_future()).await;
        let full = Full::new();
        signal(server, Signal::CONT);
        let error = call.await.unwrap_err();
        drop(full);
        assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}");
        let sleeper = std::fs::read_to_string(file.path()).unwrap();
        wait_until_gone(sleeper.parse().unwrap());
    })));
}

type Call = Pin<Box<dyn Future<Output = Result<u32, WorkerError>> + Send>>;

/// Begins a call, and polls it until it waits.
async fn begun(workers: &WorkerContext, limiter: &CapacityLimiter) -> Call {
    let call = workers.run_sync(pid, ()).limiter(limiter).into_future();
    let mut call: Call = Box::pin(call);
    assert!(smol::future::poll_once(&mut call).await.is_none());
    call
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn calls_beyond_the_queue_of_a_stopped_fork_server_are_served() {
    for end in [Signal::CONT, Signal::KILL] {
        test(within(with_workers(single_use(), |workers| async move {
            workers.run_sync(pid, ()).await.unwrap();
            let server = fork_server();
            stop(server);
            let many = CapacityLimiter::unlimited();
            let mut calls = Vec::new();
            // A call whose request could not be sent holds both ends of its socket.
            loop {
                let before = descriptors();
                calls.push(begun(&workers, &many).await);
                if descriptors() > before + 1 {
                    break;
                }
            }
            for _ in 0..20 {
                calls.push(begun(&workers, &many).await);
            }
            signal(server, end);
            let calls: Vec<_> = calls.into_iter().map(smol::spawn).collect();
            for call in calls {
                call.await.unwrap();
            }
            assert_eq!(is_alive(server), end == Signal::CONT);
        })));
    }
}

suite! {
    a_worker_whose_descriptor_cannot_be_opened_does_its_job,
    a_worker_whose_descriptor_cannot_be_opened_is_killed_by_its_number,
    the_crash_of_a_worker_whose_descriptor_cannot_be_opened_is_reported,
    kill_tree_holds_for_a_worker_whose_descriptor_cannot_be_opened,
    calls_beyond_the_queue_of_a_stopped_fork_server_are_served,
}
