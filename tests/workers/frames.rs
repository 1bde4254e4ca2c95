//! Malformed frames, truncated frames and frames without an end, on both sides of a worker's
//! connection and on a fork server's. The decoders themselves are tested in `src/transport`, and
//! fuzzed.

use std::collections::BTreeSet;
use std::future::Future;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::common;
use crate::common::stage::{self, Bystander, Stage, announce, halt, staged};
use crate::common::{pid, test, with_workers};
use rustix::fs::{FileType, fstat};
use seedbed::worker::{WorkerErrorKind, WorkerType};
use seedbed::{CapacityLimiter, WorkerConfig, WorkerContext};

/// The first bytes of a frame; see `src/transport/frame/mod.rs`. If they change, these tests send
/// malformed frames.
const MAGIC: [u8; 4] = *b"sbd\x01";
const JOB: u8 = 2;
const DONE: u8 = 7;
const BYE: u8 = 12;

/// Returns a frame's header.
fn header(kind: u8, length: u64) -> Vec<u8> {
    header_of_call(0, kind, length)
}

/// Returns the header of a frame that belongs to one of its worker's calls, which are numbered from
/// 1.
fn header_of_call(call: u16, kind: u8, length: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([kind, 0]);
    bytes.extend(call.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes
}

/// Writes to each of these descriptors that is a socket.
fn write_to_sockets(fds: impl IntoIterator<Item = RawFd>, bytes: &[u8]) {
    for fd in fds {
        // SAFETY: a number without an open descriptor only makes the call fail. Writing to
        // descriptors of others is intended.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let is_socket = |mode| FileType::from_raw_mode(mode) == FileType::Socket;
        if fstat(fd).is_ok_and(|stat| is_socket(stat.st_mode)) {
            rustix::net::send(fd, bytes, rustix::net::SendFlags::NOSIGNAL).unwrap();
        }
    }
}

/// A job that writes to the parent.
fn scribble(bytes: Vec<u8>) {
    write_to_sockets(3..4096, &bytes);
}

fn a_worker_whose_job_writes_a_malformed_frame_is_killed() {
    staged(WorkerConfig::new(), |workers| async move {
        let bystander = Bystander::of(&workers).await;
        let many = CapacityLimiter::unlimited();
        let nonsense = [
            vec![42; 64],
            header(DONE, u64::MAX),
            header(DONE, 1 << 50),
            header(200, 0),
            header(JOB, 0),
            // The first frame is one that no call has asked for; the second one is the answer.
            [header(JOB, 0), header(DONE, 0)].concat(),
        ];
        for bytes in nonsense {
            let call = workers.run_sync(scribble, bytes.clone()).limiter(&many);
            let error = call.await.unwrap_err();
            assert_eq!(
                error.kind(),
                WorkerErrorKind::Protocol,
                "{bytes:?}: {error}"
            );
        }
        bystander.ends_unharmed().await;
        workers.run_sync(pid, ()).await.unwrap();
    });
}

/// How many jobs this worker has begun.
static JOBS: AtomicU16 = AtomicU16::new(0);

fn a_job() -> u16 {
    JOBS.fetch_add(1, Ordering::Relaxed) + 1
}

fn numbered(n: u32) -> (u32, u16) {
    (n, a_job())
}

/// Lets workers of their own run 0 to 3 jobs, and then others.
fn after_some_jobs<Fut: Future<Output = ()>>(more: impl Fn(WorkerContext, u16) -> Fut) {
    test(stage::within(async {
        for jobs in 0..4 {
            let context = with_workers(WorkerConfig::new(), |workers| async {
                for n in 1..=jobs {
                    assert_eq!(workers.run_sync(numbered, 7).await.unwrap(), (7, n));
                }
                more(workers, jobs).await;
            });
            context.await;
        }
    }));
}

/// The call after a forged answer gets its own answer, because the forged one is in the socket,
/// which it does not read; or the parent detects the forgery, and replaces the worker.
async fn is_answered_or_finds_out(workers: &WorkerContext, job: u16) {
    match workers.run_sync(numbered, 7).await {
        Ok(answer) => assert_eq!(answer, (7, job)),
        Err(error) => assert_eq!(error.kind(), WorkerErrorKind::Protocol, "{error}"),
    }
}

/// A job's own call may get the forged answer, but no other call does.
fn an_answer_that_a_job_forged_is_not_that_of_the_next_call() {
    fn forge(times: usize) {
        scribble(header_of_call(a_job(), DONE, 0).repeat(times));
    }
    for times in [1, 2, 3] {
        after_some_jobs(|workers, jobs| async move {
            match workers.run_sync(forge, times).await {
                Ok(()) => {}
                // The call got the forged answer, which has no payload.
                Err(error) => assert_eq!(error.kind(), WorkerErrorKind::DecodeResult),
            }
            is_answered_or_finds_out(&workers, jobs + 2).await;
        });
    }
}

fn a_frame_that_an_idle_worker_sends_is_no_answer_and_no_bye() {
    fn leave_a_forger((stage, kind): (PathBuf, u8)) -> u16 {
        std::thread::spawn(move || {
            halt(&stage);
            scribble(header(kind, 0));
            announce(&stage);
        });
        a_job()
    }
    for kind in [DONE, BYE] {
        after_some_jobs(|workers, jobs| async move {
            let mut stage = Stage::new();
            let forger = workers.run_sync(leave_a_forger, (stage.path(), kind));
            assert_eq!(forger.await.unwrap(), jobs + 1);
            stage.reached().await;
            stage.release();
            stage.reached().await;
            is_answered_or_finds_out(&workers, jobs + 2).await;
        });
    }
}

fn half_a_frame_and_an_end_is_a_broken_worker() {
    fn scribble_and_exit(bytes: Vec<u8>) {
        scribble(bytes);
        std::process::exit(6)
    }
    staged(WorkerConfig::new(), |workers| async move {
        let whole = [header(DONE, 1 << 20), vec![0; 5000]].concat();
        for length in [1, 3, 4, 23, 24, 25, 5000] {
            let bytes = whole[..length].to_vec();
            let error = workers.run_sync(scribble_and_exit, bytes).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Broken, "{length}: {error}");
            assert_eq!(error.exit().unwrap().code(), Some(6));
        }
    });
}

