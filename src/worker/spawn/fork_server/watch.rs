//! Reaps a fork server as soon as it ends, so that it is no zombie until the next call that needs a
//! worker.

use std::mem;
use std::sync::{Arc, Weak};

use super::{ForkServer, Shared, State};
use crate::process::background;
use crate::process::child::EndWatch;

impl ForkServer {
    /// Lets a background task reap the fork server with this number when it ends.
    pub(super) fn watch(&self, number: u64, end: EndWatch) {
        let shared = Arc::downgrade(&self.shared);
        background::spawn(discard_when_ended(shared, number, end)).detach();
    }

    /// Discards the fork server with this number if it has ended. Returns whether it is gone.
    fn discard_ended(&self, number: u64) -> bool {
        let mut state = self.state();
        match &mut *state {
            State::Ready(server) if server.number == number => {
                if server.process.try_reap().is_none() {
                    return false;
                }
            }
            _ => return true, // it was taken out or replaced before
        }
        let ended = mem::replace(&mut *state, State::None);
        drop(state);
        if let State::Ready(server) = ended {
            self.discard(*server); // closes its descriptors, outside of the lock
        }
        true
    }
}

async fn discard_when_ended(shared: Weak<Shared>, number: u64, mut end: EndWatch) {
    while end.wait().await {
        let Some(shared) = shared.upgrade() else {
            return; // its context is gone, and has ended it
        };
        if (ForkServer { shared }).discard_ended(number) {
            return;
        }
    }
}
