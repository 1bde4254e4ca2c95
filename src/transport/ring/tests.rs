//! Tests of both sides with their socket, within one process.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use super::error::RingError;
use super::sender::Progress;
use super::{RingReceiver, RingSender, pair};
use crate::transport::codec;
use crate::transport::tuning::{MAX_RING_MESSAGES_WITH_FDS, RING_WORDS};

/// Receives until the end, and returns the messages.
fn receive_all(mut receiver: RingReceiver) -> (Vec<Vec<u8>>, RingError) {
    let mut received = Vec::new();
    loop {
        match receiver.recv() {
            Ok(message) => received.push(message.bytes.to_vec()),
            Err(end) => return (received, end),
        }
    }
}

#[test]
fn messages_of_all_lengths_arrive_in_order_before_the_end() {
    let lengths = [
        0,
        1,
        7,
        8,
        9,
        4096,
        65_535,
        65_536,
        65_537,
        300_000,
        5 << 20,
        0,
        3,
    ];
    let message = |length: usize| vec![length as u8; length];
    let (mut sender, receiver) = pair(3).unwrap();
    let sending = thread::spawn(move || {
        for length in lengths {
            sender.send(&message(length), &[]).unwrap();
        }
    });
    let (received, end) = receive_all(receiver);
    sending.join().unwrap();
    assert!(received == lengths.map(message));
    assert!(matches!(end, RingError::Closed), "{end}");
}

#[test]
fn a_full_ring_takes_no_message_until_one_is_received() {
    let (mut sender, mut receiver) = pair(2).unwrap();
    for message in [b"a", b"b"] {
        assert_eq!(sender.try_send(message, &[]).unwrap(), Progress::Sent);
    }
    assert_eq!(sender.try_send(b"c", &[]).unwrap(), Progress::Waits);
    assert_eq!(receiver.try_recv().unwrap().unwrap().bytes, b"a");
    assert_eq!(sender.try_send(b"c", &[]).unwrap(), Progress::Sent);
    let (received, _) = {
        drop(sender);
        receive_all(receiver)
    };
    assert_eq!(received, [b"b", b"c"]);
}

#[test]
fn an_abandoned_message_does_not_arrive_and_its_descriptors_are_closed() {
    let long = vec![1; RING_WORDS * 16];
    let (mut sender, mut receiver) = pair(5).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer: Arc<OwnedFd> = Arc::new(writer.into());
    assert_eq!(sender.try_send(&long, &[writer]).unwrap(), Progress::Waits);
    assert!(receiver.try_recv().unwrap().is_none(), "it is not complete");
    sender.abandon();
    assert_eq!(sender.try_send(b"next", &[]).unwrap(), Progress::Sent);
    assert_eq!(receiver.try_recv().unwrap().unwrap().bytes, b"next");
    // The end of the pipe comes once no writer is left.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn descriptors_arrive_with_their_messages_and_few_are_on_their_way() {
    let (mut sender, mut receiver) = pair(100).unwrap();
    let file = || -> Arc<OwnedFd> { Arc::new(std::fs::File::open("/dev/null").unwrap().into()) };
    for _ in 0..MAX_RING_MESSAGES_WITH_FDS {
        let progress = sender.try_send(b"files", &[file(), file()]).unwrap();
        assert_eq!(progress, Progress::Sent);
    }
    assert_eq!(
        sender.try_send(b"files", &[file()]).unwrap(),
        Progress::Waits
    );
    sender.abandon();
    assert_eq!(sender.try_send(b"none", &[]).unwrap(), Progress::Sent);
    for _ in 0..MAX_RING_MESSAGES_WITH_FDS {
        assert_eq!(receiver.recv().unwrap().fds.len(), 2);
    }
    assert_eq!(receiver.recv().unwrap().fds.len(), 0);
}

