//! Channels into and out of jobs: order, back-pressure, the end, processes that are killed, sides
//! that move, and memory that a job overwrites.
//!
//! `SEEDBED_STORM_KILLS=10000 cargo test --release --test workers channels::` kills more senders
//! than the default.
//!
//! `unsafe` is needed to overwrite the memory of a channel.

use std::future::{Future, IntoFuture};
use std::io::Write;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::common;
use crate::common::stage::{Stage, announce, kill, staged, state_of, until_ended};
use crate::common::{pid, test};
use futures_lite::StreamExt;
use seedbed::worker::{
    Receiver, RecvErrorKind, SendErrorKind, Sender, SharedBytes, WorkerErrorKind, channel,
};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, WorkerContext, open_nursery};
use serde::{Deserialize, Serialize};

/// A job that answers each number.
fn double((numbers, mut doubled): (Receiver<u64>, Sender<u64>)) -> u64 {
    let mut count = 0;
    for number in numbers {
        doubled.send_blocking(2 * number.unwrap()).unwrap();
        count += 1;
    }
    count
}

fn numbers_go_into_a_job_and_come_back_in_order() {
    staged(WorkerConfig::new(), |workers| async move {
        for capacity in [1, 3, 1000] {
            let (mut numbers, job_numbers) = channel(capacity).unwrap();
            let (job_doubled, doubled) = channel(capacity).unwrap();
            let call = workers.run_sync(double, (job_numbers, job_doubled));
            let send = async {
                for n in 0..3000 {
                    numbers.send(n).await.unwrap();
                }
                drop(numbers);
            };
            let receive = doubled.map(Result::unwrap).collect::<Vec<u64>>();
            let both = smol::future::zip(send, receive);
            let (count, ((), received)) = smol::future::zip(call.into_future(), both).await;
            assert_eq!(count.unwrap(), 3000);
            assert!(received.into_iter().eq((0..3000).map(|n| 2 * n)));
        }
    });
}

/// Sends numbers once it is told to.
fn produce((mut ready, mut go, mut sender): (Sender<u32>, Receiver<u64>, Sender<u64>)) {
    ready.send_blocking(std::process::id()).unwrap();
    let count = go.recv_blocking().unwrap();
    (0..count).for_each(|n| sender.send_blocking(n).unwrap());
}

fn consume((mut ready, receiver, mut sum): (Sender<u32>, Receiver<u64>, Sender<u64>)) {
    ready.send_blocking(std::process::id()).unwrap();
    let total = receiver.into_iter().map(Result::unwrap).sum();
    sum.send_blocking(total).unwrap();
}

fn two_workers_talk_while_the_thread_of_their_parent_is_blocked() {
    staged(WorkerConfig::new(), |workers| async move {
        let (sender, receiver) = channel(7).unwrap();
        let (sum_sender, mut sum) = channel(1).unwrap();
        let (mut go, job_go) = channel(1).unwrap();
        let ((ready, mut producer), (other_ready, mut consumer)) =
            (channel(1).unwrap(), channel(1).unwrap());
        open_nursery(async |n| {
            n.spawn(workers.run_sync(produce, (ready, job_go, sender)));
            n.spawn(workers.run_sync(consume, (other_ready, receiver, sum_sender)));
            let pids = (
                producer.recv().await.unwrap(),
                consumer.recv().await.unwrap(),
            );
            assert_ne!(pids.0, pids.1);
            go.try_send(20_000).unwrap();
            // Blocks this thread, and with it all tasks of this process.
            assert_eq!(sum.recv_blocking().unwrap(), (0..20_000).sum::<u64>());
        })
        .await;
    });
}

#[derive(Serialize, Deserialize)]
struct Delivery {
    /// With an alias, the value is decoded twice.
    #[serde(alias = "replies")]
    answers: Sender<String>,
    questions: Receiver<String>,
}

