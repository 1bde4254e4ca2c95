//! Killing a job that spins: from the decision until its process has been reaped, and until the
//! next job is done.
//!
//! Every sample starts a fresh process and waits until it reports that it spins; only the time
//! after that is measured.

use std::{
    cell::LazyCell,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use seedbed::worker::WorkerType::{self, ForkServer, Spawn};
use seedbed::{CancelScope, WorkerContext};

use crate::{
    child::{Listener, spin, spin_command},
    fork_server::MinimalForkServer,
    jobs::{self, successor},
    measure::{Comparison, Samples},
    options::Options,
};

const ROUNDS: (usize, usize) = (10, 20);

/// Prints the sections.
pub fn compare(options: &Options) {
    for (section, worker_type) in [("kill/forked", ForkServer), ("kill/spawned", Spawn)] {
        Comparison::new(section, ROUNDS, "seedbed cancel of run_sync", |s| {
            our_round(s, worker_type)
        })
        .beside_within(1.5, "the limit: SIGKILL + waitid", |s| {
            limit_round(s, || {})
        })
        .beside("smol::process kill + status", smol_round)
        .beside("procspawn kill + wait", procspawn_round)
        .run(options);
    }

    let fork_server = LazyCell::new(MinimalForkServer::start);
    Comparison::new(
        "kill/until-the-next-job",
        ROUNDS,
        "seedbed cancel, then a job on a new forked worker",
        our_next_round,
    )
    .ours_within(Duration::from_micros(300))
    .beside(
        "the limit: SIGKILL + waitid, the minimal fork server forks",
        |s| limit_round(s, || fork_server.fork()),
    )
    .beside("procspawn Pool(1) kill, spawn + join", procspawn_next_round)
    .run(options);
}

/// Measures from `cancel()` until `run_sync` has ended, which is when its worker has been reaped.
fn our_round(samples: &mut Samples, worker_type: WorkerType) {
    let listener = Listener::new("ours");
    let config = jobs::config(worker_type, None);
    seedbed::run(seedbed::open_worker_context(config, |context| async move {
        for _ in 0..samples.wanted() {
            let decided = kill_one(&context, &listener).await;
            samples.record(decided.elapsed(), 1);
        }
    }));
}

fn our_next_round(samples: &mut Samples) {
    let listener = Listener::new("ours");
    let config = jobs::config(ForkServer, None);
    seedbed::run(seedbed::open_worker_context(config, |context| async move {
        for number in 0..samples.wanted() as u64 {
            let decided = kill_one(&context, &listener).await;
            let answer = context.run_sync(successor, number).await;
            samples.record(decided.elapsed(), 1);
            assert_eq!(answer.expect("the worker answers"), number + 1);
        }
    }));
}

/// Starts a job that spins, cancels it, and returns the time of the decision.
async fn kill_one(context: &WorkerContext, listener: &Listener) -> Instant {
    let scope = CancelScope::new();
    let job = context
        .run_sync(spin, listener.name().to_owned())
        .kill_on_cancel(true);
    let decide = async {
        listener.wait().await;
        let decided = Instant::now();
        scope.cancel();
        decided
    };
    let (killed, decided) = smol::future::zip(scope.run(job), decide).await;
    assert!(killed.is_none(), "the job ended by itself: {killed:?}");
    decided
}

/// The limit: the two system calls that a kill needs, then `next`.
#[expect(clippy::zombie_processes, reason = "it is reaped through its pidfd")]
fn limit_round(samples: &mut Samples, next: impl Fn()) {
    let listener = Listener::new("limit");
    for _ in 0..samples.wanted() {
        let child = spin_command(listener.name())
            .spawn()
            .expect("this executable starts again");
        smol::block_on(listener.wait());
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("our child");
        samples.time_blocking(1, || {
            pidfd_send_signal(&pidfd, Signal::KILL).expect("our child");
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("our child");
            next();
        });
    }
}

fn smol_round(samples: &mut Samples) {
    let listener = Listener::new("smol");
    smol::block_on(async {
        for _ in 0..samples.wanted() {
            let command = spin_command(listener.name());
            let child = smol::process::Command::from(command).spawn();
            let mut child = child.expect("this executable starts again");
            listener.wait().await;
            let kill = async {
                child.kill().expect("our child");
                child.status().await.expect("our child")
            };
            samples.time(1, kill).await;
        }
    });
}

fn procspawn_round(samples: &mut Samples) {
    let listener = Listener::new("procspawn");
    for _ in 0..samples.wanted() {
        let mut job = procspawn::spawn(listener.name().to_owned(), spin);
        smol::block_on(listener.wait());
        samples.time_blocking(1, || job.kill().expect("our child"));
    }
}

fn procspawn_next_round(samples: &mut Samples) {
    let listener = Listener::new("procspawn");
    let pool = procspawn::Pool::new(1).expect("procspawn starts a pool");
    for number in 0..samples.wanted() as u64 {
        let mut job = pool.spawn(listener.name().to_owned(), spin);
        smol::block_on(listener.wait());
        let answer = samples.time_blocking(1, || {
            job.kill().expect("our child");
            // The pool starts a new worker only after the result of the killed job has been
            // requested.
            job.join().expect_err("the job was killed");
            pool.spawn(number, successor).join()
        });
        assert_eq!(answer.expect("the pool answers"), number + 1);
    }
}
