//! A worker in the making by a fork server: which is asked for it; or, where no fork is safe and that may be, executing the
//! program after all.
//!
//! Once it is asked for, a forked worker is as good as there: what is sent to it lies in its socket when it comes to
//! life, and should it not, that is noticed like the end of any other.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::fork_server::ForkServer;
use super::hook::Recipe;
use super::launcher::{Launch, Launched};
use crate::worker::error::WorkerError;

/// A worker in the making by a fork server, or, where that may be, by executing the program.
pub(in crate::worker) struct Forking {
    fork_server: ForkServer,
    recipe: Arc<Recipe>,
    stage: Stage,
}

type Request = dyn Future<Output = Result<Option<Launched>, WorkerError>> + Send;

enum Stage {
    /// The fork server is asked, and perhaps started first.
    Asking(Pin<Box<Request>>),
    Spawning(Launch),
}

impl Forking {
    pub(in crate::worker) fn new(fork_server: ForkServer, recipe: Arc<Recipe>) -> Self {
        let request = fork_server.clone().request(recipe.clone());
        Forking {
            fork_server,
            recipe,
            stage: Stage::Asking(Box::pin(request)),
        }
    }

    pub(in crate::worker) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Launched, WorkerError>> {
        loop {
            match &mut self.stage {
                Stage::Asking(request) => match ready!(request.as_mut().poll(cx))? {
                    Some(launched) => return Poll::Ready(Ok(launched)),
                    // Forking is not safe here.
                    None => {
                        let config = self.fork_server.config();
                        let captures = config.captures_stderr();
                        let launch =
                            Launch::spawn(self.recipe.clone(), config.environment(), captures)?;
                        self.stage = Stage::Spawning(launch);
                    }
                },
                Stage::Spawning(launch) => return launch.poll(cx),
            }
        }
    }

    /// Whether no worker has been asked for. (A fork server that is being started is not this call's.)
    pub(in crate::worker) fn is_nothing_yet(&self) -> bool {
        matches!(self.stage, Stage::Asking(_))
    }
}

impl fmt::Debug for Forking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forking")
            .field("asking", &self.is_nothing_yet())
            .finish_non_exhaustive()
    }
}
