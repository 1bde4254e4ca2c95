//! The entry of this program's child processes: their first argument names their task.

use crate::{child, fork_server, mailbox};

/// Does the task of a child process and exits, if this process is one. Returns otherwise.
pub fn serve_if_asked() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(child::ECHO) => {
            if let Some(core) = arguments.next() {
                child::pin_to_core(core.parse().expect("the number of a core"));
            }
            child::echo();
        }
        Some(child::BUSY) => child::busy(),
        Some(child::SPIN) => child::spin(arguments.next().expect("the name of a listener")),
        Some(child::MAILBOX) => mailbox::serve(arguments),
        Some(child::FORK_SERVER) => fork_server::serve(),
        _ => return,
    }
    std::process::exit(0);
}
