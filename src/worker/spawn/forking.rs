//! A worker that is to be forked by the context's fork server, or executed if the program cannot
//! fork.
//!
//! Once the fork has been requested, the worker can be used: frames sent to it wait in its socket,
//! and a fork that fails is noticed like the end of any other worker.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::exec_spec::ExecSpec;
use super::fork_server::{EarlyFork, ForkServer};
use super::inheritance::Inheritance;
use super::launcher::{Launch, Spawning};
use crate::worker::conn::worker::Launched;
use crate::worker::error::WorkerError;

/// A worker that is being forked, or executed if the program cannot fork.
pub(in crate::worker) struct Forking {
    fork_server: ForkServer,
    spec: Arc<ExecSpec>,
    stage: Stage,
}

type Request = dyn Future<Output = Result<Option<Launched>, WorkerError>> + Send;

#[expect(
    clippy::large_enum_variant,
    reason = "a `Forking` is in a box, and lives shortly"
)]
enum Stage {
    /// The request has been made. `None` after the answer was given.
    Requested(Option<Launched>),
    /// The request is made, after the fork server has been started if there was none.
    Requesting(Pin<Box<Request>>),
    Spawning(Spawning),
}

impl Forking {
    /// Requests a fork, unless `early` is one that inherits what it should. Otherwise `early` is
    /// dropped, which ends that process before it has any job.
    pub(in crate::worker) fn new(
        fork_server: ForkServer,
        spec: Arc<ExecSpec>,
        credentials: u64,
        early: Option<EarlyFork>,
    ) -> Self {
        let environment = fork_server.config().environment();
        let inherited = Inheritance::present(credentials, &environment);
        let fits = early.and_then(|early| early.with(&inherited));
        let stage = match fits {
            Some(launched) => Stage::Requested(Some(launched)),
            None => {
                let request = fork_server.clone().request(spec.clone(), inherited);
                Stage::Requesting(Box::pin(request))
            }
        };
        Forking {
            fork_server,
            spec,
            stage,
        }
    }
}

impl Launch for Forking {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Launched, WorkerError>> {
        loop {
            match &mut self.stage {
                Stage::Requested(launched) => {
                    let launched = launched.take().expect("polled after the answer was given");
                    return Poll::Ready(Ok(launched));
                }
                Stage::Requesting(request) => match ready!(request.as_mut().poll(cx))? {
                    Some(launched) => return Poll::Ready(Ok(launched)),
                    // The program cannot fork at its hook.
                    None => {
                        let config = self.fork_server.config();
                        let captures = config.captures_stderr();
                        let spawning =
                            Spawning::new(self.spec.clone(), config.environment(), captures)?;
                        self.stage = Stage::Spawning(spawning);
                    }
                },
                Stage::Spawning(spawning) => return spawning.poll(cx),
            }
        }
    }

    /// A fork server that is being started is not this call's to clean up.
    fn is_unrequested(&self) -> bool {
        matches!(self.stage, Stage::Requesting(_))
    }
}

impl fmt::Debug for Forking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forking")
            .field("is_unrequested", &self.is_unrequested())
            .finish_non_exhaustive()
    }
}