/// Answers the questions of each delivery, and returns the last sender.
fn answer(deliveries: Receiver<Delivery>) -> Option<Sender<String>> {
    let mut last = None;
    for delivery in deliveries {
        let Delivery {
            mut answers,
            questions,
        } = delivery.unwrap();
        for question in questions {
            answers.send_blocking(question.unwrap() + "!").unwrap();
        }
        last = Some(answers);
    }
    last
}

fn sides_travel_through_channels_and_in_results() {
    staged(WorkerConfig::new(), |workers| async move {
        let (mut deliveries, job) = channel(1).unwrap();
        open_nursery(async |n| {
            let answering = n.spawn(workers.run_sync(answer, job));
            let mut last = None;
            for round in 0..3 {
                let (answers, mut received) = channel(2).unwrap();
                let (mut asked, questions) = channel(2).unwrap();
                asked.send(format!("{round}")).await.unwrap();
                let delivery = Delivery { answers, questions };
                deliveries.send(delivery).await.unwrap();
                asked.send(format!("more {round}")).await.unwrap();
                assert_eq!(received.recv().await.unwrap(), format!("{round}!"));
                drop(asked);
                assert_eq!(received.recv().await.unwrap(), format!("more {round}!"));
                last = Some(received);
            }
            drop(deliveries);
            let mut sender = answering.await.unwrap().expect("there were deliveries");
            sender.send("from the parent".into()).await.unwrap();
            drop(sender);
            let received: Vec<_> = last.unwrap().map(Result::unwrap).collect().await;
            assert_eq!(received, ["from the parent"]);
        })
        .await;
    });
}

/// Sends a number, and returns a channel on which it can be received again, if it is odd.
fn tell((number, mut sender): (u64, Sender<u64>)) -> Option<Receiver<u64>> {
    sender.send_blocking(number).unwrap();
    let (mut again, receiver) = channel(1).unwrap();
    again.send_blocking(number).unwrap();
    (number % 2 == 1).then_some(receiver)
}

fn sides_travel_in_the_items_and_results_of_a_map() {
    for config in [WorkerConfig::new(), WorkerConfig::new().single_use()] {
        staged(config, |workers| async move {
            let (senders, receivers): (Vec<_>, Vec<_>) =
                (0..20).map(|_| channel(1).unwrap()).unzip();
            let map = workers.map_sync(tell, (0..).zip(senders));
            let again = map.try_collect().await.unwrap();
            for (number, (receiver, again)) in receivers.into_iter().zip(again).enumerate() {
                let number = number as u64;
                let told: Vec<_> = receiver.map(Result::unwrap).collect().await;
                assert_eq!(told, [number]);
                assert_eq!(again.is_some(), number % 2 == 1);
                if let Some(again) = again {
                    let told: Vec<_> = again.map(Result::unwrap).collect().await;
                    assert_eq!(told, [number]);
                }
            }
        });
    }
}

/// Crashes, unless there is a file; makes it before. So it succeeds when it is called again.
fn tell_and_crash((marker, sender): (PathBuf, Option<Sender<u64>>)) {
    if marker.exists() {
        return;
    }
    std::fs::write(marker, "").unwrap();
    let _sender = sender.map(|mut sender| {
        sender.send_blocking(7).unwrap();
        sender
    });
    std::process::abort();
}

fn an_item_that_holds_a_side_is_not_run_again() {
    staged(WorkerConfig::new(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let marker = |name: &str| folder.path().join(name);
        let (sender, mut receiver) = channel(1).unwrap();
        let items = [(marker("one"), Some(sender)), (marker("two"), None)];
        let results = workers.map_sync(tell_and_crash, items).retry(3).collect();
        let results = results.await;
        let error = results[0].as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.item()),
            (WorkerErrorKind::Broken, Some(0))
        );
        assert!(results[1].is_ok(), "{results:?}");
        assert_eq!(receiver.recv().await.unwrap(), 7);
        let end = receiver.recv().await.unwrap_err();
        assert_eq!(end.kind(), RecvErrorKind::PeerGone);
    });
}

type Blobs = (Vec<u8>, SharedBytes);

fn reflect((blobs, mut back): (Receiver<Blobs>, Sender<Blobs>)) {
    for blob in blobs {
        back.send_blocking(blob.unwrap()).unwrap();
    }
}

