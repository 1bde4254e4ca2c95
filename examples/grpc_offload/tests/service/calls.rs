//! Calls that end early, and what their clients see.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use grpc_offload::adapter::serve::{FLUSH_GRACE, serve_grpc};
use grpc_offload::generated::{Item, Subscription};
use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::{Nursery, RunBuilder, checkpoint, open_nursery};
use smol::Async;
use smol::future::{or, zip};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::stream::{self, StreamExt};
use tonic::{Code, Request};

use crate::client::Client;
use crate::harness::{SEEDS, Server, shuffled, with_server};
use crate::probe::{HANG, Kind, Log, PANIC, Probe};

const SECOND: Duration = Duration::from_secs(1);

/// Longer than any test takes, unless something hangs.
const GRACE: Duration = Duration::from_secs(30);

/// Runs a test with a server of probes.
fn with_probe(builder: RunBuilder, kind: Kind, test: impl AsyncFnOnce(&Server, &Log)) {
    let (service, log) = Probe::new(kind);
    with_server(
        builder,
        async |listener, shutdown| serve_grpc(listener, service, GRACE, shutdown).await,
        async |server| test(server, &log).await,
    );
}

fn item(id: u64) -> Item {
    Item {
        id,
        ..Item::default()
    }
}

async fn echo(client: &mut Client) {
    let answer = client.compute(item(7)).await.unwrap();
    assert_eq!(answer.into_inner().id, 7);
}

#[test]
fn a_deadline_reaches_the_handler_and_is_the_status() {
    for seed in SEEDS {
        let clock = MockClock::new();
        let builder = shuffled(seed).clock(clock.clone());
        with_probe(builder, Kind::Produced, async |server, log| {
            server
                .with_client(async |mut client| {
                    let mut request = Request::new(item(HANG));
                    request.set_timeout(SECOND);
                    let time_passes = async {
                        log.expect("hangs").await;
                        clock.jump(SECOND);
                    };
                    let (answer, ()) = zip(client.compute(request), time_passes).await;
                    let status = answer.unwrap_err();
                    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
                    log.expect("cleaned up").await;
                    echo(&mut client).await;
                })
                .await;
        });
    }
}

/// The client has no limit of its own here, so it sees what the server sends.
#[test]
fn a_stream_that_a_deadline_cuts_never_looks_complete() {
    for (seed, kind) in SEEDS.flat_map(|seed| [(seed, Kind::Produced), (seed, Kind::Channel)]) {
        let clock = MockClock::new();
        let builder = shuffled(seed).clock(clock.clone());
        with_probe(builder, kind, async |server, log| {
            server
                .with_client(async |mut client| {
                    let mut request = Request::new(Subscription {});
                    request.set_timeout(SECOND);
                    let updates = client.get_updates(request).await;
                    let mut updates = updates.unwrap().into_inner();
                    for id in 1..=2 {
                        let update = updates.message().await.unwrap();
                        assert_eq!(update.map(|update| update.id), Some(id));
                    }
                    log.expect("hangs").await;
                    clock.jump(SECOND);
                    let status = updates.message().await.expect_err("a false end");
                    assert_eq!(status.code(), Code::DeadlineExceeded, "{kind:?}: {status}");
                    log.expect("cleaned up").await;
                })
                .await;
        });
    }
}

#[test]
fn a_client_that_cancels_a_call_cancels_its_handler_which_cleans_up() {
    for seed in SEEDS {
        with_probe(shuffled(seed), Kind::Produced, async |server, log| {
            server
                .with_client(async |mut client| {
                    let call = async {
                        let answer = client.compute(item(HANG)).await;
                        panic!("{answer:?} instead of hanging");
                    };
                    or(call, log.expect("hangs")).await;
                    log.expect("cleaned up").await;
                    echo(&mut client).await;
                })
                .await;
        });
    }
}

#[test]
fn a_client_that_leaves_a_stream_cancels_its_producer_which_cleans_up() {
    for seed in SEEDS {
        with_probe(shuffled(seed), Kind::Produced, async |server, log| {
            server
                .with_client(async |mut client| {
                    let updates = client.get_updates(Subscription {}).await;
                    let mut updates = updates.unwrap().into_inner();
                    for _ in 0..2 {
                        assert!(updates.message().await.unwrap().is_some());
                    }
                    log.expect("hangs").await;
                    drop(updates);
                    log.expect("cleaned up").await;
                })
                .await;
        });
    }
}

#[test]
fn a_lost_connection_cancels_its_calls_which_clean_up() {
    for seed in SEEDS {
        with_probe(shuffled(seed), Kind::Produced, async |server, log| {
            server
                .with_client(async |mut client| {
                    let call = async {
                        let answer = client.compute(item(HANG)).await;
                        panic!("{answer:?} instead of hanging");
                    };
                    or(call, log.expect("hangs")).await;
                })
                .await;
            log.expect("cleaned up").await;
        });
    }
}

