//! The ends of sessions and calls: which items have ended, which one was struck, and which are
//! left.

use super::driver::{Driver, FORGED, observe};
use super::lane::{Session, Single};
use super::order::MapOrder;
use crate::transport::codec;
use crate::transport::frame::Frame;
use crate::transport::out_message::OutMessage;
use crate::worker::data::{Argument, JobResult};
use crate::worker::error::{WorkerError, WorkerErrorKind};
use crate::worker::tuning::MAP_FRUITLESS_WORKERS;

impl<A: Argument, R: JobResult, O: MapOrder> Driver<'_, A, R, O> {
    /// The worker has ended a session by itself.
    pub(super) fn session_done(&mut self, mut session: Session, mut frame: Frame) {
        let fds = std::mem::take(&mut frame.fds);
        let large = codec::decode_received::<Option<R>>(frame.payload(), fds);
        let in_item = self.settle(&mut session);
        if let Some(index) = in_item {
            session.ledger.end_next();
            match large {
                Ok(Some(result)) => self.delivery.push(index, Ok(result)),
                Ok(None) => self.fail(index, WorkerError::protocol(FORGED)),
                Err(error) => self.fail(index, WorkerError::decode_result(error)),
            }
        }
        session.feeder.restart();
        self.spare.push((session.feeder, session.memory));
    }

    /// The call of a session has ended with an error: its worker ended, or it did not begin.
    pub(super) fn session_failed(&mut self, mut session: Session, error: WorkerError) {
        let in_item = self.settle(&mut session);
        let is_end_of_worker = is_end_of_worker(&error);
        if let Some(index) = in_item {
            let error = match session.last_end {
                Some(since) if error.kind() == WorkerErrorKind::Broken => {
                    error.having_run(since.elapsed())
                }
                _ => error,
            };
            let struck = session
                .ledger
                .take_struck()
                .expect("an item is in progress");
            if is_end_of_worker && struck.strikes() <= self.plan.retries {
                self.queue.push_front(struck);
            } else {
                self.fail(index, error);
            }
            return;
        }
        if session.ledger.ended() == 0 {
            self.fruitless += 1;
            if !is_end_of_worker || self.fruitless >= MAP_FRUITLESS_WORKERS {
                self.fruitless = 0;
                self.charge(error);
            }
        }
    }

    /// Delivers the results of a session that has ended, and puts the items that have not begun
    /// back into the queue. Returns the index of the item in which the worker has ended.
    pub(super) fn settle(&mut self, session: &mut Session) -> Option<usize> {
        let kept = session.feeder.withdraw(0);
        let taken = self.delivery.take_results(session, &self.plan);
        observe(&mut self.sizer, session);
        let (Ok(kept), Ok(_)) = (kept, taken) else {
            // It is not known which items have run, so none may run again.
            while let Some((index, _)) = session.ledger.next() {
                session.ledger.end_next();
                self.fail(index, WorkerError::protocol(FORGED));
            }
            return None;
        };
        let kept = kept.max(session.ledger.ended());
        for chunk in session.ledger.withdraw(kept).into_iter().rev() {
            self.queue.push_front(chunk);
        }
        // At most one item is in progress, unless the worker has forged its progress since it was
        // read.
        while session.ledger.ended() + 1 < kept
            && let Some((index, _)) = session.ledger.next()
        {
            session.ledger.end_next();
            self.fail(index, WorkerError::protocol(FORGED));
        }
        session.ledger.next().map(|(index, _)| index)
    }

    pub(super) fn single_failed(&mut self, mut single: Single, error: WorkerError) {
        match single.kept.take() {
            Some((frame, fds))
                if is_end_of_worker(&error) && single.strikes < self.plan.retries =>
            {
                single.strikes += 1;
                let message = OutMessage::new(frame.clone(), fds.clone());
                single.kept = Some((frame, fds));
                self.singles.push_front((single, message));
            }
            _ => self.fail(single.index, error),
        }
    }

    /// Makes an error that concerns no single item that of the next one, so that the map goes on.
    pub(super) fn charge(&mut self, error: WorkerError) {
        if let Some((single, _)) = self.singles.pop_front() {
            self.fail(single.index, error);
        } else if let Some(chunk) = self.queue.front_mut() {
            let index = chunk.pop();
            if chunk.is_empty() {
                self.queue.pop_front();
            }
            self.fail(index, error);
        }
    }

    pub(super) fn fail(&mut self, index: usize, error: WorkerError) {
        let error = self.plan.named(error, index);
        self.delivery.push(index, Err(error));
    }
}

/// Returns whether an error means that the worker ended while it had the item.
fn is_end_of_worker(error: &WorkerError) -> bool {
    matches!(
        error.kind(),
        WorkerErrorKind::Broken | WorkerErrorKind::TimedOut
    )
}
