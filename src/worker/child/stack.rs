//! Serves on a stack of another size.

use std::convert::Infallible;

use super::tuning::EXIT_FAILED;
use crate::sys::stack;
use crate::transport::job::panic::catch;
use crate::transport::message::Refusal;

/// Serves on a stack of this many bytes. Returns only if there is no memory for the stack.
pub(super) fn serve_on_stack<W>(bytes: usize, worker: W, serve: fn(W) -> !) -> (W, Refusal) {
    let mut waiting = Some(worker);
    let serve = || -> Infallible {
        stack::adopt();
        serve(waiting.take().expect("it is called once"))
    };
    // Without memory, `grow` panics before it calls anything.
    let Err(report) = catch(|| stacker::grow(bytes, serve));
    match waiting {
        Some(worker) => {
            let refusal = Refusal {
                setting: format!("stack_size({bytes})"),
                os_error: None,
                words: format!(
                    "there is no room for it ({}); take a smaller one, or allow the worker more memory",
                    reason(&report.message)
                ),
            };
            (worker, refusal)
        }
        // `serve` panicked, which is a fault of this crate and has been printed.
        None => std::process::exit(EXIT_FAILED),
    }
}

/// Returns the kernel's reason at the end of a panic message, or the whole message.
fn reason(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    line.rsplit_once(": ").map_or(line, |(_, reason)| reason)
}