#[test]
fn an_upload_that_is_cut_off_cancels_its_handler_and_never_looks_complete_or_failed() {
    for seed in SEEDS {
        with_probe(shuffled(seed), Kind::Produced, async |server, log| {
            server
                .with_client(async |mut client| {
                    let items = stream::once(item(5)).chain(stream::pending());
                    let call = async {
                        let answer = client.do_something(items).await;
                        panic!("{answer:?} instead of hanging");
                    };
                    or(call, log.expect("item")).await;
                    log.expect("cleaned up").await;
                    echo(&mut client).await;
                })
                .await;
        });
    }
}

#[test]
fn uploads_that_are_not_read_do_not_block_other_calls_of_their_connection() {
    with_probe(shuffled(0), Kind::Produced, async |server, log| {
        server
            .with_client(async |mut client| {
                open_nursery(async |n: Nursery<'_>| {
                    for _ in 0..20 {
                        let mut client = client.clone();
                        n.spawn(async move {
                            let large = Item {
                                id: HANG,
                                padding: vec![0; 10_000],
                                ..Item::default()
                            };
                            let answer = client.do_something(stream::repeat(large)).await;
                            panic!("{answer:?} instead of hanging");
                        });
                    }
                    for _ in 0..20 {
                        log.expect("item").await;
                    }
                    echo(&mut client).await;
                    n.cancel();
                })
                .await
            })
            .await;
    });
}

#[test]
fn an_upload_that_is_not_read_is_ahead_by_one_stream_window() {
    with_probe(shuffled(0), Kind::Produced, async |server, log| {
        server
            .with_client(async |mut client| {
                let sent = Arc::new(AtomicUsize::new(0));
                let counter = sent.clone();
                let items = stream::repeat_with(move || {
                    counter.fetch_add(1, Relaxed);
                    Item {
                        id: HANG,
                        padding: vec![0; 1000],
                        ..Item::default()
                    }
                });
                let call = async {
                    let answer = client.do_something(items).await;
                    panic!("{answer:?} instead of hanging");
                };
                let stalled = async {
                    log.expect("item").await;
                    // The client goes on until its window is used up.
                    let mut before = usize::MAX;
                    while sent.load(Relaxed) != before {
                        before = sent.load(Relaxed);
                        seedbed::sleep(Duration::from_millis(100)).await;
                    }
                };
                or(call, stalled).await;
                // The window, what tonic encodes at a time, and what the handler's decoder has.
                let bytes = sent.load(Relaxed) * 1000;
                assert!(bytes < 256 << 10, "{bytes} bytes were sent ahead");
            })
            .await;
    });
}

#[test]
fn a_client_may_cancel_all_of_its_calls_at_once_and_keeps_its_connection() {
    for seed in 0..3 {
        with_probe(shuffled(seed), Kind::Produced, async |server, log| {
            server
                .with_client(async |mut client| {
                    const CALLS: usize = 150;
                    open_nursery(async |n: Nursery<'_>| {
                        for _ in 0..CALLS {
                            let mut client = client.clone();
                            n.spawn(async move {
                                let answer = client.compute(item(HANG)).await;
                                panic!("{answer:?} instead of hanging");
                            });
                        }
                        for _ in 0..CALLS {
                            log.expect("hangs").await;
                        }
                        n.cancel();
                    })
                    .await;
                    for _ in 0..CALLS {
                        log.expect("cleaned up").await;
                    }
                    echo(&mut client).await;
                })
                .await;
        });
    }
}

/// h2 counts the streams that are reset before the server has seen them.
#[test]
fn calls_that_are_cancelled_before_they_are_seen_do_not_cost_the_connection() {
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }
    let (headers, reset, settings, ping, goaway) = (1, 3, 4, 6, 7);
    with_probe(shuffled(0), Kind::Produced, async |server, _| {
        let mut client = Async::<TcpStream>::connect(server.address).await.unwrap();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(settings, 0, 0, &[]));
        for call in 0..150 {
            // POST, http and /, of the static table; the end of headers and of the stream.
            bytes.extend(frame(headers, 0x5, 2 * call + 1, &[0x83, 0x86, 0x84]));
            bytes.extend(frame(reset, 0, 2 * call + 1, &8_u32.to_be_bytes()));
        }
        bytes.extend(frame(ping, 0, 0, b"12345678"));
        client.write_all(&bytes).await.unwrap();
        loop {
            let mut head = [0; 9];
            client.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length.try_into().unwrap()];
            client.read_exact(&mut payload).await.unwrap();
            assert_ne!(head[3], goaway, "{}", payload.escape_ascii());
            if head[3] == ping && payload == b"12345678" {
                break;
            }
        }
    });
}

#[test]
fn a_panic_of_a_handler_is_the_status_of_its_call_and_costs_no_other() {
    with_probe(shuffled(0), Kind::Produced, async |server, log| {
        server
            .with_client(async |mut client| {
                let mut other = client.clone();
                let hanging = async {
                    let answer = other.compute(item(HANG)).await;
                    panic!("{answer:?} instead of hanging");
                };
                let panicking = async {
                    log.expect("hangs").await;
                    let status = client.compute(item(PANIC)).await.unwrap_err();
                    assert_eq!(status.code(), Code::Internal, "{status}");
                    echo(&mut client).await;
                };
                or(hanging, panicking).await;
            })
            .await;
        log.expect("cleaned up").await;
    });
}

