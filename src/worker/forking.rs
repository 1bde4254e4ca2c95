//! A worker in the making by a fork server: asking, waiting for what becomes of it, asking again if the server died; or, where
//! no fork is safe and that may be, executing the program after all.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::fork_server::{ATTEMPTS, ForkServer};
use super::hook::Recipe;
use super::launch::{Launch, Launched};
use super::unborn::{Stillborn, Unborn};
use crate::error::WorkerError;

/// A worker in the making by a fork server, or, where that may be, by executing the program.
pub(super) struct Forking {
    fork_server: ForkServer,
    recipe: Arc<Recipe>,
    attempts: usize,
    stage: Stage,
}

enum Stage {
    /// The fork server is asked, and perhaps started first.
    Asking(Pin<Box<dyn Future<Output = Result<Option<Unborn>, WorkerError>> + Send>>),
    Unborn(Unborn),
    Spawning(Launch),
}

impl Forking {
    pub(super) fn new(fork_server: ForkServer, recipe: Arc<Recipe>) -> Self {
        let stage = Stage::Asking(Box::pin(fork_server.clone().request(recipe.clone())));
        Forking {
            fork_server,
            recipe,
            attempts: 1,
            stage,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Launched, WorkerError>> {
        loop {
            match &mut self.stage {
                Stage::Asking(request) => match ready!(request.as_mut().poll(cx)) {
                    Ok(Some(unborn)) => self.stage = Stage::Unborn(unborn),
                    // Forking is not safe here.
                    Ok(None) => {
                        let config = self.fork_server.config();
                        let captures = config.captures_stderr();
                        match Launch::spawn(self.recipe.clone(), config.environment(), captures) {
                            Ok(launch) => self.stage = Stage::Spawning(launch),
                            Err(error) => return Poll::Ready(Err(error)),
                        }
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Stage::Unborn(unborn) => match ready!(unborn.poll(cx)) {
                    Ok(launched) => return Poll::Ready(Ok(launched)),
                    Err(Stillborn::Failed(error)) => return Poll::Ready(Err(error)),
                    Err(Stillborn::Again) if self.attempts >= ATTEMPTS => {
                        return Poll::Ready(Err(WorkerError::fork_failed(
                            "the fork server died each time that it was asked",
                        )));
                    }
                    Err(Stillborn::Again) => {
                        self.attempts += 1;
                        let request = self.fork_server.clone().request(self.recipe.clone());
                        self.stage = Stage::Asking(Box::pin(request));
                    }
                },
                Stage::Spawning(launch) => return launch.poll(cx),
            }
        }
    }

    /// Whether no worker has been asked for. (A fork server that is being started is not this call's.)
    pub(super) fn is_nothing_yet(&self) -> bool {
        matches!(self.stage, Stage::Asking(_))
    }
}

impl fmt::Debug for Forking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forking")
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
