//! Compares the memory of a ring with a queue of messages, and forges it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use super::consumer::Consumer;
use super::forged::{self, use_ring};
use super::producer::Producer;
use super::shared::{Header, Ring, WORD};

const WORDS: usize = 32;

#[derive(Clone, Debug)]
enum Step {
    /// Send a fragment of this many bytes, which begins a message or completes one, or both.
    Send(usize, bool, bool),
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..=Header::max_length(WORDS), any::<bool>(), any::<bool>())
            .prop_map(|(length, first, last)| Step::Send(length, first, last)),
        Just(Step::Take),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn a_ring_is_a_bounded_queue_of_fragments_also_where_positions_wrap(
        steps in steps(),
        capacity in 1..6usize,
        start in prop_oneof![Just(0), Just(usize::MAX - 40), any::<usize>()],
    ) {
        let ring = Ring::<WORDS>::default();
        ring.position.tail.store(start, Relaxed);
        ring.consumed.head.store(start, Relaxed);
        let (mut producer, mut consumer) = (Producer::new(capacity), Consumer::new());
        producer.skip(start);
        consumer.skip(start);
        let mut model: VecDeque<(Header, Vec<u8>)> = VecDeque::new();
        for (number, step) in steps.into_iter().enumerate() {
            let used: usize = model.iter().map(|(header, _)| header.words()).sum();
            let begun = model.iter().filter(|(header, _)| header.is_first).count();
            match step {
                Step::Send(length, is_first, is_last) => {
                    let header = Header { length, is_first, is_last, fds: 0 };
                    let bytes = vec![number as u8; length];
                    let room = producer.reserve(&ring, header).unwrap();
                    let fits = used + header.words() <= WORDS && (!is_first || begun < capacity);
                    prop_assert_eq!(room.is_some(), fits);
                    if let Some(room) = room {
                        room.commit(&bytes);
                        model.push_back((header, bytes));
                    }
                }
                Step::Take => {
                    prop_assert_eq!(consumer.is_changed(&ring), !model.is_empty());
                    let fragment = consumer.next(&ring).unwrap();
                    let taken = fragment.map(|fragment| {
                        let (header, mut bytes) = (fragment.header(), Vec::new());
                        fragment.take_onto(&mut bytes);
                        (header, bytes)
                    });
                    prop_assert_eq!(taken, model.pop_front());
                }
            }
        }
    }

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn forged_memory_is_read_within_its_bounds(
        positions in prop::collection::vec(prop_oneof![0..200usize, any::<usize>()], 8),
        words in prop::collection::vec(prop_oneof![Just(1 << 20), 0..1usize << 32, any::<usize>()], 0..forged::WORDS),
    ) {
        let bytes: Vec<u8> = positions.iter().chain(&words).flat_map(|word| word.to_le_bytes()).collect();
        use_ring(&bytes);
    }

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn a_header_is_read_as_it_was_written_and_no_other_word_is_one(
        length in 0..1usize << 20, is_first: bool, is_last: bool, fds: u8, word: usize,
    ) {
        let header = Header { length, is_first, is_last, fds: if is_first { fds } else { 0 } };
        prop_assert_eq!(Header::from_word(header.to_word()), Some(header));
        prop_assert!(Header::from_word(word).is_none_or(|header| header.to_word() == word));
    }
}

#[test]
fn whole_and_forged_positions_are_told_apart() {
    let header = Header {
        length: 2 * WORD,
        is_first: true,
        is_last: true,
        fds: 0,
    };
    let ring_with = |tail: usize| {
        let words = [tail, 0, 0, 0, 0, 0, 0, 0, header.to_word(), 1, 2];
        words.map(usize::to_le_bytes).concat()
    };
    let whole = use_ring(&ring_with(3));
    assert_eq!((whole.fragments, whole.received_bytes), (1, 16));
    // A fragment that is not committed as a whole, and a position beyond the ring.
    for forged in [2, 65, usize::MAX] {
        let outcome = use_ring(&ring_with(forged));
        assert_eq!(
            (outcome.fragments, outcome.malformed >= 1),
            (0, true),
            "{forged}"
        );
    }
}