fn large_messages_and_shared_memory_arrive_whole() {
    staged(WorkerConfig::new(), |workers| async move {
        let (mut blobs, job_blobs) = channel(16).unwrap();
        let (job_back, mut back) = channel(16).unwrap();
        open_nursery(async |n| {
            n.spawn(workers.run_sync(reflect, (job_blobs, job_back)));
            for length in [0, 1, 70_000, 131_072, 140_000, 1 << 20] {
                let bytes = vec![length as u8; length];
                let mut writer = SharedBytes::writer().unwrap();
                writer.write_all(&bytes).unwrap();
                let shared = writer.finish().unwrap();
                blobs.send((bytes.clone(), shared)).await.unwrap();
                let (returned, shared) = back.recv().await.unwrap();
                assert!(*shared == *bytes && returned == bytes, "{length} bytes");
            }
            drop(blobs);
        })
        .await;
    });
}

fn a_fast_sender_waits_for_a_slow_receiver() {
    staged(WorkerConfig::new(), |workers| async move {
        let stage = Stage::new();
        let job = |(mut sender, mut sent, stage): (Sender<u64>, Sender<u64>, PathBuf)| {
            announce(&stage);
            for n in 0..20 {
                sender.send_blocking(n).unwrap();
                sent.send_blocking(n).unwrap();
            }
        };
        let (sender, mut receiver) = channel(4).unwrap();
        let (sent_sender, mut sent) = channel(100).unwrap();
        open_nursery(async |n| {
            n.spawn(workers.run_sync(job, (sender, sent_sender, stage.path())));
            let pid = stage.reached().await;
            for taken in 0..16 {
                // Sleeps in `send_blocking`: it has sent four more than were taken.
                for _ in 0..if taken == 0 { 4 } else { 1 } {
                    sent.recv().await.unwrap();
                }
                while state_of(pid) != Some('S') {
                    smol::future::yield_now().await;
                }
                assert_eq!(sent.try_recv().unwrap_err().kind(), RecvErrorKind::Empty);
                assert_eq!(receiver.recv().await.unwrap(), taken);
            }
            drop(receiver.try_recv());
            let rest: Vec<_> = receiver.map(Result::unwrap).collect().await;
            assert_eq!(rest.last(), Some(&19));
        })
        .await;
    });
}

fn dropping_the_receiver_ends_a_job_that_waits_to_send() {
    staged(WorkerConfig::new(), |workers| async move {
        let job = |mut sender: Sender<u64>| {
            let error = (0..).find_map(|n| sender.send_blocking(n).err()).unwrap();
            (error.kind() == SendErrorKind::Closed, error.into_inner())
        };
        let (sender, mut receiver) = channel(2).unwrap();
        open_nursery(async |n| {
            let job = n.spawn(workers.run_sync(job, sender));
            assert_eq!(receiver.recv().await.unwrap(), 0);
            drop(receiver);
            let (is_closed, unsent) = job.await.unwrap();
            assert!(is_closed && (1..=3).contains(&unsent), "{unsent}");
        })
        .await;
    });
}

/// The message with a number: its length and contents follow from that.
fn numbered(number: u32) -> (u32, String) {
    let lengths = [0, 3, 500, 20_000, 100_000, 150_000];
    let length = lengths[number as usize % lengths.len()];
    (number, number.to_string().repeat(length))
}

/// Sends numbered messages, and reports each one that was sent, until it is killed.
fn flood((mut sender, mut sent): (Sender<(u32, String)>, Sender<u32>)) {
    for number in 0.. {
        sender.send_blocking(numbered(number)).unwrap();
        sent.send_blocking(number).unwrap();
    }
}

/// The number of kills in a storm.
fn kills() -> u32 {
    let asked = std::env::var("SEEDBED_STORM_KILLS").ok();
    asked.map_or(20, |asked| asked.parse().unwrap())
}

