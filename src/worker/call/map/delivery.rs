//! Decodes results, brings them into their order, and delivers them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lane::Session;
use super::order::MapOrder;
use super::plan::Plan;
use super::reorder::Reorder;
use super::results::Outlet;
use crate::transport::codec;
use crate::transport::job::panic_report::PanicReport;
use crate::transport::map::feeder::ForgedProgress;
use crate::transport::map::serve::ItemEnd;
use crate::worker::data::JobResult;
use crate::worker::error::WorkerError;

/// The results of a map on their way to the outlet.
pub(super) struct Delivery<R, O: MapOrder> {
    outlet: Arc<Outlet<O::Delivered<Result<R, WorkerError>>>>,
    /// Results that were not delivered yet.
    ready: VecDeque<O::Delivered<Result<R, WorkerError>>>,
    /// Results of an ordered map that wait for others.
    reorder: Reorder<Result<R, WorkerError>>,
    /// The number of results so far.
    count: usize,
    /// An encoded result.
    encoded: Vec<u8>,
}

impl<R: JobResult, O: MapOrder> Delivery<R, O> {
    pub(super) fn new(outlet: Arc<Outlet<O::Delivered<Result<R, WorkerError>>>>) -> Self {
        Self {
            outlet,
            ready: VecDeque::new(),
            reorder: Reorder::new(),
            count: 0,
            encoded: Vec::new(),
        }
    }

    /// Returns how many items have a result.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Adds the result of the item with this index.
    pub(super) fn push(&mut self, index: usize, result: Result<R, WorkerError>) {
        self.count += 1;
        if !O::IS_ORDERED || self.reorder.passes(index) {
            self.ready.push_back(O::deliver(index, result));
            return;
        }
        self.reorder.insert(index, result);
        while let Some((index, result)) = self.reorder.pop() {
            self.ready.push_back(O::deliver(index, result));
        }
    }

    /// Adds the results that a worker has made. Returns how many there were. After an error, the
    /// session has no more results: those that follow could be taken for those of other items.
    pub(super) fn take_results(
        &mut self,
        session: &mut Session,
        plan: &Plan,
    ) -> Result<usize, ForgedProgress> {
        let taken = self.try_take_results(session, plan);
        if taken.is_err() {
            session.feeder.distrust();
        }
        taken
    }

    fn try_take_results(
        &mut self,
        session: &mut Session,
        plan: &Plan,
    ) -> Result<usize, ForgedProgress> {
        let ended = session.feeder.progress()?.ended;
        let before = session.ledger.ended();
        if ended < before {
            return Err(ForgedProgress);
        }
        while session.ledger.ended() < ended {
            let Some((index, bytes)) = session.ledger.next() else {
                return Err(ForgedProgress);
            };
            let tag = session.feeder.take(bytes, &mut self.encoded)?;
            let end = ItemEnd::of_tag(tag).ok_or(ForgedProgress)?;
            let result = decode(end, &self.encoded)?;
            session.ledger.end_next();
            self.push(index, result.map_err(|error| plan.named(error, index)));
        }
        if ended > before {
            session.feeder.release();
        }
        Ok(usize::try_from(ended - before).unwrap_or(usize::MAX))
    }

    /// Delivers the results that are ready.
    pub(super) fn flush(&mut self) {
        self.outlet.deliver(&mut self.ready);
    }

    pub(super) fn end(&self) {
        self.outlet.end();
    }

    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.reorder = Reorder::new();
        self.outlet.clear();
    }

    pub(super) fn taken(&self) -> usize {
        self.outlet.taken()
    }

    pub(super) fn block_until(&self, taken: usize) {
        self.outlet.block_until(taken);
    }
}

fn decode<R: JobResult>(
    end: ItemEnd,
    encoded: &[u8],
) -> Result<Result<R, WorkerError>, ForgedProgress> {
    let text = || String::from_utf8_lossy(encoded);
    Ok(match end {
        ItemEnd::Value => codec::decode_record(encoded).map_err(WorkerError::decode_result),
        ItemEnd::BadArgument => Err(WorkerError::decode_argument(&text())),
        ItemEnd::BadResult => Err(WorkerError::encode_result(&text())),
        ItemEnd::Panicked => {
            let report = codec::decode::<PanicReport>(encoded).map_err(|_| ForgedProgress)?;
            Err(WorkerError::panicked(report.into()))
        }
        ItemEnd::Large => return Err(ForgedProgress),
    })
}
