//! A call without its types, and one attempt to run it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::in_worker::{Surroundings, run_with};
use crate::delayed::job_statistics::JobStatistics;
use crate::resource::Allocation;
use crate::sys::stack;
use crate::transport::codec;
use crate::transport::codec_error::CodecError;
use crate::transport::job::code::{Code, JobFn};
use crate::transport::payload::arena_pool::ArenaPool;
use crate::transport::payload::outgoing_memory::Attachments;
use crate::wait::CallWaits;
use crate::worker::{EncodeArgument, WorkerContext, waits_of};

/// One attempt to run a call.
pub(in crate::delayed) struct Attempt {
    pub(in crate::delayed) call: Arc<dyn Call>,
    /// `None` if the job asks for nothing.
    pub(in crate::delayed) allocation: Option<Arc<Allocation>>,
    /// The workers that the user has chosen.
    pub(in crate::delayed) context: Option<WorkerContext>,
    pub(in crate::delayed) kill_on_cancel: bool,
    pub(in crate::delayed) time_limit: Option<Duration>,
}

/// A function of this program's image and its argument, without their types. The encoded result is
/// that of the function and a [`JobStatistics`].
pub(in crate::delayed) trait Call: Send + Sync {
    /// Returns the name of the function, and the waits of its calls.
    fn waits(&self) -> &'static CallWaits;

    /// Returns the code, or `None` if the function lies outside the main executable.
    fn code(&self) -> Option<Code<JobFn>>;

    /// Appends the argument, and what the worker does around the function, to `out`. A large
    /// argument is in an arena of `arenas`, if there is a pool of them. Each attempt encodes anew.
    ///
    /// # Errors
    ///
    /// If the argument cannot be encoded. `out` is unchanged then.
    fn encode(
        &self,
        surroundings: Option<&Surroundings>,
        out: &mut Vec<u8>,
        arenas: Option<&ArenaPool>,
    ) -> Result<Attachments, CodecError>;
}

/// A call whose argument is kept for the next attempt.
pub(in crate::delayed) struct Called<A: Send + 'static> {
    code: Option<Code<JobFn>>,
    waits: &'static CallWaits,
    /// `None` while this is dropped.
    argument: Option<A>,
    is_too_deep: AtomicBool,
}

impl<A: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static> Called<A> {
    /// Makes the call of `f`, which captures nothing, on behalf of a function of the type `F`.
    pub(in crate::delayed) fn new<F, R>(
        f: impl Fn(A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Self
    where
        R: Serialize + Send + 'static,
    {
        // Captures `f`, which has no size, so that this closure has none.
        let job = move |(surroundings, argument): (Option<Surroundings>, A)| {
            let result: (R, JobStatistics) = run_with(surroundings, || f(argument));
            result
        };
        Self {
            code: Code::of_job(job),
            waits: waits_of::<F>(),
            argument: Some(argument),
            is_too_deep: AtomicBool::new(false),
        }
    }
}

impl<A: Serialize + Send + Sync + 'static> Call for Called<A> {
    fn waits(&self) -> &'static CallWaits {
        self.waits
    }

    fn code(&self) -> Option<Code<JobFn>> {
        self.code
    }

    fn encode(
        &self,
        surroundings: Option<&Surroundings>,
        out: &mut Vec<u8>,
        arenas: Option<&ArenaPool>,
    ) -> Result<Attachments, CodecError> {
        let Some(argument) = &self.argument else {
            unreachable!("the argument is there until this is dropped");
        };
        let argument = (surroundings, argument);
        let encoded = codec::encode_for_worker(&argument, out, arenas);
        encoded.inspect_err(|error| {
            self.is_too_deep
                .fetch_or(error.is_too_deep(), Ordering::Relaxed);
        })
    }
}

/// Drops an argument that is nested too deeply for the stack on another one.
impl<A: Send + 'static> Drop for Called<A> {
    fn drop(&mut self) {
        if *self.is_too_deep.get_mut()
            && let Some(argument) = self.argument.take()
        {
            stack::drop_deep(Box::new(argument));
        }
    }
}

/// The argument of an attempt.
pub(super) struct AttemptArgument {
    pub(super) call: Arc<dyn Call>,
    pub(super) surroundings: Option<Surroundings>,
}

impl EncodeArgument for AttemptArgument {
    fn encode(
        &self,
        out: &mut Vec<u8>,
        arenas: Option<&ArenaPool>,
    ) -> Result<Attachments, CodecError> {
        self.call.encode(self.surroundings.as_ref(), out, arenas)
    }
}
