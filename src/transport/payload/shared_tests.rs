//! Tests of shared slices against plain vectors, outside of calls, and of decoding what a faulty
//! peer sends. The tests in `tests/workers/shared_memory.rs` send shared memory to workers.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use serde::Serialize;

use super::{SharedBytes, SharedSlice};
use crate::sys::memory::Sealed;
use crate::transport::codec;
use crate::transport::codec::{decode_received, encode_with_attachments};
use crate::transport::codec_error::CodecError;
use crate::transport::payload::inline::Memory;

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Sample {
    at: u64,
    values: [f32; 6],
}

fn sample(at: u64) -> Sample {
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, at as f32];
    Sample { at, values }
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (0usize..20_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
}

/// Encodes a message and decodes it, in one process. Also returns the number of descriptors.
fn send<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> (Result<T, CodecError>, usize) {
    let mut bytes = Vec::new();
    let fds = encode_with_attachments(value, &mut bytes).unwrap().fds;
    let count = fds.len();
    let received = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    (decode_received(&bytes, received), count)
}

fn sealed<T: Pod>(slice: &SharedSlice<T>) -> Option<&Arc<Sealed>> {
    match slice.memory()?.0 {
        Memory::Sealed(memory) => Some(memory),
        other => panic!("{other:?}"),
    }
}

