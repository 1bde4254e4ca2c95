//! A service with handlers that wait, panic and clean up, and say so.

use std::pin::Pin;

use grpc_offload::adapter::calls::CallNursery;
use grpc_offload::adapter::status::status_of;
use grpc_offload::generated::offload_server::{Offload, OffloadServer};
use grpc_offload::generated::update::Outcome;
use grpc_offload::generated::{Item, Receipt, Subscription, Update};
use seedbed::sync::{Event, Receiver, Sender, spawn_producer, unbounded};
use seedbed::time::sleep_forever;
use seedbed::{checkpoint, on_cancel, shield};
use smol::stream::{self, Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// The items of `compute` and `do_something` with these numbers are special.
pub const HANG: u64 = 1;
pub const PANIC: u64 = 2;

/// How `get_updates` makes its stream.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// With `spawn_producer`.
    Produced,
    /// With a channel, whose sender is in a child of the call. When the call is cancelled, the
    /// child is dropped first, as the receiver is in a shield. So the stream ends as if it were
    /// complete.
    Channel,
    /// With such a channel, and the child panics when the log is told to [let it](Log::let_it_panic).
    Panicking,
    /// One update that is larger than the windows of a client.
    Large,
}

pub struct Probe {
    log: Sender<&'static str>,
    kind: Kind,
    may_panic: Event,
}

/// The reports of the handlers of a probe, in order.
pub struct Log {
    entries: Receiver<&'static str>,
    may_panic: Event,
}

impl Probe {
    pub fn new(kind: Kind) -> (OffloadServer<Self>, Log) {
        let (log, entries) = unbounded();
        let may_panic = Event::new();
        let probe = Self {
            log,
            kind,
            may_panic: may_panic.clone(),
        };
        (OffloadServer::new(probe), Log { entries, may_panic })
    }
}

impl Log {
    /// Waits for the next entry.
    pub async fn expect(&self, entry: &str) {
        assert_eq!(self.entries.recv().await, Ok(entry));
    }

    /// Lets the child of a call panic, if it is one that does.
    pub fn let_it_panic(&self) {
        self.may_panic.set();
    }
}

/// Adds an entry to the log. A test that has ended reads none, so an error does not matter.
fn note(log: &Sender<&'static str>, entry: &'static str) {
    _ = log.try_send(entry);
}

/// Waits until it is cancelled, and then cleans up.
async fn hang(log: Sender<&'static str>) {
    note(&log, "hangs");
    let clean_up = async {
        checkpoint().await;
        note(&log, "cleaned up");
    };
    on_cancel(sleep_forever(), clean_up).await
}

#[tonic::async_trait]
impl Offload for Probe {
    async fn compute(&self, request: Request<Item>) -> Result<Response<Update>, Status> {
        let item = request.into_inner();
        match item.id {
            HANG => hang(self.log.clone()).await,
            PANIC => panic!("the handler was asked to panic"),
            _ => {}
        }
        Ok(Response::new(Update {
            id: item.id,
            ..Update::default()
        }))
    }

    async fn do_something(
        &self,
        request: Request<Streaming<Item>>,
    ) -> Result<Response<Receipt>, Status> {
        let mut items = request.into_inner();
        let mut accepted = 0;
        let log = self.log.clone();
        let clean_up = async {
            checkpoint().await;
            note(&log, "cleaned up");
        };
        let reading = async {
            while let Some(item) = items.message().await.inspect_err(|_| {
                note(&self.log, "saw an error");
            })? {
                accepted += 1;
                note(&self.log, "item");
                if item.id == HANG {
                    sleep_forever().await
                }
            }
            note(&self.log, "saw the end");
            Ok(Response::new(Receipt { accepted }))
        };
        on_cancel(reading, clean_up).await
    }

    type GetUpdatesStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    /// Sends two updates and then hangs, or as its [`Kind`] says.
    async fn get_updates(
        &self,
        request: Request<Subscription>,
    ) -> Result<Response<Self::GetUpdatesStream>, Status> {
        let CallNursery(nursery) = request.extensions().get().expect("every call has one");
        let log = self.log.clone();
        let update = |id| Update {
            id,
            ..Update::default()
        };
        Ok(Response::new(match self.kind {
            Kind::Produced => {
                let stream = spawn_producer(nursery, async move |mut updates| {
                    updates.send(update(1)).await;
                    updates.send(update(2)).await;
                    hang(log).await;
                    Ok::<(), Status>(())
                });
                Box::pin(stream.map(|item| item.map_err(status_of)))
            }
            Kind::Large => {
                let large = Outcome::Error("x".repeat(16 << 20));
                let update = Update {
                    outcome: Some(large),
                    ..update(1)
                };
                Box::pin(stream::once(Ok(update)))
            }
            kind @ (Kind::Channel | Kind::Panicking) => {
                let (sender, receiver) = unbounded();
                let may_panic = self.may_panic.clone();
                nursery.spawn(async move {
                    for id in 1..=2 {
                        // The call and its receiver may have ended.
                        _ = sender.try_send(Ok(update(id)));
                    }
                    match kind {
                        Kind::Panicking => {
                            may_panic.wait().await;
                            panic!("the child was asked to panic");
                        }
                        _ => hang(log).await,
                    }
                });
                Box::pin(stream::unfold(receiver, |receiver| {
                    shield(async move { Some((receiver.recv().await.ok()?, receiver)) })
                }))
            }
        }))
    }
}
