//! Killing a job that spins: from the decision until its process has been reaped.
//!
//! Every sample starts a fresh process and waits until it says that it spins; only what comes after that is measured.

use std::{os::fd::AsFd, time::Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use seedbed::CancelScope;

use crate::{
    child::{Listener, spin, spin_command},
    measure::{Comparison, Samples},
    options::Options,
};

const ROUNDS: (usize, usize) = (10, 20);

/// Prints the section.
pub fn compare(options: &Options) {
    Comparison::new("kill", ROUNDS, "seedbed cancel of run_sync", our_round)
        .beside("SIGKILL + waitid", limit_round)
        .beside("smol::process kill + status", smol_round)
        .beside("procspawn kill", procspawn_round)
        .run(options);
}

/// Ours: `cancel()` until `run_sync` has let go, which is when its worker has been reaped.
fn our_round(samples: &mut Samples) {
    let listener = Listener::new("ours");
    seedbed::run(async {
        for _ in 0..samples.wanted() {
            let scope = CancelScope::new();
            let job = seedbed::run_sync(spin, listener.name().to_owned()).kill_on_cancel(true);
            let decide = async {
                listener.wait().await;
                let decided = Instant::now();
                scope.cancel();
                decided
            };
            let (killed, decided) = smol::future::zip(scope.run(job), decide).await;
            samples.record(decided.elapsed(), 1);
            assert!(killed.is_none(), "the job ended by itself: {killed:?}");
        }
    });
}

/// The limit: the two system calls that it takes.
#[expect(clippy::zombie_processes, reason = "it is reaped through its pidfd")]
fn limit_round(samples: &mut Samples) {
    let listener = Listener::new("limit");
    for _ in 0..samples.wanted() {
        let child = spin_command(listener.name())
            .spawn()
            .expect("this executable starts again");
        smol::block_on(listener.wait());
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("our child");
        samples.time_blocking(1, || {
            pidfd_send_signal(&pidfd, Signal::KILL).expect("our child");
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("our child")
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