fn memory_of<T: Pod>(slice: &SharedSlice<T>) -> Option<i32> {
    Some(sealed(slice)?.file().as_raw_fd())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn each_way_of_making_one_gives_the_same_bytes(bytes in any_bytes(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        let copied = SharedBytes::copy_from(&bytes).unwrap();
        let built = SharedBytes::build(bytes.len(), |room| {
            assert!(room.iter().all(|byte| *byte == 0));
            room.copy_from_slice(&bytes);
            Ok(())
        }).unwrap();
        let mut writer = SharedBytes::writer().unwrap();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort();
        for ends in at.windows(2) {
            writer.write_all(&bytes[ends[0]..ends[1]]).unwrap();
        }
        prop_assert_eq!(&*copied, &bytes[..]);
        prop_assert_eq!(&copied, &built);
        prop_assert_eq!(copied, writer.finish().unwrap());
    }

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn a_slice_is_that_of_a_vector_and_travels_as_such(
        numbers in prop::collection::vec(any::<u32>(), 0..3000),
        ends in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let shared = SharedSlice::copy_from(&numbers).unwrap();
        let (one, other) = (ends.0.index(numbers.len() + 1), ends.1.index(numbers.len() + 1));
        let range = one.min(other)..one.max(other);
        let part = shared.slice(range.clone());
        prop_assert_eq!(&*part, &numbers[range.clone()]);
        let (received, fds) = send(&(shared, part));
        let (whole, part) = received.unwrap();
        prop_assert_eq!(&*whole, &numbers[..]);
        prop_assert_eq!(&*part, &numbers[range]);
        prop_assert_eq!(fds, usize::from(!numbers.is_empty()));
    }
}

/// Returns whether a received slice is a part of its large message, or a copy from a small one.
fn each_in_its_place<T: Pod>(received: &SharedSlice<T>, is_large: bool) -> bool {
    match received.memory() {
        None => true,
        Some((Memory::Sealed(_), _)) => is_large,
        Some((Memory::Owned(_), _)) => !is_large,
        Some((Memory::Leased(_), _)) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn vectors_travel_behind_their_message_aligned_and_once(
        bytes in any_bytes(),
        samples in prop::collection::vec(any::<u64>().prop_map(sample), 0..6000),
        text in (0usize..200_000).prop_map(|length| "x".repeat(length)),
        ends in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let shared = SharedSlice::from(samples.clone());
        let (one, other) = (ends.0.index(samples.len() + 1), ends.1.index(samples.len() + 1));
        let range = one.min(other)..one.max(other);
        let part = shared.slice(range.clone());
        let sealed = SharedSlice::copy_from(&[1.5f64]).unwrap();
        let bytes = SharedBytes::from(bytes.into_boxed_slice());
        let message = (bytes.clone(), shared.clone(), text.clone(), part, shared, sealed);
        let (received, fds) = send(&message);
        let received = received.unwrap();
        prop_assert!(received == message);
        let is_large = fds == 2;
        prop_assert!(each_in_its_place(&received.0, is_large));
        prop_assert!(each_in_its_place(&received.1, is_large));
        prop_assert!(each_in_its_place(&received.3, is_large));
        prop_assert!(each_in_its_place(&received.5, true));
        if is_large {
            prop_assert_eq!(received.1.as_ptr(), received.4.as_ptr());
        }
        // And so on, from where it has arrived.
        prop_assert!(send(&received).0.unwrap() == message);
    }
}

#[test]
fn a_vector_is_not_copied_before_it_is_sent() {
    let numbers = vec![1u64, 2, 3];
    let address = numbers.as_ptr();
    let shared = SharedSlice::from(numbers);
    assert_eq!(shared.as_ptr(), address);
    assert_eq!(shared.slice(1..).cast::<u8>().unwrap().len(), 16);
    assert!(SharedBytes::from(Vec::new()).memory().is_none());
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
struct Wide([u64; 8]);

#[test]
fn values_that_lie_at_rounder_addresses_than_others_do_so_everywhere() {
    for count in [3, 10_000] {
        let bytes = SharedBytes::from(vec![1]);
        let wide = SharedSlice::from(vec![Wide([7; 8]); count]);
        let flat = wide.clone().cast::<[u64; 8]>().unwrap();
        let message = (bytes, flat, wide);
        assert!(send(&message).0.unwrap() == message);
    }
}

#[test]
fn outside_of_a_message_a_vector_is_its_bytes_too() {
    let numbers = SharedSlice::from(vec![1u16, 2, 3]);
    let bytes = codec::encode(&numbers).unwrap();
    assert_eq!(codec::decode::<SharedSlice<u16>>(&bytes).unwrap(), numbers);
}

#[test]
fn all_kinds_of_ranges_work_as_for_slices() {
    let shared = SharedSlice::copy_from(&[10u16, 20, 30]).unwrap();
    assert_eq!(*shared.slice(..), [10, 20, 30]);
    assert_eq!(*shared.slice(1..), [20, 30]);
    assert_eq!(*shared.slice(..=1), [10, 20]);
    let after = (std::ops::Bound::Excluded(0), std::ops::Bound::Unbounded);
    assert_eq!(*shared.slice(after), [20, 30]);
    assert_eq!(*shared.slice(1..).slice(1..), [30]);
    assert!(
        memory_of(&shared.slice(3..)).is_none(),
        "nothing holds no memory"
    );
}

#[test]
#[should_panic(expected = "out of range")]
fn a_range_beyond_the_end_is_a_panic() {
    let shared = SharedSlice::copy_from(&[1u8, 2]).unwrap();
    let part = shared.slice(1..3);
    unreachable!("{part:?}");
}

#[test]
#[should_panic(expected = "out of range")]
fn a_range_with_no_end_to_it_is_a_panic() {
    let shared = SharedSlice::copy_from(&[1u8, 2]).unwrap();
    let part = shared.slice(0..=usize::MAX);
    unreachable!("{part:?}");
}

#[test]
fn structures_are_seen_as_bytes_and_back() {
    let samples: Vec<Sample> = (0..500).map(sample).collect();
    let shared = SharedSlice::copy_from(&samples).unwrap();
    let address = shared.as_ptr() as usize;
    let bytes = shared.cast::<u8>().unwrap();
    assert_eq!(bytes.as_ptr() as usize, address);
    let back = bytes.slice(size_of::<Sample>()..).cast::<Sample>().unwrap();
    assert_eq!(*back, samples[1..]);
}

#[test]
fn a_cast_to_a_type_that_does_not_fit_returns_the_slice() {
    let bytes = SharedBytes::copy_from(&[0; 9]).unwrap();
    let bytes = bytes.cast::<u32>().unwrap_err();
    assert_eq!(bytes.len(), 9);
    let crooked = bytes.slice(1..).cast::<u32>().unwrap_err();
    assert_eq!(crooked.len(), 8, "of the right length, but not aligned");
}

/// Nothing lies nowhere in particular, which once was not aligned enough.
#[test]
fn an_empty_slice_is_one_of_any_type() {
    let nothing = SharedBytes::default().cast::<Sample>().unwrap();
    assert_eq!(*nothing, []);
    assert!(send(&nothing).0.unwrap().is_empty());
}

#[test]
fn clones_and_slices_share_the_memory_and_the_last_gives_it_back() {
    let shared = SharedBytes::copy_from(b"shared").unwrap();
    let number = memory_of(&shared);
    let (clone, part) = (shared.clone(), shared.slice(2..));
    assert_eq!((memory_of(&clone), memory_of(&part)), (number, number));
    let memory = Arc::downgrade(sealed(&shared).unwrap());
    drop((shared, clone));
    assert_eq!(&*part, b"ared");
    drop(part);
    assert!(memory.upgrade().is_none());
}

#[test]
fn an_error_of_fill_is_returned() {
    let build = |length| SharedBytes::build(length, |_| Err(io::Error::other("no more")));
    assert_eq!(build(5).unwrap_err().to_string(), "no more");
    assert_eq!(build(0).unwrap_err().to_string(), "no more");
}

#[test]
fn a_length_beyond_the_address_space_is_an_error_that_names_it() {
    for length in [usize::MAX, isize::MAX as usize, 1 << 50] {
        let error = SharedSlice::<u64>::build(length, |_| unreachable!()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("bytes of shared memory cannot be had"),
            "{error}"
        );
    }
}

#[test]
fn debug_output_tells_the_length_and_not_the_contents() {
    let shared = SharedSlice::copy_from(&[7u64; 3]).unwrap();
    assert_eq!(format!("{shared:?}"), "SharedSlice { len: 3, .. }");
}

#[test]
fn outside_of_a_message_our_own_format_holds_the_bytes_too() {
    let samples = SharedSlice::copy_from(&[sample(1), sample(2)]).unwrap();
    let bytes = codec::encode(&samples).unwrap();
    assert!(bytes.len() > samples.bytes().len());
    assert_eq!(
        codec::decode::<SharedSlice<Sample>>(&bytes).unwrap(),
        samples
    );
    let error = codec::decode::<SharedSlice<[u8; 3]>>(&bytes).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("64 bytes are not a slice of `[u8; 3]`"),
        "{error}"
    );
}

#[test]
fn a_place_in_memory_is_not_taken_for_bytes_nor_bytes_for_a_place() {
    let shared = SharedBytes::copy_from(&[5; 100]).unwrap();
    let mut message = Vec::new();
    encode_with_attachments(&shared, &mut message).unwrap();
    assert!(codec::decode::<SharedBytes>(&message).is_err());
    let bytes = codec::encode(&shared).unwrap();
    assert!(decode_received::<SharedBytes>(&bytes, Vec::new()).is_err());
    for number in 0..=u8::MAX {
        // Each possible first byte of a byte string.
        assert!(decode_received::<SharedBytes>(&[number; 25], Vec::new()).is_err());
    }
}

/// Decodes a message that announces `length` bytes of memory and arrives with `fd` only.
fn decode_with(length: usize, fd: Option<OwnedFd>) -> String {
    let honest = SharedBytes::copy_from(&vec![1; length]).unwrap();
    let mut message = Vec::new();
    encode_with_attachments(&honest, &mut message).unwrap();
    let decoded = decode_received::<SharedBytes>(&message, fd.into_iter().collect());
    decoded.expect_err("not what the message says").to_string()
}

fn unsealed(length: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("unsealed", flags).unwrap();
    let mut file = std::fs::File::from(file);
    file.write_all(&vec![1; length as usize]).unwrap();
    file.into()
}

#[test]
fn a_peer_that_keeps_the_right_to_change_its_memory_gives_an_error() {
    assert!(decode_with(10, Some(unsealed(10))).contains("is not sealed"));
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    let hollow = unsealed(10);
    ftruncate(&hollow, 1 << 30).unwrap();
    fcntl_add_seals(&hollow, all).unwrap();
    assert!(decode_with(10, Some(hollow)).contains("has holes"));
}

#[test]
fn a_peer_that_sends_less_or_nothing_or_something_else_gives_an_error() {
    assert!(decode_with(10, None).contains("RLIMIT_NOFILE"));
    let pipe = io::pipe().unwrap().0.into();
    assert!(decode_with(10, Some(pipe)).contains("is not of shared memory"));
    let short = SharedBytes::copy_from(&[1; 9]).unwrap();
    let short = sealed(&short).unwrap().file().try_clone().unwrap();
    assert!(decode_with(10, Some(short)).contains("has 9 bytes, and should have 10"));
}

#[test]
fn a_misaligned_slice_from_a_peer_is_an_error() {
    let bytes = SharedBytes::copy_from(&[0; 16]).unwrap();
    for (part, what) in [
        (bytes.slice(1..9), "not aligned"),
        (bytes.slice(..9), "not whole"),
    ] {
        let mut message = Vec::new();
        let fds = encode_with_attachments(&part, &mut message).unwrap().fds;
        let fds = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let error = decode_received::<SharedSlice<u64>>(&message, fds).unwrap_err();
        assert!(
            error.to_string().contains("are not a slice of `u64`"),
            "{what}: {error}"
        );
    }
}