/// Such a worker looks like one that sends a large answer slowly. Its caller can cancel the call.
fn a_call_waits_for_the_rest_of_half_a_frame_and_can_be_cancelled() {
    fn scribble_and_stay(stage: PathBuf) {
        scribble(header(DONE, 1 << 20));
        stage::forever(stage);
    }
    staged(WorkerConfig::new(), |workers| async move {
        let stage = Stage::new();
        let call = workers.run_sync(scribble_and_stay, stage.path());
        stage.cancel_on_arrival(call.kill_on_cancel(true)).await;
        assert!(common::workers().is_empty());
    });
}

fn sockets() -> BTreeSet<RawFd> {
    let open = common::descriptors();
    open.iter()
        .filter_map(|fd| {
            let (path, lead) = fd.split_once(" -> ")?;
            let number = path.rsplit('/').next()?.parse().ok()?;
            lead.starts_with("socket:").then_some(number)
        })
        .collect()
}

fn a_worker_that_receives_a_malformed_frame_exits_and_is_replaced() {
    staged(WorkerConfig::new(), |workers| async move {
        // The fork server is running, and the worker whose socket must not be touched is busy.
        let bystander = Bystander::of(&workers).await;
        let many = CapacityLimiter::unlimited();
        for bytes in [vec![42; 64], header(JOB, u64::MAX), header(DONE, 0)] {
            let before = sockets();
            let victim = workers.run_sync(pid, ()).limiter(&many).await.unwrap();
            let its_socket = &sockets() - &before;
            assert!(!its_socket.is_empty());
            write_to_sockets(its_socket, &bytes);
            stage::until_ended(victim);
            assert_eq!(workers.statistics().idle_workers, 0);
        }
        let other = workers.run_sync(pid, ()).limiter(&many).await.unwrap();
        assert!(common::is_alive(other));
        bystander.ends_unharmed().await;
    });
}

/// The following bytes are taken for the rest of the frame.
fn a_call_after_half_a_frame_gets_its_own_result_or_an_error() {
    fn echo((stage, n): (PathBuf, u32)) -> u32 {
        announce(&stage);
        n
    }
    staged(WorkerConfig::new(), |workers| async move {
        for length in [1, 4, 23] {
            let before = sockets();
            workers.run_sync(pid, ()).await.unwrap();
            let its_socket = &sockets() - &before;
            write_to_sockets(its_socket, &header(JOB, 1 << 20)[..length]);
            let stage = Stage::new();
            match workers.run_sync(echo, (stage.path(), 7)).await {
                Ok(n) => assert_eq!(n, 7),
                Err(error) => assert_eq!(error.kind(), WorkerErrorKind::Broken, "{error}"),
            }
            // The next round begins with a new worker.
            for worker in common::workers() {
                stage::kill(worker);
                stage::until_ended(worker);
            }
            assert_eq!(workers.statistics().idle_workers, 0);
        }
    });
}

fn a_fork_server_that_receives_a_malformed_request_exits_and_is_replaced() {
    if common::worker_type() != WorkerType::ForkServer {
        return; // there is no fork server
    }
    staged(WorkerConfig::new().single_use(), |workers| async move {
        let before = sockets();
        for bytes in [vec![42; 64], header(JOB, u64::MAX), header(JOB, 0)] {
            let used_up = workers.run_sync(pid, ()).await.unwrap();
            stage::until_ended(used_up);
            assert_eq!(workers.statistics().idle_workers, 0);
            let servers: Vec<u32> = common::children();
            assert_eq!(servers.len(), 1, "it, and no worker");
            let its_socket = &sockets() - &before;
            assert_eq!(its_socket.len(), 1);
            write_to_sockets(its_socket, &bytes);
            stage::until_ended(servers[0]);
        }
        workers.run_sync(pid, ()).await.unwrap();
    });
}

suite! {
    a_worker_whose_job_writes_a_malformed_frame_is_killed,
    an_answer_that_a_job_forged_is_not_that_of_the_next_call,
    a_frame_that_an_idle_worker_sends_is_no_answer_and_no_bye,
    half_a_frame_and_an_end_is_a_broken_worker,
    a_call_waits_for_the_rest_of_half_a_frame_and_can_be_cancelled,
    a_worker_that_receives_a_malformed_frame_exits_and_is_replaced,
    a_call_after_half_a_frame_gets_its_own_result_or_an_error,
    a_fork_server_that_receives_a_malformed_request_exits_and_is_replaced,
}