/// Kills a sender after some of its messages, and checks what is left. Returns how many messages
/// there were.
async fn kill_a_sender(workers: &WorkerContext, round: u32) -> u32 {
    let (sender, mut messages) = channel(1 + round as usize % 5).unwrap();
    let (sent_sender, mut sent) = channel(100_000).unwrap();
    let scope = CancelScope::new();
    let call = workers
        .run_sync(flood, (sender, sent_sender))
        .kill_on_cancel(true);
    let receive = async {
        let mut count = 0;
        // So many that the kill meets another step each time.
        while count < round * 7 % 23 {
            assert!(messages.recv().await.unwrap() == numbered(count));
            count += 1;
        }
        scope.cancel();
        loop {
            match messages.recv().await {
                Ok(message) => assert!(message == numbered(count), "message {count} is whole"),
                Err(error) => break assert_eq!(error.kind(), RecvErrorKind::PeerGone, "{error}"),
            }
            count += 1;
        }
        let mut reported = 0;
        loop {
            match sent.recv().await {
                Ok(number) => assert_eq!(number, reported),
                Err(error) => break assert_eq!(error.kind(), RecvErrorKind::PeerGone, "{error}"),
            }
            reported += 1;
        }
        assert!(
            reported <= count && count <= reported + 1,
            "{reported} messages were sent, and {count} received"
        );
        count
    };
    let (outcome, count) = smol::future::zip(scope.run(call), receive).await;
    assert!(outcome.is_none(), "the call was killed");
    count
}

fn kills_of_senders_lose_no_message_that_was_sent_and_tear_none() {
    staged(WorkerConfig::new(), |workers| async move {
        let mut messages = 0;
        for round in 0..kills() {
            messages += kill_a_sender(&workers, round).await;
        }
        assert!(
            messages > kills(),
            "the kills came later than the first message"
        );
    });
}

fn a_receiver_that_is_killed_ends_a_sender_that_waits() {
    staged(WorkerConfig::new(), |workers| async move {
        let job = |(mut receiver, stage): (Receiver<u64>, PathBuf)| {
            assert_eq!(receiver.recv_blocking().unwrap(), 0);
            announce(&stage);
            common::endless(());
        };
        let stage = Stage::new();
        let (mut sender, receiver) = channel(3).unwrap();
        open_nursery(async |n| {
            let job = n.spawn(workers.run_sync(job, (receiver, stage.path())));
            sender.send(0).await.unwrap();
            kill(stage.reached().await);
            let error = loop {
                match sender.send(1).await {
                    Ok(()) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), SendErrorKind::PeerGone, "{error}");
            assert_eq!(job.await.unwrap_err().kind(), WorkerErrorKind::Broken);
        })
        .await;
    });
}

fn a_worker_whose_peer_is_killed_gets_what_was_sent_and_then_an_error() {
    staged(WorkerConfig::new(), |workers| async move {
        let send = |(mut sender, stage): (Sender<u64>, PathBuf)| {
            (0..5).for_each(|n| sender.send_blocking(n).unwrap());
            announce(&stage);
            common::endless(());
        };
        let receive = |mut receiver: Receiver<u64>| {
            let received: Vec<u64> = receiver.iter().map_while(Result::ok).collect();
            let kind = receiver.recv_blocking().unwrap_err().kind();
            (received, kind == RecvErrorKind::PeerGone)
        };
        let stage = Stage::new();
        let (sender, receiver) = channel(9).unwrap();
        open_nursery(async |n| {
            let sending = n.spawn(workers.run_sync(send, (sender, stage.path())));
            let receiving = n.spawn(workers.run_sync(receive, receiver));
            kill(stage.reached().await);
            let all = ((0..5).collect(), true);
            assert_eq!(receiving.await.unwrap(), all);
            assert_eq!(sending.await.unwrap_err().kind(), WorkerErrorKind::Broken);
        })
        .await;
    });
}

