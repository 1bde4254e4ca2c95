//! `thread::run_sync`: which scopes wait for a thread, how long it holds its token, and its calls
//! into the run.

#[path = "../common/poll_times.rs"]
mod poll_times;

mod caller;
mod calls;
mod running;

use std::sync::mpsc::{Receiver, Sender, channel};

use seedbed::CapacityLimiter;

/// A job that reports its start, and ends when it is released.
fn job() -> (
    impl FnOnce() -> &'static str + Send,
    smol::channel::Receiver<()>,
    Sender<()>,
) {
    let (begun, has_begun) = smol::channel::bounded(1);
    let (let_go, go): (Sender<()>, Receiver<()>) = channel();
    let work = move || {
        begun.try_send(()).unwrap();
        // Released by a message or by dropping the sender.
        _ = go.recv();
        "done"
    };
    (work, has_begun, let_go)
}

/// Waits for a token that an abandoned thread returns, without a run.
fn wait_until_unused(limiter: &CapacityLimiter) {
    let all = limiter.total().unwrap();
    limiter.set_total(1);
    drop(smol::block_on(limiter.acquire()));
    limiter.set_total(all);
}
