//! The program under load from Rust clients, while its workers are killed, and when it is told to
//! end.

#[path = "../service/client.rs"]
mod client;
#[path = "../../../../tests/common/server_program.rs"]
mod server_program;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use client::{Client, origin, with_channel};
use grpc_offload::generated::update::Outcome;
use grpc_offload::generated::{Item, Subscription};
use rustix::process::Signal;
use seedbed::{Nursery, fail_after, open_nursery, sleep};
use server_program::{HANGS, ServerProgram};
use smol::stream;
use tonic::{Code, Status};

/// Jobs count the primes below this number, for a few milliseconds.
const LIMIT: u64 = 10_000;

const RIGHT: Outcome = Outcome::Primes(1229);

/// The items of one upload.
const UPLOAD: u64 = 10;

const SUBSCRIBERS: u64 = 2;

fn start() -> ServerProgram {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grpc_offload"));
    ServerProgram::start(command.arg("127.0.0.1:0"))
}

/// Returns how many items a program has accepted and processed, by what it has printed.
fn totals(printed: &[String]) -> (u64, u64) {
    let line = printed.concat();
    let numbers = line.strip_prefix("ended: ").and_then(|line| {
        let (accepted, processed) = line.split_once(" items accepted, ")?;
        let processed = processed.strip_suffix(" processed")?;
        Some((accepted.parse().ok()?, processed.parse().ok()?))
    });
    numbers.expect(&line)
}

/// Connects a client of the program while `test` runs.
async fn with_client<R: Send>(address: SocketAddr, test: impl AsyncFnOnce(Client) -> R) -> R {
    let test = async |channel| test(Client::with_origin(channel, origin())).await;
    with_channel(address, test).await
}

/// Waits for a call or a message, which must come in time.
async fn in_time<T>(call: impl Future<Output = T>) -> T {
    fail_after(HANGS, call).await.expect("a call hangs")
}

fn item(id: u64) -> Item {
    Item {
        id,
        limit: LIMIT,
        ..Item::default()
    }
}

/// Makes one unary call. A value must be the right one.
async fn compute(client: &mut Client, id: u64) -> Result<(), Status> {
    let update = in_time(client.compute(item(id))).await?.into_inner();
    assert_eq!((update.id, update.outcome), (id, Some(RIGHT)));
    Ok(())
}

/// Uploads the items with these numbers. Returns how many are acknowledged.
async fn upload(client: &mut Client, first: u64) -> Result<u64, Status> {
    let items: Vec<_> = (first..first + UPLOAD).map(item).collect();
    let receipt = in_time(client.do_something(stream::iter(items))).await?;
    assert_eq!(receipt.get_ref().accepted, UPLOAD);
    Ok(UPLOAD)
}

/// Subscribes, and returns the outcomes by their items when the stream has ended, with OK.
async fn all_updates(client: &mut Client, begun: &AtomicU64) -> BTreeMap<u64, Outcome> {
    let updates = in_time(client.get_updates(Subscription {})).await;
    let mut updates = updates.unwrap().into_inner();
    begun.fetch_add(1, Relaxed);
    let mut outcomes = BTreeMap::new();
    while let Some(update) = in_time(updates.message()).await.unwrap() {
        let before = outcomes.insert(update.id, update.outcome.unwrap());
        assert_eq!(before, None, "an update came twice");
    }
    outcomes
}

async fn until(condition: impl Fn() -> bool) {
    let come_true = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    in_time(come_true).await;
}

