//! The service: what tonic's generated code calls, and the tasks behind it.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use seedbed::service::Shutdown;
use seedbed::sync::{Receiver, spawn_producer};
use seedbed::worker::WorkerError;
use seedbed::{CapacityLimiter, Nursery, open_nursery};
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
use crate::adapter::serve::{FLUSH_GRACE, Listener, serve_grpc};
use crate::adapter::status::{server_ends, status_of};
use crate::generated::offload_server::{Offload, OffloadServer};
use crate::generated::{self as messages, Item, Receipt, Update, update};
use crate::jobs::{self, Job, Outcome, offload};
use crate::queue::{Queue, Queued};
use crate::reflection::Reflection;
use crate::routes::Routes;
use crate::updates::{Subscribers, TooSlow};

/// The items that wait for a dispatcher. More wait in the stream windows of their clients.
pub const QUEUE_PLACES: usize = 8;

/// The time that a job of the queue may take in addition to its limit: for the start of a worker,
/// and for the end of a killed one, on a busy machine.
const START_AND_KILL: Duration = Duration::from_secs(1);

/// The largest message of a client.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// How the service runs.
#[derive(Clone, Copy)]
pub struct Settings {
    /// The items of the queue that are processed at a time, each in a worker.
    pub dispatchers: NonZeroUsize,
    /// How long calls may take to finish when the server ends.
    pub grace: Duration,
    /// The longest time of one job, after which its worker is killed.
    pub job_limit: Duration,
}

impl Settings {
    /// Returns the longest time of an orderly end. It includes the queue, because an item that was
    /// acknowledged is to be processed.
    pub fn drain_limit(&self) -> Duration {
        // Each dispatcher may have begun with an item, while the queue is full.
        let rounds = 1 + QUEUE_PLACES.div_ceil(self.dispatchers.get());
        let job = self.job_limit.saturating_add(START_AND_KILL);
        let jobs = job.saturating_mul(rounds.try_into().unwrap_or(u32::MAX));
        let calls = self.grace.saturating_add(FLUSH_GRACE);
        calls.saturating_add(jobs)
    }
}

/// The numbers of a running service. Clones are handles on the same numbers.
#[derive(Clone, Default)]
pub struct Statistics {
    /// The items that were put into the queue; at no time fewer than were processed.
    pub accepted: Arc<AtomicU64>,
    /// The items whose job has ended, in whatever way.
    pub processed: Arc<AtomicU64>,
    pub subscribers: Subscribers<Update>,
}

/// Serves clients until the shutdown begins, and then ends in order:
///
/// 1. No upload begins. Calls may finish within the grace period.
/// 2. When the last upload has ended, the queue is emptied.
/// 3. When the last item has been processed, the streams of updates end.
///
/// An item that was acknowledged is processed, unless this is cancelled before its end, which takes
/// at most [`Settings::drain_limit`].
pub async fn serve_offload(
    listener: impl Into<Listener>,
    settings: Settings,
    statistics: &Statistics,
    shutdown: &Shutdown,
) {
    open_nursery(async |n: Nursery<'_>| {
        let (queue, items) = Queue::new(QUEUE_PLACES, statistics.accepted.clone());
        let queue = Arc::new(queue);
        n.spawn(process(items, settings, statistics));
        let service = Service {
            queue: queue.clone(),
            job_limit: settings.job_limit,
            subscribers: statistics.subscribers.clone(),
        };
        let health = HealthReporter::new();
        health.set_serving::<OffloadServer<Service>>().await;
        n.spawn(begin_the_end(queue, health.clone(), shutdown));
        let reflection = Reflection::new(&[DESCRIPTOR, FILE_DESCRIPTOR_SET], shutdown);
        let reflection = reflection.expect("the descriptors were generated");
        let routes = Routes {
            offload: OffloadServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES),
            health: HealthServer::new(HealthService::from_health_reporter(health)),
            reflection: v1::ServerReflectionServer::new(reflection.clone()),
            reflection_alpha: v1alpha::ServerReflectionServer::new(reflection),
        };
        serve_grpc(listener, routes, settings.grace, shutdown).await;
    })
    .await
}

/// Closes the queue for new uploads when the shutdown begins. Tells those who watch the health of
/// the service that it ends. Then ends their streams, which have no end of their own and would
/// delay the shutdown.
async fn begin_the_end(queue: Arc<Queue<Item>>, mut health: HealthReporter, shutdown: &Shutdown) {
    shutdown.begun().await;
    queue.close();
    for service in [OffloadServer::<Service>::NAME, ""] {
        let status = ServingStatus::NotServing;
        health.set_service_status(service, status).await;
        health.clear_service_status(service).await;
    }
}

/// Processes items until the queue is closed and empty. Then there will be no more updates.
async fn process(items: Receiver<Queued<Item>>, settings: Settings, statistics: &Statistics) {
    open_nursery(async |n: Nursery<'_>| {
        for _ in 0..settings.dispatchers.get() {
            let items = items.clone();
            n.named("dispatcher")
                .spawn(dispatch(items, settings.job_limit, statistics));
        }
    })
    .await;
    statistics.subscribers.close();
}

async fn dispatch(items: Receiver<Queued<Item>>, job_limit: Duration, statistics: &Statistics) {
    // The jobs of calls have the limiter of the context. They must not hold up acknowledged items.
    let own_limiter = CapacityLimiter::new(1);
    while let Ok(queued) = items.recv().await {
        let item = queued.take();
        let id = item.id;
        let update = match job(item) {
            Ok(job) => update(id, offload(job, job_limit).limiter(&own_limiter).await),
            Err(status) => failed(id, status.message().to_owned()),
        };
        statistics.processed.fetch_add(1, Relaxed);
        statistics.subscribers.publish(&update);
    }
}

/// The part of the service that tonic calls.
struct Service {
    queue: Arc<Queue<Item>>,
    job_limit: Duration,
    subscribers: Subscribers<Update>,
}

#[tonic::async_trait]
impl Offload for Service {
    async fn compute(&self, request: Request<Item>) -> Result<Response<Update>, Status> {
        let item = request.into_inner();
        let id = item.id;
        let outcome = offload(job(item)?, self.job_limit).await;
        let outcome = outcome.map_err(|error| Status::aborted(error.to_string()))?;
        Ok(Response::new(update(id, Ok(outcome))))
    }

    async fn do_something(
        &self,
        request: Request<Streaming<Item>>,
    ) -> Result<Response<Receipt>, Status> {
        let queue = self.queue.sender().ok_or_else(server_ends)?;
        let mut items = request.into_inner();
        let mut accepted = 0;
        while let Some(item) = items.message().await? {
            // Waits while the queue is full. The client waits too, when its window is used up.
            queue.put(item).await.map_err(|_| server_ends())?;
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
        let subscription = self.subscribers.subscribe();
        let stream = spawn_producer(nursery, async move |mut updates| {
            while let Some(update) = subscription.next().await {
                let too_slow = |TooSlow| Status::resource_exhausted("the client reads too slowly");
                updates.send(update.map_err(too_slow)?).await;
            }
            Ok(())
        });
        let stream = stream.map(|item| item.map_err(status_of));
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
