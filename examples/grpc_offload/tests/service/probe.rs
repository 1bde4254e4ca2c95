//! A service with handlers that wait, panic and clean up, and say so.

use std::pin::Pin;

use grpc_offload::adapter::calls::CallNursery;
use grpc_offload::generated::offload_server::{Offload, OffloadServer};
use grpc_offload::generated::{Item, Receipt, Subscription, Update};
use seedbed::sync::{ProducerError, Receiver, Sender, spawn_producer, unbounded};
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
    /// With a channel, whose sender is in a child of the call. When the call is cancelled, the child is
    /// dropped first, as the receiver is in a shield. So the stream ends as if it were complete.
    Channel,
}

pub struct Probe {
    log: Sender<&'static str>,
    kind: Kind,
}

/// The reports of the handlers of a probe, in order.
pub struct Log(Receiver<&'static str>);

impl Probe {
    pub fn new(kind: Kind) -> (OffloadServer<Self>, Log) {
        let (log, entries) = unbounded();
        (OffloadServer::new(Self { log, kind }), Log(entries))
    }
}

impl Log {
    /// Waits for the next entry.
    pub async fn expect(&self, entry: &str) {
        assert_eq!(self.0.recv().await, Ok(entry));
    }
}

/// Waits until it is cancelled, and then cleans up.
async fn hang(log: Sender<&'static str>) {
    _ = log.try_send("hangs");
    let clean_up = async {
        checkpoint().await;
        _ = log.try_send("cleaned up");
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
            _ = log.try_send("cleaned up");
        };
        let reading = async {
            while let Some(item) = items.message().await.inspect_err(|_| {
                _ = self.log.try_send("saw an error");
            })? {
                accepted += 1;
                _ = self.log.try_send("item");
                if item.id == HANG {
                    sleep_forever().await
                }
            }
            _ = self.log.try_send("saw the end");
            Ok(Response::new(Receipt { accepted }))
        };
        on_cancel(reading, clean_up).await
    }

    type GetUpdatesStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    /// Sends two updates and then hangs.
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
                Box::pin(stream.map(|item| {
                    item.map_err(|error| match error {
                        ProducerError::Failed(status) => status,
                        ProducerError::Cancelled => Status::cancelled("incomplete"),
                    })
                }))
            }
            Kind::Channel => {
                let (sender, receiver) = unbounded();
                nursery.spawn(async move {
                    _ = sender.try_send(Ok(update(1)));
                    _ = sender.try_send(Ok(update(2)));
                    hang(log).await
                });
                Box::pin(stream::unfold(receiver, |receiver| {
                    shield(async move { Some((receiver.recv().await.ok()?, receiver)) })
                }))
            }
        }))
    }
}
