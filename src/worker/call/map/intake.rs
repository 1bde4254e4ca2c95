//! The intake of a map: it pulls items, and makes chunks, single calls and sessions of them.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::chunk::Chunk;
use super::driver::Driver;
use super::lane::{Session, Single, Work};
use super::order::MapOrder;
use super::plan::MapCode;
use crate::transport::codec;
use crate::transport::frame::Kind;
use crate::transport::map::feeder::Feeder;
use crate::transport::out_message::OutMessage;
use crate::transport::tuning::MAP_RING_WORDS;
use crate::worker::data::{Argument, JobResult};
use crate::worker::error::WorkerError;

impl<A: Argument, R: JobResult, O: MapOrder> Driver<'_, A, R, O> {
    /// Pulls items until there is a chunk or a single one that no worker has. Returns whether there
    /// is.
    pub(super) fn fetch(&mut self, cx: &mut Context<'_>) -> bool {
        let workers = self.plan.workers();
        while self.queue.is_empty() && self.singles.is_empty() {
            let Some(source) = &mut self.source else {
                return false;
            };
            let size = self.sizer.next(source.left(), workers);
            let window = self.sizer.window(workers);
            let under_way = self.pulled - self.delivery.taken();
            let Some(room @ 1..) = window.checked_sub(under_way) else {
                // In time for the workers not to run out of items, and not for each single item.
                let wanted = self.pulled - window + window.div_ceil(4);
                self.delivery.block_until(wanted);
                return false;
            };
            let mut chunk = Chunk::new(self.pulled);
            for _ in 0..size.min(room) {
                let item = match source.poll_next(cx) {
                    Poll::Ready(Some(item)) => item,
                    Poll::Ready(None) => {
                        self.source = None;
                        break;
                    }
                    Poll::Pending if chunk.is_empty() => return false,
                    Poll::Pending => break,
                };
                let index = self.pulled;
                self.pulled += 1;
                if let Some(refusal) = self.refusal {
                    self.fail(index, refusal(self.plan.job_name));
                    break;
                }
                let encoded = chunk.push(|out| codec::encode_record(&item, out));
                match encoded {
                    Ok(true) if chunk.words() < MAP_RING_WORDS as u64 / 4 => continue,
                    Ok(true) => {}
                    Ok(false) => match self.encode_single(index, item) {
                        Ok(single) => self.singles.push_back(single),
                        Err(error) => self.fail(index, error),
                    },
                    Err(_) => {
                        codec::drop_encoded(item, &encoded);
                        if let Err(error) = encoded {
                            self.fail(index, WorkerError::encode_argument(error));
                        }
                    }
                }
                break;
            }
            if !chunk.is_empty() {
                self.queue.push_back(chunk);
            }
        }
        true
    }

    pub(super) fn code(&self) -> MapCode {
        self.code.expect("without code, no item is encoded")
    }

    /// Makes a call of an item that does not fit into a ring.
    pub(super) fn encode_single(
        &self,
        index: usize,
        item: A,
    ) -> Result<(Single, OutMessage), WorkerError> {
        let pool = self.plan.context.pool();
        let message = OutMessage::build(Kind::Job, self.code().single.offset(), |out| {
            match pool.arenas_of_arguments() {
                Some(_) if self.plan.retries > 0 => codec::encode_with_attachments(&item, out),
                arenas => codec::encode_for_worker(&item, out, arenas),
            }
        });
        codec::drop_encoded(item, &message);
        let message = message.and_then(|message| pool.config.admit(message));
        let message = message.map_err(WorkerError::encode_argument)?;
        // The side of a channel has gone with the worker that had it.
        let kept = self.plan.retries > 0 && !message.moves_sides();
        let kept = kept.then(|| (message.bytes().to_vec(), message.fds().to_vec()));
        let single = Single {
            index,
            strikes: 0,
            kept,
        };
        Ok((single, message))
    }

    /// Takes the next item that is to be a call of its own: any, if there are no sessions.
    pub(super) fn next_single(&mut self) -> Option<(Single, OutMessage)> {
        if let Some(single) = self.singles.pop_front() {
            return Some(single);
        }
        if self.parking.is_some() {
            return None;
        }
        let offset = self.code().single.offset();
        let chunk = self.queue.front_mut()?;
        let record = chunk
            .items()
            .next()
            .expect("a chunk in the queue has items");
        let Ok(message) = OutMessage::build(Kind::Job, offset, |out| {
            codec::copy_record(record, out);
            Ok::<_, std::convert::Infallible>(Vec::new().into())
        });
        let kept = (self.plan.retries > 0).then(|| (message.bytes().to_vec(), Vec::new()));
        let single = Single {
            index: chunk.first(),
            strikes: chunk.strikes(),
            kept,
        };
        chunk.pop();
        if chunk.is_empty() {
            self.queue.pop_front();
        }
        Some((single, message))
    }

    /// Makes a single call or a session of the items that are next.
    pub(super) fn next_work(&mut self) -> Result<(OutMessage, Work), WorkerError> {
        if let Some((single, message)) = self.next_single() {
            return Ok((message, Work::Single(single)));
        }
        let memory = self.spare.pop().map_or_else(
            || Feeder::new().map(|(feeder, file)| (feeder, Arc::new(file))),
            Ok,
        );
        let (feeder, memory) =
            memory.map_err(|error| WorkerError::start("the shared memory of its items", error))?;
        let Some(parking) = &self.parking else {
            unreachable!("without it, all items are single calls")
        };
        let fds = [memory.clone(), parking.file()];
        let mut session = Session::new(feeder, memory, self.plan.time_limit);
        let is_timed = self.plan.time_limit.is_some();
        let message = OutMessage::build(Kind::Job, self.code().session.offset(), |out| {
            codec::encode_in_frame(&is_timed, out).map(|mut attached| {
                attached.fds.extend(fds);
                attached
            })
        });
        let message = message.map_err(WorkerError::encode_argument)?;
        let chunk = self.queue.pop_front().expect("an item was fetched");
        session.give(chunk);
        Ok((message, Work::Session(Box::new(session))))
    }
}