fn a_side_in_the_argument_of_a_call_that_never_runs_is_reported_as_gone() {
    staged(WorkerConfig::new(), |workers| async move {
        let limiter = CapacityLimiter::new(1);
        let _token = limiter.try_acquire().unwrap();
        let (sender, mut receiver) = channel::<u64>(1).unwrap();
        let scope = CancelScope::new();
        let job = |mut sender: Sender<u64>| sender.send_blocking(7).is_ok();
        let call = workers.run_sync(job, sender).limiter(&limiter);
        let mut call = pin!(scope.run(call));
        assert!(smol::future::poll_once(call.as_mut()).await.is_none());
        scope.cancel();
        assert!(call.await.is_none());
        let error = receiver.recv().await.unwrap_err();
        let kinds = [RecvErrorKind::PeerGone, RecvErrorKind::EndOfChannel];
        assert!(kinds.contains(&error.kind()), "{error}");
    });
}

/// Polls a future once, by hand.
fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn a_cancelled_send_leaves_no_message_and_a_cancelled_receive_takes_none() {
    test(async {
        // Several polls each.
        for polls in 1..6 {
            let (mut sender, mut receiver) = channel(4).unwrap();
            for n in 1..=3u8 {
                sender.send(vec![n; 80_000]).await.unwrap();
            }
            {
                // There is room for none of its fragments, and then for one of two.
                let mut send = pin!(sender.send(vec![4; 120_000]));
                for _ in 0..polls {
                    assert!(poll(send.as_mut()).is_pending());
                }
                assert_eq!(receiver.recv().await.unwrap(), [1; 80_000]);
                for _ in 0..polls {
                    assert!(poll(send.as_mut()).is_pending());
                }
            }
            for n in 2..=3 {
                assert_eq!(receiver.recv().await.unwrap(), [n; 80_000]);
            }
            {
                let mut receive = pin!(receiver.recv());
                for _ in 0..polls {
                    assert!(poll(receive.as_mut()).is_pending());
                }
            }
            sender.send(vec![5; 120_000]).await.unwrap();
            drop(sender);
            assert_eq!(receiver.recv().await.unwrap(), [5; 120_000]);
            assert!(receiver.recv().await.unwrap_err().is_end());
        }
    });
}

/// A value that cannot be decoded.
#[derive(Debug)]
struct OneWay;

impl Serialize for OneWay {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("text")
    }
}

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|_| OneWay)
    }
}

fn a_message_that_cannot_be_decoded_is_an_error_and_the_next_one_arrives() {
    test(async {
        let (mut sender, mut receiver) = channel::<Result<u8, OneWay>>(4).unwrap();
        sender.send(Err(OneWay)).await.unwrap();
        sender.send(Ok(7)).await.unwrap();
        let error = receiver.recv().await.unwrap_err();
        assert_eq!(error.kind(), RecvErrorKind::Decode, "{error}");
        assert_eq!(receiver.recv().await.unwrap().unwrap(), 7);
    });
}

fn a_side_in_a_format_for_texts_is_an_error_and_one_that_comes_back_works() {
    staged(WorkerConfig::new(), |workers| async move {
        let (sender, mut receiver) = channel::<u8>(1).unwrap();
        // A job that sends its argument back keeps nothing of it.
        let sender = workers.run_sync(|sender: Sender<u8>| sender, sender);
        let mut sender = sender.await.unwrap();
        sender.send(7).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap(), 7);
        let described = seedbed::worker::Described(sender);
        let call = workers.run_sync(|_: seedbed::worker::Described<Sender<u8>>| (), described);
        let error = call.await.unwrap_err();
        assert!(error.to_string().contains("within `Described`"), "{error}");
    });
}