/// The stream of its values ends when the child has gone, before the call notices the panic.
#[test]
fn a_panic_of_a_child_is_the_status_of_its_call_which_never_looks_complete() {
    for seed in SEEDS {
        with_probe(shuffled(seed), Kind::Panicking, async |server, log| {
            server
                .with_client(async |mut client| {
                    let updates = client.get_updates(Subscription {}).await;
                    let mut updates = updates.unwrap().into_inner();
                    for id in 1..=2 {
                        let update = updates.message().await.unwrap();
                        assert_eq!(update.map(|update| update.id), Some(id));
                    }
                    log.let_it_panic();
                    let status = updates.message().await.expect_err("a false end");
                    assert_eq!(status.code(), Code::Internal, "{status}");
                })
                .await;
        });
    }
}

/// In virtual time: it passes when all tasks wait.
#[test]
fn a_client_that_says_nothing_loses_its_connection() {
    let clock = MockClock::autojump();
    with_probe(
        RunBuilder::new().clock(clock),
        Kind::Produced,
        async |server, _| {
            let mut silent = Async::<TcpStream>::connect(server.address).await.unwrap();
            assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        },
    );
}

#[test]
fn a_client_that_does_not_speak_http2_loses_its_connection() {
    with_probe(shuffled(0), Kind::Produced, async |server, _| {
        let mut wrong = Async::<TcpStream>::connect(server.address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        wrong.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // Bytes that the server has not read make this a reset, which is an error.
        _ = wrong.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
    });
}

/// In virtual time: when the server has begun to speak, time passes whenever all tasks wait.
#[test]
fn a_client_that_does_not_answer_pings_loses_its_connection() {
    let clock = MockClock::new();
    with_probe(
        RunBuilder::new().clock(clock.clone()),
        Kind::Produced,
        async |server, _| {
            let mut stopped = Async::<TcpStream>::connect(server.address).await.unwrap();
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            stopped.write_all(preface).await.unwrap();
            let mut answer = [0; 64];
            assert_ne!(stopped.read(&mut answer).await.unwrap(), 0);
            clock.set_autojump_threshold(Some(Duration::ZERO));
            while stopped.read(&mut answer).await.is_ok_and(|read| read > 0) {}
        },
    );
}

/// In virtual time, which stands still: the time limit for those that say nothing never passes.
#[test]
fn a_shutdown_ends_idle_connections_and_those_that_say_nothing() {
    for seed in SEEDS {
        let builder = shuffled(seed).clock(MockClock::new());
        with_probe(builder, Kind::Produced, async |server, _| {
            let mut silent = Async::<TcpStream>::connect(server.address).await.unwrap();
            server
                .with_client(async |mut client| {
                    // The server accepts in order, so it has accepted the silent one as well.
                    echo(&mut client).await;
                    server.shutdown.begin();
                    while client.compute(item(7)).await.is_ok() {}
                })
                .await;
            assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        });
    }
}

/// In virtual time, of which less passes than a keep-alive takes.
#[test]
fn a_client_that_does_not_read_is_cut_when_its_time_is_over() {
    for seed in SEEDS {
        let clock = MockClock::new();
        let (service, _log) = Probe::new(Kind::Large);
        let ended = Event::new();
        with_server(
            shuffled(seed).clock(clock.clone()),
            async |listener, shutdown| {
                serve_grpc(listener, service, SECOND, shutdown).await;
                ended.set();
            },
            async |server| {
                server
                    .with_client(async |mut client| {
                        let updates = client.get_updates(Subscription {}).await.unwrap();
                        server.shutdown.begin();
                        let limit = 2 * (SECOND + FLUSH_GRACE);
                        while clock.elapsed() < limit {
                            for _ in 0..100 {
                                checkpoint().await;
                            }
                            assert!(!ended.is_set() || clock.elapsed() >= SECOND + FLUSH_GRACE);
                            clock.jump(SECOND);
                        }
                        // The client keeps its connection until the server has ended it.
                        ended.wait().await;
                        drop(updates);
                    })
                    .await;
            },
        );
    }
}

#[test]
fn a_call_that_hangs_until_the_grace_period_is_over_is_told_that_the_server_ends() {
    for seed in SEEDS {
        let (service, log) = Probe::new(Kind::Produced);
        with_server(
            shuffled(seed),
            async |listener, shutdown| {
                serve_grpc(listener, service, Duration::from_millis(20), shutdown).await;
                log.expect("hangs").await;
                log.expect("cleaned up").await;
            },
            async |server| {
                server
                    .with_client(async |mut client| {
                        let mut updates = client
                            .get_updates(Subscription {})
                            .await
                            .unwrap()
                            .into_inner();
                        for _ in 0..2 {
                            assert!(updates.message().await.unwrap().is_some());
                        }
                        server.shutdown.begin();
                        let status = updates.message().await.expect_err("a false end");
                        assert_eq!(status.code(), Code::Unavailable, "{status}");
                    })
                    .await;
            },
        );
    }
}