/// A process that ends closes its socket and leaves the memory as it is.
#[test]
fn a_side_that_ends_without_closing_leaves_what_it_sent_and_is_then_reported() {
    let (mut sender, mut receiver) = pair(4).unwrap();
    sender.send(b"whole", &[]).unwrap();
    let _ = sender.try_send(&vec![1; RING_WORDS * 16], &[]).unwrap();
    *sender.is_moved.get_mut() = true; // no close
    drop(sender);
    assert_eq!(receiver.recv().unwrap().bytes, b"whole");
    for _ in 0..2 {
        assert!(matches!(receiver.recv(), Err(RingError::PeerGone)));
    }
    let (mut sender, mut receiver) = pair(1).unwrap();
    sender.send(b"first", &[]).unwrap();
    *receiver.is_moved.get_mut() = true;
    drop(receiver);
    assert!(matches!(sender.send(b"2", &[]), Err(RingError::PeerGone)));
}

#[test]
fn a_receiver_that_closes_ends_a_sender_that_waits() {
    let (mut sender, receiver) = pair(1).unwrap();
    sender.send(b"1", &[]).unwrap();
    let waiting = thread::spawn(move || sender.send(b"2", &[]));
    drop(receiver);
    let sent = waiting.join().unwrap();
    assert!(matches!(sent, Err(RingError::Closed)), "{sent:?}");
}

/// Sends a value through the codec, as a message does.
fn through_codec<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let mut frame = Vec::new();
    let attached = codec::encode_with_attachments(value, &mut frame).unwrap();
    let fds = attached.fds.iter().map(|fd| fd.try_clone().unwrap());
    codec::decode_received(&frame, fds.collect()).unwrap()
}

#[test]
fn both_sides_move_with_all_that_is_on_its_way() {
    let (mut sender, mut receiver) = pair(8).unwrap();
    let file: Arc<OwnedFd> = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
    sender.send(b"one", &[]).unwrap();
    sender.send(b"two", &[file]).unwrap();
    receiver.end_park().unwrap(); // reads the packet with the descriptor
    let long = vec![3; RING_WORDS * 16];
    assert_eq!(sender.try_send(&long, &[]).unwrap(), Progress::Waits);
    sender.abandon();
    let mut moved_sender: RingSender = through_codec(&sender);
    assert!(matches!(sender.try_send(b"", &[]), Err(RingError::Moved)));
    drop(sender);
    assert_eq!(receiver.recv().unwrap().bytes, b"one");
    let mut moved: RingReceiver = through_codec(&receiver);
    assert!(matches!(receiver.try_recv(), Err(RingError::Moved)));
    drop(receiver);
    let two = moved.recv().unwrap();
    assert_eq!((two.bytes, two.fds.len()), (&b"two"[..], 1));
    assert!(
        moved.try_recv().unwrap().is_none(),
        "the next one is not complete"
    );
    let mut moved: RingReceiver = through_codec(&moved); // in the middle of a message
    moved_sender.send(b"three", &[]).unwrap();
    assert_eq!(moved.recv().unwrap().bytes, b"three");
    drop(moved_sender);
    assert!(matches!(moved.recv(), Err(RingError::Closed)));
}

#[test]
fn a_side_outside_of_a_message_is_an_error() {
    let (sender, _receiver) = pair(1).unwrap();
    let error = serde_json::to_string(&sender).unwrap_err().to_string();
    assert!(
        error.contains("can only be sent to another process"),
        "{error}"
    );
    let error = codec::encode(&sender).unwrap_err().to_string();
    assert!(
        error.contains("can only be sent to another process"),
        "{error}"
    );
    // It still works.
    let mut sender = sender;
    assert_eq!(sender.try_send(b"x", &[]).unwrap(), Progress::Sent);
}

#[test]
fn forged_packets_and_missing_descriptors_are_errors() {
    use crate::sys::socket::send_all;
    let (sender, mut receiver) = pair(1).unwrap();
    send_all(sender.socket(), b"?").unwrap();
    assert!(matches!(receiver.end_park(), Err(RingError::Malformed)));
    let (mut sender, mut receiver) = pair(1).unwrap();
    let file: Arc<OwnedFd> = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
    let _ = sender.try_send(b"file", &[file]).unwrap();
    receiver.wire.drain(&mut Default::default()).unwrap(); // the descriptor is lost
    for _ in 0..2 {
        assert!(matches!(receiver.try_recv(), Err(RingError::Malformed)));
    }
}