/// Overwrites the memory of all rings of this process with pseudo-random words.
fn overwrite_rings(seed: u64) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut random = seed | 1;
    for line in maps.lines().filter(|line| line.contains("seedbed-ring")) {
        let (start, rest) = line.split_once('-').unwrap();
        let (end, _) = rest.split_once(' ').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        for address in (number(start)..number(end)).step_by(8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let word = match random % 4 {
                0 => random % 256,
                1 => (3 << 20) | (random % 64),
                _ => random,
            };
            // SAFETY: the address is in a writable mapping, which this process keeps until the job
            // ends. All other uses of it are atomic, and any value is one of theirs.
            unsafe {
                (*(address as *const std::sync::atomic::AtomicU64))
                    .store(word, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
}

fn a_job_that_overwrites_the_memory_of_a_channel_harms_this_channel_only() {
    staged(WorkerConfig::new(), |workers| async move {
        let job =
            |(seed, sender, receiver, stage): (u64, Sender<u64>, Receiver<u64>, PathBuf)| -> () {
                overwrite_rings(seed);
                announce(&stage);
                // As a process does that is killed: nothing is closed.
                std::mem::forget((sender, receiver));
                std::process::exit(0)
            };
        let (mut other, mut unharmed) = channel(1).unwrap();
        for seed in 0..20 {
            let stage = Stage::new();
            let (job_sender, mut receiver) = channel::<u64>(4).unwrap();
            let (mut sender, job_receiver) = channel::<u64>(4).unwrap();
            sender.send(1).await.unwrap();
            let argument = (seed, job_sender, job_receiver, stage.path());
            let call = workers.run_sync(job, argument).into_future();
            let using = async {
                stage.reached().await;
                // Both come to an end, whatever arrives until then.
                while !matches!(receiver.recv().await, Err(error) if error.kind() != RecvErrorKind::Decode)
                {
                }
                while sender.send(2).await.is_ok() {}
            };
            let (outcome, ()) = smol::future::zip(call, using).await;
            assert!(outcome.is_err());
            other.send(seed).await.unwrap();
            assert_eq!(unharmed.recv().await.unwrap(), seed);
        }
    });
}

fn a_channel_within_one_process_works_between_threads() {
    test(async {
        let (mut sender, receiver) = channel(3).unwrap();
        let thread = std::thread::spawn(move || {
            (0..10_000u32).for_each(|n| sender.send_blocking(n).unwrap());
        });
        let received: Vec<u32> = receiver.map(Result::unwrap).collect().await;
        assert!(received.into_iter().eq(0..10_000));
        thread.join().unwrap();
    });
}

fn a_process_that_a_job_forks_does_not_close_its_channels() {
    staged(WorkerConfig::new(), |workers| async move {
        let job = |mut sender: Sender<u8>| {
            // SAFETY: the forked process drops its copy of the sender and ends.
            match unsafe { libc::fork() } {
                0 => {
                    drop(sender);
                    // SAFETY: any process may end itself.
                    unsafe { libc::_exit(0) }
                }
                child => until_ended(child.cast_unsigned()),
            }
            sender.send_blocking(7).unwrap();
        };
        let (sender, mut receiver) = channel(1).unwrap();
        workers.run_sync(job, sender).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap(), 7);
        assert!(receiver.recv().await.unwrap_err().is_end());
        assert!(workers.run_sync(pid, ()).await.unwrap() > 0);
    });
}

suite! {
    numbers_go_into_a_job_and_come_back_in_order,
    two_workers_talk_while_the_thread_of_their_parent_is_blocked,
    sides_travel_through_channels_and_in_results,
    sides_travel_in_the_items_and_results_of_a_map,
    an_item_that_holds_a_side_is_not_run_again,
    large_messages_and_shared_memory_arrive_whole,
    a_fast_sender_waits_for_a_slow_receiver,
    dropping_the_receiver_ends_a_job_that_waits_to_send,
    kills_of_senders_lose_no_message_that_was_sent_and_tear_none,
    a_receiver_that_is_killed_ends_a_sender_that_waits,
    a_worker_whose_peer_is_killed_gets_what_was_sent_and_then_an_error,
    a_side_in_the_argument_of_a_call_that_never_runs_is_reported_as_gone,
    a_cancelled_send_leaves_no_message_and_a_cancelled_receive_takes_none,
    a_message_that_cannot_be_decoded_is_an_error_and_the_next_one_arrives,
    a_side_in_a_format_for_texts_is_an_error_and_one_that_comes_back_works,
    a_job_that_overwrites_the_memory_of_a_channel_harms_this_channel_only,
    a_channel_within_one_process_works_between_threads,
    a_process_that_a_job_forks_does_not_close_its_channels,
}
