//! Tests of frames: whole, in pieces and truncated, and with descriptors.

use super::*;
use crate::transport::out_message::OutMessage;
use proptest::prelude::*;
use std::sync::Arc;

fn any_kind() -> impl Strategy<Value = Kind> {
    (0..KINDS.len()).prop_map(|index| KINDS[index])
}

fn any_frames() -> impl Strategy<Value = Vec<(Kind, u64, Vec<u8>)>> {
    prop::collection::vec(
        (
            any_kind(),
            any::<u64>(),
            prop::collection::vec(any::<u8>(), 0..200),
        ),
        0..6,
    )
}

fn all_bytes(frames: &[(Kind, u64, Vec<u8>)]) -> Vec<u8> {
    let frames = frames.iter();
    frames
        .flat_map(|(kind, number, payload)| of_bytes(*kind, *number, payload))
        .collect()
}

/// Feeds `bytes` in pieces of the given sizes and takes every frame that completes.
fn receive(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Frame>, MalformedFrame> {
    let mut inbox = Inbox::default();
    let mut frames = Vec::new();
    let mut pieces = pieces.iter().copied().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, later) =
            rest.split_at(pieces.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        inbox.buffer().extend_from_slice(piece);
        rest = later;
        while let Some(frame) = inbox.take()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

#[test]
fn each_kind_stands_at_its_own_number() {
    for (index, kind) in KINDS.into_iter().enumerate() {
        assert_eq!(kind as usize, index);
    }
}

#[test]
fn a_report_of_an_unhooked_worker_is_a_frame() {
    let report = crate::sys::role::report("no hook");
    assert_eq!(report, of_bytes(Kind::CannotServe, 0, b"no hook"));
}

#[test]
fn a_frame_arrives_in_the_buffer_that_it_was_read_into() {
    let mut inbox = Inbox::default();
    let sent = of_bytes(Kind::Done, 0, b"value");
    inbox.buffer().extend_from_slice(&sent);
    let place = inbox.bytes.as_ptr();
    let frame = inbox.take().unwrap().unwrap();
    assert_eq!(frame.bytes.as_ptr(), place);
    assert!(inbox.is_empty());
    inbox.recycle(frame.into_buffer());
    assert_eq!(inbox.buffer().as_ptr(), place);
}

#[test]
fn an_announced_length_is_not_allocated_before_its_bytes_come() {
    let mut inbox = Inbox::default();
    let header = Header {
        kind: Kind::Done,
        fds: 0,
        call: 0,
        number: 0,
        length: MAX_PAYLOAD_BYTES,
    };
    inbox.buffer().extend_from_slice(&header.to_bytes());
    assert!(inbox.take().unwrap().is_none());
    for _ in 0..4 {
        let buffer = inbox.buffer();
        assert!(buffer.capacity() <= 2 * buffer.len().max(READ_CHUNK) + READ_ROOM);
        buffer.resize(buffer.capacity(), 7);
        assert!(inbox.take().unwrap().is_none());
    }
}

fn descriptor() -> OwnedFd {
    std::io::pipe().unwrap().0.into()
}

/// A frame that says it brings so many descriptors.
fn bringing(count: usize) -> Vec<u8> {
    let message = OutMessage::build(Kind::Job, 0, |out| {
        out.extend_from_slice(b"payload");
        let fds: Vec<_> = (0..count).map(|_| Arc::new(descriptor())).collect();
        Ok::<_, ()>(fds.into())
    });
    message.unwrap().bytes().to_vec()
}

fn inbox_with(frames: &[Vec<u8>], fds: usize, lost: bool) -> Inbox {
    let mut inbox = Inbox::default();
    inbox.buffer().extend_from_slice(&frames.concat());
    inbox.add_fds((0..fds).map(|_| descriptor()), lost);
    inbox
}

#[test]
fn each_frame_has_the_descriptors_that_it_announces() {
    let mut inbox = inbox_with(&[bringing(1), bringing(0), bringing(2)], 3, false);
    let counts: Vec<usize> = std::iter::from_fn(|| inbox.take().unwrap())
        .map(|frame| frame.fds.len())
        .collect();
    assert_eq!(counts, [1, 0, 2]);
}

fn marked(kind: Kind, call: u16) -> Header {
    let mut frame = of_bytes(kind, 0, b"payload");
    mark(&mut frame, call);
    Frame::from_bytes(frame).unwrap().header
}

#[test]
fn an_answer_has_the_number_of_its_call_and_a_bye_that_of_the_call_before() {
    for call in [0, 1, 2, u16::MAX] {
        let (before, after) = (call.wrapping_sub(1), call.wrapping_add(1));
        for answer in [
            Kind::Done,
            Kind::Panicked,
            Kind::BadArgument,
            Kind::BadResult,
            Kind::NotOurCode,
        ] {
            assert!(marked(answer, call).is_for(call));
            assert!(!marked(answer, before).is_for(call) && !marked(answer, after).is_for(call));
        }
        for bye in [Kind::Bye, Kind::RetirePanicked] {
            assert!(marked(bye, before).is_for(call));
            assert!(!marked(bye, call).is_for(call) && !marked(bye, after).is_for(call));
        }
        assert!(
            marked(Kind::CannotServe, 0).is_for(call),
            "neither an answer nor an exit announcement"
        );
    }
}

#[test]
fn where_a_descriptor_was_lost_no_frame_has_anothers() {
    let mut inbox = inbox_with(&[bringing(2), bringing(1)], 2, true);
    assert!(inbox.take().unwrap().unwrap().fds.is_empty());
    assert!(inbox.take().unwrap().unwrap().fds.is_empty());
    inbox.buffer().extend_from_slice(&bringing(1));
    inbox.add_fds([descriptor()], false);
    assert_eq!(inbox.take().unwrap().unwrap().fds.len(), 1);
}

#[test]
fn descriptors_that_no_frame_announces_are_closed() {
    let mut inbox = inbox_with(&[bringing(0)], 1, false);
    assert!(inbox.take().unwrap().unwrap().fds.is_empty());
    assert!(inbox.fds.is_empty());
}

proptest! {
    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn frames_survive_any_fragmentation(frames in any_frames(), pieces in prop::collection::vec(1usize..90, 0..8)) {
        let bytes = all_bytes(&frames);
        let received = receive(&bytes, &pieces).unwrap();
        let received: Vec<_> =
            received.iter().map(|frame| (frame.header.kind, frame.header.number, frame.payload().to_vec())).collect();
        prop_assert_eq!(received, frames);
    }

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn a_truncated_stream_gives_its_whole_frames_only(
        frames in any_frames(),
        cut: prop::sample::Index,
    ) {
        let bytes = all_bytes(&frames);
        let cut = cut.index(bytes.len() + 1);
        let mut end = 0;
        let whole = frames.iter().take_while(|frame| { end += HEADER + frame.2.len(); end <= cut }).count();
        prop_assert_eq!(receive(&bytes[..cut], &[]).unwrap().len(), whole);
    }

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn arbitrary_bytes_never_panic_and_never_swell(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        pieces in prop::collection::vec(1usize..90, 0..8),
    ) {
        if let Ok(frames) = receive(&bytes, &pieces) {
            prop_assert!(frames.iter().map(|frame| frame.bytes.len()).sum::<usize>() <= bytes.len());
        }
    }

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn a_length_that_no_memory_holds_is_malformed(length in MAX_PAYLOAD_BYTES + 1..=u64::MAX, kind in any_kind()) {
        let header = Header { kind, fds: 0, call: 0, number: 1, length };
        prop_assert_eq!(Header::from_bytes(&header.to_bytes()), Err(MalformedFrame));
    }

    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn a_header_that_differs_in_its_fixed_part_is_malformed(at in 0usize..8, flip in 1u8..=255, kind in any_kind()) {
        let header = Header { kind, fds: 3, call: 4711, number: 1, length: 2 };
        let mut bytes = header.to_bytes();
        prop_assert_eq!(Header::from_bytes(&bytes), Ok(header));
        bytes[at] ^= flip;
        if let Ok(other) = Header::from_bytes(&bytes) {
            let differs = match at {
                4 => other.kind != kind,
                5 => other.fds != 3,
                _ => at > 5 && other.call != 4711,
            };
            prop_assert!(differs);
        }
    }
}
