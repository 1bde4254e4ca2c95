//! The service with its workers.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grpc_offload::generated::update::Outcome;
use grpc_offload::generated::{Fault, Item, Subscription, Update};
use grpc_offload::service::{Statistics, serve_offload};
use seedbed::worker::default_context_statistics;
use seedbed::{Nursery, WorkerConfig, cache_scope, open_nursery};
use smol::future::yield_now;
use smol::stream;
use tonic::{Code, Request};

use crate::harness::{Client, SEEDS, Server, shuffled, with_server};

/// Longer than any test takes, unless something hangs.
const GRACE: Duration = Duration::from_secs(30);

/// Runs a test with a server, and checks that it has processed what it has accepted.
pub fn with_offload(seed: u64, test: impl AsyncFnOnce(&Server, &Statistics)) {
    let statistics = Statistics::default();
    with_server(
        shuffled(seed),
        async |listener, shutdown| {
            // Other tests, on other threads, use other workers.
            cache_scope(WorkerConfig::new(), async {
                serve_offload(listener, 2, GRACE, &statistics, shutdown).await;
                let accepted = statistics.accepted.load(Relaxed);
                assert_eq!(statistics.processed.load(Relaxed), accepted);
                assert_eq!(statistics.subscribers.count(), 0);
                assert_eq!(default_context_statistics().running_workers, 0);
            })
            .await;
        },
        async |server| test(server, &statistics).await,
    );
}

fn item(id: u64, fault: Fault) -> Item {
    Item {
        id,
        limit: 100,
        fault: fault.into(),
        ..Item::default()
    }
}

fn primes(update: &Update) -> Option<u64> {
    match update.outcome {
        Some(Outcome::Primes(primes)) => Some(primes),
        _ => None,
    }
}

async fn upload(client: &mut Client, ids: std::ops::Range<u64>, fault: Fault) -> u64 {
    let items: Vec<_> = ids.map(|id| item(id, fault)).collect();
    let receipt = client.do_something(stream::iter(items)).await;
    receipt.unwrap().into_inner().accepted
}

#[test]
fn a_value_is_computed_in_another_process() {
    with_offload(0, async |server, _| {
        server
            .with_client(async |mut client| {
                let answer = client.compute(item(3, Fault::Unspecified)).await;
                let update = answer.unwrap().into_inner();
                assert_eq!((update.id, primes(&update)), (3, Some(25)));
                assert_ne!(update.process, std::process::id());
            })
            .await;
    });
}

#[test]
fn a_job_that_panics_or_crashes_is_the_error_of_its_call_alone() {
    with_offload(0, async |server, _| {
        server
            .with_client(async |mut client| {
                for fault in [Fault::Panic, Fault::Crash] {
                    let status = client.compute(item(1, fault)).await.unwrap_err();
                    assert_eq!(status.code(), Code::Aborted, "{status}");
                }
                let answer = client.compute(item(2, Fault::Unspecified)).await;
                assert_eq!(primes(answer.unwrap().get_ref()), Some(25));
            })
            .await;
    });
}

#[test]
fn a_call_whose_deadline_passes_kills_its_job() {
    with_offload(0, async |server, _| {
        server
            .with_client(async |mut client| {
                let mut request = Request::new(item(1, Fault::Hang));
                request.set_timeout(Duration::from_millis(100));
                let status = client.compute(request).await.unwrap_err();
                assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
            })
            .await;
    });
}

#[test]
fn every_subscriber_gets_every_update() {
    for seed in SEEDS {
        with_offload(seed, async |server, statistics| {
            server
                .with_client(async |client| {
                    open_nursery(async |n: Nursery<'_>| {
                        let subscribers: Vec<_> = (0..3)
                            .map(|_| {
                                let mut client = client.clone();
                                n.spawn(async move {
                                    let updates = client.get_updates(Subscription {}).await;
                                    let mut updates = updates.unwrap().into_inner();
                                    let mut ids = BTreeSet::new();
                                    while ids.len() < 50 {
                                        let update = updates.message().await.unwrap().unwrap();
                                        assert_eq!(primes(&update), Some(25));
                                        ids.insert(update.id);
                                    }
                                    ids
                                })
                            })
                            .collect();
                        while statistics.subscribers.count() < 3 {
                            yield_now().await;
                        }
                        let mut client = client.clone();
                        assert_eq!(upload(&mut client, 0..50, Fault::Unspecified).await, 50);
                        for subscriber in subscribers {
                            assert!(subscriber.await.into_iter().eq(0..50));
                        }
                    })
                    .await
                })
                .await;
        });
    }
}

#[test]
fn the_updates_tell_of_items_whose_job_failed() {
    with_offload(0, async |server, _| {
        server
            .with_client(async |mut client| {
                let updates = client.get_updates(Subscription {}).await;
                let mut updates = updates.unwrap().into_inner();
                upload(&mut client, 0..1, Fault::Crash).await;
                let update = updates.message().await.unwrap().unwrap();
                assert!(
                    matches!(update.outcome, Some(Outcome::Error(_))),
                    "{update:?}"
                );
                upload(&mut client, 1..2, Fault::Unspecified).await;
                let update = updates.message().await.unwrap().unwrap();
                assert_eq!((update.id, primes(&update)), (1, Some(25)));
            })
            .await;
    });
}

#[test]
fn a_shutdown_ends_streams_without_an_end_and_processes_what_was_acknowledged() {
    for seed in SEEDS {
        with_offload(seed, async |server, _| {
            server
                .with_client(async |mut client| {
                    let updates = client.get_updates(Subscription {}).await;
                    let mut updates = updates.unwrap().into_inner();
                    assert_eq!(upload(&mut client, 0..10, Fault::Unspecified).await, 10);
                    server.shutdown.begin();
                    while let Some(update) = updates.message().await.unwrap() {
                        assert_eq!(primes(&update), Some(25));
                    }
                })
                .await;
        });
    }
}

#[test]
fn a_message_over_the_limit_and_an_unknown_fault_are_refused() {
    with_offload(0, async |server, _| {
        server
            .with_client(async |mut client| {
                let large = Item {
                    padding: vec![0; 2 << 20],
                    ..Item::default()
                };
                let status = client.compute(large).await.unwrap_err();
                assert_eq!(status.code(), Code::OutOfRange, "{status}");
                let unknown = Item {
                    fault: 77,
                    ..Item::default()
                };
                let status = client.compute(unknown).await.unwrap_err();
                assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            })
            .await;
    });
}
