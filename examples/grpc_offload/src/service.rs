//! The service: what tonic's generated code calls, and the tasks behind it.

use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use seedbed::service::Shutdown;
use seedbed::sync::{ProducerError, Receiver, Sender, channel, spawn_producer};
use seedbed::worker::WorkerError;
use seedbed::{Nursery, open_nursery};
use smol::Async;
use smol::stream::{Stream, StreamExt};
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};

use tonic_health::ServingStatus;
use tonic_health::pb::FILE_DESCRIPTOR_SET;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::pb::v1::server_reflection_server as v1;
use tonic_reflection::pb::v1alpha::server_reflection_server as v1alpha;

use crate::DESCRIPTOR;
use crate::adapter::calls::CallNursery;
use crate::adapter::serve::serve_grpc;
use crate::generated::offload_server::{Offload, OffloadServer};
use crate::generated::{self as messages, Item, Receipt, Update, update};
use crate::jobs::{self, Job, Outcome, offload};
use crate::reflection::Reflection;
use crate::routes::Routes;
use crate::updates::Subscribers;

/// The items that wait for a dispatcher. More wait in the stream windows of their clients.
const QUEUE: usize = 8;

/// The largest message of a client.
const MESSAGE_LIMIT: usize = 1 << 20;

/// The numbers of a running service. Clones are handles on the same numbers.
#[derive(Clone, Default)]
pub struct Statistics {
    /// The items that were put into the queue.
    pub accepted: Arc<AtomicU64>,
    /// The items whose job has ended, in whatever way.
    pub processed: Arc<AtomicU64>,
    pub subscribers: Subscribers<Update>,
}

/// Serves clients until the shutdown begins. Then the calls end, then the queue is emptied, and then
/// this returns. So an item that was acknowledged is processed.
pub async fn serve_offload(
    listener: Async<TcpListener>,
    dispatchers: usize,
    grace: Duration,
    statistics: &Statistics,
    shutdown: &Shutdown,
) {
    open_nursery(async |n: Nursery<'_>| {
        let (queue, items) = channel(QUEUE);
        for _ in 0..dispatchers {
            n.named("dispatcher")
                .spawn(dispatch(items.clone(), statistics));
        }
        drop(items);
        let service = Service {
            queue,
            statistics: statistics.clone(),
            shutdown: shutdown.clone(),
        };
        let health = HealthReporter::new();
        health.set_serving::<OffloadServer<Service>>().await;
        n.spawn(report_the_end(health.clone(), shutdown));
        let reflection = Reflection::new(&[DESCRIPTOR, FILE_DESCRIPTOR_SET]);
        let reflection = reflection.expect("the descriptors were generated");
        let routes = Routes {
            offload: OffloadServer::new(service).max_decoding_message_size(MESSAGE_LIMIT),
            health: HealthServer::new(HealthService::from_health_reporter(health)),
            reflection: v1::ServerReflectionServer::new(reflection.clone()),
            reflection_alpha: v1alpha::ServerReflectionServer::new(reflection),
        };
        // The queue is closed at the end of this call, which drops its senders. The dispatchers
        // end when it is empty.
        serve_grpc(listener, routes, grace, shutdown).await;
    })
    .await
}

/// Tells those who watch the health of the service that it ends. Then ends their streams, which have
/// no end of their own and would delay the shutdown.
async fn report_the_end(mut health: HealthReporter, shutdown: &Shutdown) {
    shutdown.begun().await;
    for service in [OffloadServer::<Service>::NAME, ""] {
        let status = ServingStatus::NotServing;
        health.set_service_status(service, status).await;
        health.clear_service_status(service).await;
    }
}

/// Processes items until the queue is closed and empty.
async fn dispatch(items: Receiver<Item>, statistics: &Statistics) {
    while let Ok(item) = items.recv().await {
        let id = item.id;
        let update = match job(item) {
            Ok(job) => update(id, offload(job).await),
            Err(status) => failed(id, status.message().to_owned()),
        };
        statistics.processed.fetch_add(1, Relaxed);
        statistics.subscribers.publish(&update);
    }
}

/// The part of the service that tonic calls.
struct Service {
    queue: Sender<Item>,
    statistics: Statistics,
    shutdown: Shutdown,
}

#[tonic::async_trait]
impl Offload for Service {
    async fn compute(&self, request: Request<Item>) -> Result<Response<Update>, Status> {
        let item = request.into_inner();
        let id = item.id;
        let outcome = offload(job(item)?).await;
        let outcome = outcome.map_err(|error| Status::aborted(error.to_string()))?;
        Ok(Response::new(update(id, Ok(outcome))))
    }

    async fn do_something(
        &self,
        request: Request<Streaming<Item>>,
    ) -> Result<Response<Receipt>, Status> {
        let mut items = request.into_inner();
        let mut accepted = 0;
        while let Some(item) = items.message().await? {
            // Waits while the queue is full. The client waits too, when its window is used up.
            let sent = self.queue.send(item).await;
            sent.map_err(|_| Status::unavailable("the server ends"))?;
            self.statistics.accepted.fetch_add(1, Relaxed);
            accepted += 1;
        }
        Ok(Response::new(Receipt { accepted }))
    }

    type GetUpdatesStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn get_updates(
        &self,
        request: Request<messages::Subscription>,
    ) -> Result<Response<Self::GetUpdatesStream>, Status> {
        let nursery = request.extensions().get();
        let CallNursery(nursery) = nursery.ok_or_else(|| Status::internal("no nursery"))?;
        // From here on, no update is lost, even before the first is requested.
        let subscription = self.statistics.subscribers.subscribe();
        let shutdown = self.shutdown.clone();
        let stream = spawn_producer(nursery, async move |mut updates| {
            // The stream has no end of its own, so it must not delay the shutdown.
            while let Some(update) = shutdown.until(subscription.next()).await {
                let too_slow = |_| Status::resource_exhausted("the client reads too slowly");
                updates.send(update.map_err(too_slow)?).await;
            }
            Ok(())
        });
        let stream = stream.map(|item| {
            item.map_err(|error| match error {
                ProducerError::Failed(status) => status,
                ProducerError::Cancelled => Status::cancelled("the updates are incomplete"),
            })
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn job(item: Item) -> Result<Job, Status> {
    let fault = match messages::Fault::try_from(item.fault) {
        Ok(messages::Fault::Unspecified) => None,
        Ok(messages::Fault::Panic) => Some(jobs::Fault::Panic),
        Ok(messages::Fault::Crash) => Some(jobs::Fault::Crash),
        Ok(messages::Fault::Hang) => Some(jobs::Fault::Hang),
        Err(error) => return Err(Status::invalid_argument(error.to_string())),
    };
    Ok(Job {
        limit: item.limit,
        fault,
    })
}

fn update(id: u64, outcome: Result<Outcome, WorkerError>) -> Update {
    match outcome {
        Ok(outcome) => Update {
            id,
            process: outcome.process,
            outcome: Some(update::Outcome::Primes(outcome.primes)),
        },
        Err(error) => failed(id, error.to_string()),
    }
}

fn failed(id: u64, error: String) -> Update {
    Update {
        id,
        process: 0,
        outcome: Some(update::Outcome::Error(error)),
    }
}
