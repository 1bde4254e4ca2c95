//! The service with its workers.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grpc_offload::adapter::serve::FLUSH_GRACE;
use grpc_offload::generated::update::Outcome;
use grpc_offload::generated::{Fault, Item, Subscription, Update};
use grpc_offload::service::{QUEUE_PLACES, Settings, Statistics, serve_offload};
use seedbed::testing::MockClock;
use seedbed::worker::default_context_statistics;
use seedbed::{Nursery, RunBuilder, open_nursery};
use smol::future::{or, yield_now, zip};
use smol::stream;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::client::{Client, origin};
use crate::harness::{JOBS_OF_CALLS, SEEDS, Server, shuffled, with_limited_server};

/// No limit is reached in a test, unless something hangs.
const SETTINGS: Settings = Settings {
    dispatchers: NonZeroUsize::new(2).unwrap(),
    grace: Duration::from_secs(3600),
    job_limit: Duration::from_secs(3600),
};

/// Runs a test with a server, and checks that it has processed what it has accepted.
pub fn with_offload(seed: u64, test: impl AsyncFnOnce(&Server, &Statistics)) {
    with_settings(shuffled(seed), SETTINGS, test);
}

fn with_settings(
    builder: RunBuilder,
    settings: Settings,
    test: impl AsyncFnOnce(&Server, &Statistics),
) {
    let statistics = Statistics::default();
    with_limited_server(
        builder,
        settings.drain_limit(),
        async |listener, shutdown| {
            serve_offload(listener, settings, &statistics, shutdown).await;
            let accepted = statistics.accepted.load(Relaxed);
            assert_eq!(statistics.processed.load(Relaxed), accepted);
            assert_eq!(default_context_statistics().running_workers, 0);
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

/// The run's clock is a virtual one, so the deadline passes when the worker has the job. The limit
/// of the job is far away, so only the cancellation kills it.
#[test]
fn a_call_whose_deadline_passes_kills_its_job() {
    let clock = MockClock::new();
    let builder = shuffled(0).clock(clock.clone());
    with_settings(builder, SETTINGS, async |server, _| {
        server
            .with_client(async |mut client| {
                let answer = client.compute(item(1, Fault::Unspecified)).await;
                let worker = format!("/proc/{}", answer.unwrap().get_ref().process);
                assert_eq!(default_context_statistics().idle_workers, 1);
                let mut request = Request::new(item(2, Fault::Hang));
                let deadline = Duration::from_secs(1);
                request.set_timeout(deadline);
                let time_passes = async {
                    while default_context_statistics().idle_workers == 1 {
                        yield_now().await;
                    }
                    assert!(Path::new(&worker).exists(), "the worker has the job");
                    clock.jump(deadline);
                };
                let (answer, ()) = zip(client.compute(request), time_passes).await;
                let status = answer.unwrap_err();
                assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
                assert_eq!(default_context_statistics().killed, 1);
                assert!(!Path::new(&worker).exists(), "the job goes on");
            })
            .await;
    });
}

#[test]
fn a_job_that_takes_longer_than_its_limit_is_killed() {
    let job_limit = Duration::from_millis(100);
    let settings = Settings {
        job_limit,
        ..SETTINGS
    };
    with_settings(shuffled(0), settings, async |server, _| {
        server
            .with_client(async |mut client| {
                let status = client.compute(item(1, Fault::Hang)).await.unwrap_err();
                assert_eq!(status.code(), Code::Aborted, "{status}");
            })
            .await;
    });
}

/// The handlers of all clients take turns on one thread, and jobs are not computed there. The calls
/// whose jobs hang are as many as there may be jobs, so a job of the queue has a place of its own.
#[test]
fn calls_whose_jobs_hang_delay_neither_other_calls_nor_the_queue() {
    for seed in 0..3 {
        with_offload(seed, async |server, _| {
            server
                .with_channel(async |channel| {
                    let mut client = Client::with_origin(channel.clone(), origin());
                    let mut health = HealthClient::with_origin(channel, origin());
                    let updates = client.get_updates(Subscription {}).await;
                    let mut updates = updates.unwrap().into_inner();
                    open_nursery(async |n: Nursery<'_>| {
                        for id in 0..=JOBS_OF_CALLS as u64 {
                            let mut client = client.clone();
                            n.spawn(async move {
                                let answer = client.compute(item(id, Fault::Hang)).await;
                                panic!("{answer:?} instead of hanging");
                            });
                        }
                        for id in 0..20 {
                            let of_all = HealthCheckRequest::default();
                            assert!(health.check(of_all).await.is_ok());
                            upload(&mut client, id..id + 1, Fault::Unspecified).await;
                            let update = updates.message().await.unwrap().unwrap();
                            assert_eq!((update.id, primes(&update)), (id, Some(25)));
                        }
                        n.cancel();
                    })
                    .await;
                })
                .await;
        });
    }
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
                        // Without a further update, the server notices that they have left.
                        while statistics.subscribers.count() > 0 {
                            yield_now().await;
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
fn a_shutdown_ends_streams_without_an_end_after_the_updates_of_what_was_acknowledged() {
    for seed in SEEDS {
        with_offload(seed, async |server, _| {
            server
                .with_client(async |mut client| {
                    let updates = client.get_updates(Subscription {}).await;
                    let mut updates = updates.unwrap().into_inner();
                    assert_eq!(upload(&mut client, 0..10, Fault::Unspecified).await, 10);
                    server.shutdown.begin();
                    let mut ids = BTreeSet::new();
                    while let Some(update) = updates.message().await.unwrap() {
                        assert_eq!(primes(&update), Some(25));
                        ids.insert(update.id);
                    }
                    assert!(ids.into_iter().eq(0..10));
                })
                .await;
        });
    }
}

/// An upload that has begun may go on, and its updates are sent. One that comes later is refused.
#[test]
fn a_shutdown_waits_for_uploads_and_lets_none_begin() {
    for seed in SEEDS {
        with_offload(seed, async |server, statistics| {
            server
                .with_client(async |client| {
                    let updates = client.clone().get_updates(Subscription {}).await;
                    let mut updates = updates.unwrap().into_inner();
                    let (sender, rest) = seedbed::sync::unbounded();
                    let mut uploading = client.clone();
                    open_nursery(async |n: Nursery<'_>| {
                        let upload = n.spawn(async move { uploading.do_something(rest).await });
                        sender.send(item(0, Fault::Unspecified)).await.unwrap();
                        assert_eq!(updates.message().await.unwrap().unwrap().id, 0);
                        server.shutdown.begin();
                        let mut late = client.clone();
                        let refused = late.do_something(stream::empty()).await;
                        // Refused by the service, or with the connection that is about to end.
                        let code = refused.unwrap_err().code();
                        assert!(matches!(code, Code::Unavailable | Code::Unknown), "{code}");
                        sender.send(item(1, Fault::Unspecified)).await.unwrap();
                        drop(sender);
                        assert_eq!(upload.await.unwrap().into_inner().accepted, 2);
                        assert_eq!(updates.message().await.unwrap().unwrap().id, 1);
                        assert_eq!(updates.message().await.unwrap(), None);
                        assert_eq!(statistics.accepted.load(Relaxed), 2);
                    })
                    .await;
                })
                .await;
        });
    }
}

/// The run's clock is a virtual one. The limit of a job is in real time.
#[test]
fn a_shutdown_has_time_for_a_full_queue_whose_jobs_all_take_their_limit() {
    let clock = MockClock::new();
    let settings = Settings {
        dispatchers: NonZeroUsize::MIN,
        grace: Duration::from_secs(1),
        job_limit: Duration::from_millis(100),
    };
    let items = QUEUE_PLACES as u64 + 1;
    let builder = RunBuilder::new().clock(clock.clone());
    with_settings(builder, settings, async |server, _| {
        server
            .with_client(async |mut client| {
                // One is with the dispatcher, and the others are in the queue.
                assert_eq!(upload(&mut client, 0..items, Fault::Hang).await, items);
                server.shutdown.begin();
                let jobs = settings.job_limit * items.try_into().unwrap();
                clock.jump(settings.grace + FLUSH_GRACE + jobs);
            })
            .await;
    });
}

#[test]
fn no_limit_is_too_long() {
    let settings = Settings {
        grace: Duration::MAX,
        job_limit: Duration::MAX,
        ..SETTINGS
    };
    with_settings(shuffled(0), settings, async |server, _| {
        server
            .with_client(async |mut client| {
                assert_eq!(upload(&mut client, 0..10, Fault::Unspecified).await, 10);
            })
            .await;
    });
}

/// Items with an unknown fault are processed at once, without a worker.
#[test]
fn at_no_time_fewer_items_are_accepted_than_processed() {
    for seed in SEEDS {
        with_offload(seed, async |server, statistics| {
            server
                .with_client(async |mut client| {
                    let items: Vec<_> = (0..200)
                        .map(|id| Item {
                            fault: 77,
                            ..item(id, Fault::Unspecified)
                        })
                        .collect();
                    let upload = async {
                        let receipt = client.do_something(stream::iter(items)).await;
                        assert_eq!(receipt.unwrap().into_inner().accepted, 200);
                    };
                    let watch = async {
                        loop {
                            let processed = statistics.processed.load(Relaxed);
                            let accepted = statistics.accepted.load(Relaxed);
                            assert!(processed <= accepted, "{processed} of {accepted}");
                            yield_now().await;
                        }
                    };
                    or(upload, watch).await;
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