/// A kill costs at most the job that the worker has: its call is ABORTED, or the update of its item
/// has an error. Two uploaders, eight callers and two subscribers have a connection each.
#[test]
fn while_workers_are_killed_each_call_ends_with_the_right_value_or_status() {
    const UPLOADERS: u64 = 2;
    const UPLOADS: u64 = 15;
    const CALLERS: u64 = 8;
    const CALLS: u64 = 40;
    let program = start();
    let begun = &AtomicU64::new(0);
    let aborted = &AtomicU64::new(0);
    let load = async |address| {
        open_nursery(async |all: Nursery<'_, _>| {
            let subscribers: Vec<_> = (0..SUBSCRIBERS)
                .map(|_| {
                    all.spawn(with_client(address, async move |mut client| {
                        all_updates(&mut client, begun).await
                    }))
                })
                .collect();
            until(|| begun.load(Relaxed) == SUBSCRIBERS).await;
            open_nursery(async |n: Nursery<'_>| {
                for uploader in 0..UPLOADERS {
                    n.spawn(with_client(address, async move |mut client| {
                        for number in 0..UPLOADS {
                            let first = (uploader * UPLOADS + number) * UPLOAD;
                            upload(&mut client, first).await.unwrap();
                        }
                    }));
                }
                for _ in 0..CALLERS {
                    n.spawn(with_client(address, async move |mut client| {
                        for id in 0..CALLS {
                            if let Err(status) = compute(&mut client, id).await {
                                assert_eq!(status.code(), Code::Aborted, "{status}");
                                aborted.fetch_add(1, Relaxed);
                            }
                        }
                    }));
                }
            })
            .await;
            program.signal(Signal::TERM);
            let mut outcomes = Vec::new();
            for subscriber in subscribers {
                outcomes.push(subscriber.await);
            }
            outcomes
        })
        .await
    };
    let (outcomes, killed) = program.while_killing_workers(|| seedbed::run(load(program.address)));
    let acknowledged = UPLOADERS * UPLOADS * UPLOAD;
    assert_eq!(
        totals(&program.printed_until_its_end()),
        (acknowledged, acknowledged)
    );
    assert!(outcomes[0].keys().copied().eq(0..acknowledged));
    assert_eq!(outcomes[0], outcomes[1]);
    let failed = outcomes[0].values().filter(|outcome| match outcome {
        Outcome::Primes(_) => {
            assert_eq!(**outcome, RIGHT);
            false
        }
        Outcome::Error(_) => true,
    });
    let struck = failed.count() + aborted.load(Relaxed) as usize;
    println!("{killed} workers were killed, with {struck} jobs");
    assert!(0 < struck && struck <= killed, "{struck} of {killed}");
}

/// An upload that has begun is acknowledged, and its items are processed. Later calls are refused.
#[test]
fn what_is_acknowledged_when_the_program_is_told_to_end_is_processed() {
    const CLIENTS: u64 = 8;
    let program = start();
    let (begun, acknowledged) = (&AtomicU64::new(0), &AtomicU64::new(0));
    // Refused by the service, or with the connection that ends.
    let is_refused = |status: &Status| matches!(status.code(), Code::Unavailable | Code::Unknown);
    let load = async |address| {
        open_nursery(async |n: Nursery<'_, _>| {
            let subscriber = n.spawn(with_client(address, async move |mut client| {
                all_updates(&mut client, begun).await
            }));
            until(|| begun.load(Relaxed) == 1).await;
            for number in 0..CLIENTS {
                n.spawn(with_client(address, async move |mut client| {
                    let mut first = number << 32;
                    let status = loop {
                        match upload(&mut client, first).await {
                            Ok(items) => acknowledged.fetch_add(items, Relaxed),
                            Err(status) => break status,
                        };
                        first += UPLOAD;
                    };
                    assert!(is_refused(&status), "{status}");
                }));
                n.spawn(with_client(address, async move |mut client| {
                    let status = loop {
                        if let Err(status) = compute(&mut client, 1).await {
                            break status;
                        }
                    };
                    assert!(is_refused(&status), "{status}");
                }));
            }
            until(|| acknowledged.load(Relaxed) >= 10 * UPLOAD).await;
            program.signal(Signal::TERM);
            subscriber.await
        })
        .await
    };
    let outcomes = seedbed::run(load(program.address));
    let acknowledged = acknowledged.load(Relaxed);
    println!("{acknowledged} items were acknowledged");
    assert_eq!(
        totals(&program.printed_until_its_end()),
        (acknowledged, acknowledged)
    );
    assert_eq!(outcomes.len() as u64, acknowledged);
    assert!(outcomes.values().all(|outcome| *outcome == RIGHT));
}
