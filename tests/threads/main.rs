//! `thread::run_sync`: whose scope waits for a thread, who holds its token until when, and what it
//! can ask of the run.

#[path = "../common/poll_times.rs"]
mod poll_times;

mod calls;
mod host;
mod running;

use std::sync::mpsc::{Receiver, Sender, channel};

use seedbed::CapacityLimiter;

/// A job that says that it has begun, and ends when it is let go.
fn job() -> (
    impl FnOnce() -> &'static str + Send,
    smol::channel::Receiver<()>,
    Sender<()>,
) {
    let (begun, has_begun) = smol::channel::bounded(1);
    let (let_go, go): (Sender<()>, Receiver<()>) = channel();
    let work = move || {
        begun.try_send(()).unwrap();
        // Let go by a message or by the end of the sender.
        _ = go.recv();
        "done"
    };
    (work, has_begun, let_go)
}

/// Waits for a token without the help of a run: it is given back by a thread that nobody waits for.
fn wait_until_unused(limiter: &CapacityLimiter) {
    let all = limiter.total().unwrap();
    limiter.set_total(1);
    drop(smol::block_on(limiter.acquire()));
    limiter.set_total(all);
}
