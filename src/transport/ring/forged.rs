//! Reads a ring whose memory the other side has forged.

use std::sync::atomic::Ordering::Relaxed;

use super::consumer::Consumer;
use super::error::Malformed;
use super::producer::Producer;
use super::shared::{Header, Ring, WORD};

/// The words of the ring that is forged.
pub(super) const WORDS: usize = 64;

/// The result of using a forged ring.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) fragments: usize,
    pub(crate) received_bytes: usize,
    pub(crate) sent: usize,
    pub(crate) malformed: usize,
}

/// Uses a ring that contains `bytes`: positions first, and then the words. Each step of the other
/// side is one more position. Nothing may panic, and no more is read than the ring contains.
pub(crate) fn use_ring(bytes: &[u8]) -> Outcome {
    let ring = Ring::<WORDS>::default();
    let (words, _) = bytes.as_chunks::<WORD>();
    let mut words = words.iter().map(|word| usize::from_le_bytes(*word));
    let positions: Vec<usize> = words.by_ref().take(8).collect();
    for (word, target) in words.zip(&ring.words) {
        target.store(word, Relaxed);
    }
    let mut outcome = Outcome::default();
    let (mut consumer, mut buffer) = (Consumer::new(), Vec::new());
    for position in &positions {
        ring.position.tail.store(*position, Relaxed);
        let before = outcome.fragments;
        loop {
            match consumer.next(&ring) {
                Ok(None) => break,
                Ok(Some(fragment)) => fragment.take_onto(&mut buffer),
                Err(Malformed) => {
                    outcome.malformed += 1;
                    break;
                }
            }
            outcome.fragments += 1;
            assert!(
                outcome.fragments - before <= WORDS,
                "each fragment has a word"
            );
        }
    }
    outcome.received_bytes = buffer.len();
    assert!(buffer.len() <= positions.len() * WORDS * WORD);
    let mut producer = Producer::new(usize::MAX);
    let header = Header {
        length: 20,
        is_first: true,
        is_last: true,
        fds: 1,
    };
    for pair in positions.chunks(2) {
        ring.consumed.head.store(pair[0], Relaxed);
        ring.consumed.taken.store(pair[pair.len() - 1], Relaxed);
        match producer.reserve(&ring, header) {
            Ok(Some(room)) => {
                room.commit(&[7; 20]);
                outcome.sent += 1;
            }
            Ok(None) => {}
            Err(Malformed) => outcome.malformed += 1,
        }
    }
    outcome
}
