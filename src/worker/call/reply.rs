//! The meaning of a frame that a worker sends while it has a job.

use crate::transport::codec;
use crate::transport::frame::{Frame, Kind};
use crate::transport::job::panic_report::PanicReport;
use crate::worker::error::{WorkerError, WorkerPanic};

/// The meaning of a frame for the call that waits for its job.
#[derive(Debug)]
pub(in crate::worker) enum Reply {
    Done,
    Failed(WorkerError),
    /// The worker cannot serve, and has not begun to.
    CannotServe(WorkerError),
    Exits,
    ExitsBecause(WorkerError),
    Unexpected(&'static str),
}

const NO_ANSWER: Reply = Reply::Unexpected("a frame that is no answer");

impl Reply {
    pub(in crate::worker) fn of(frame: &Frame) -> Self {
        match frame.header.kind {
            Kind::Done => Self::Done,
            Kind::BadArgument => Self::Failed(WorkerError::decode_argument(&frame.text())),
            Kind::BadResult => Self::Failed(WorkerError::encode_result(&frame.text())),
            Kind::NotOurCode => Self::Failed(WorkerError::image_mismatch()),
            Kind::Bye => Self::Exits,
            Kind::Panicked => {
                Self::of_report(frame, |panic| Self::Failed(WorkerError::panicked(panic)))
            }
            Kind::RetirePanicked => Self::of_report(frame, |panic| {
                Self::ExitsBecause(WorkerError::retire(panic))
            }),
            Kind::CannotServe | Kind::InitFailed | Kind::Multithreaded => {
                WorkerError::of_refusal(frame).map_or(NO_ANSWER, Self::CannotServe)
            }
            Kind::Prelude
            | Kind::SetUp
            | Kind::Job
            | Kind::Hello
            | Kind::Ready
            | Kind::Fork
            | Kind::Mailbox
            | Kind::AnswerInMailbox
            | Kind::Fault
            | Kind::Cancel
            | Kind::Traced => NO_ANSWER,
        }
    }

    fn of_report(frame: &Frame, reply: impl FnOnce(WorkerPanic) -> Self) -> Self {
        match codec::decode::<PanicReport>(frame.payload()) {
            Ok(report) => reply(report.into()),
            Err(_) => Self::Unexpected("a report that cannot be decoded"),
        }
    }
}
