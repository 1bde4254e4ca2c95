//! Memory attached to a message, while values are encoded or decoded.
//!
//! A value that holds shared memory is encoded as a [`MemoryRef`]. The memory is attached to the
//! frame as a descriptor or copied into the [inline region](super::inline). Between the caller,
//! which has the frame, and the value, deep within the user's types, stands serde: a `Serialize`
//! knows its serializer and nothing else. So each side keeps the memory of the message in a
//! thread-local while it encodes or decodes, and this is the only file that does so. (A serializer
//! of our own could carry the list openly. It would have to wrap all of bincode's, and would still
//! lose the list in adapters that buffer values, such as serde's own for untagged enums.)
//!
//! Encoding and decoding may be nested: a `Serialize` of the user's may block on another call. The
//! thread-local of the outer message is restored afterwards, also after a panic.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::attachment_error::{AttachmentError, TooManyDescriptorsError};
use super::incoming_memory::{IncomingFd, IncomingMemory, Origin};
use super::inline::{InlineRegion, Memory};
use super::message_scope::{Current, CurrentMessage, MessageScope};
use super::outgoing_memory::{Attached, OutgoingMemory};

thread_local! {
    /// The memory of the message that is being encoded.
    static OUTGOING: Current<OutgoingMemory> =
        const { RefCell::new(ManuallyDrop::new(CurrentMessage::None)) };
    /// The memory of the message that is being decoded.
    static INCOMING: Current<IncomingMemory> =
        const { RefCell::new(ManuallyDrop::new(CurrentMessage::None)) };
}

/// Shared memory as it is encoded within a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryRef {
    /// [`MARK`].
    mark: u64,
    /// The index of a descriptor, [`IN_REGION`] or [`EMPTY`].
    index: u8,
    offset: u64,
    length: u64,
}

/// The index of memory in the inline region.
const IN_REGION: u8 = u8::MAX - 1;

/// The index of an empty slice, which has no memory.
const EMPTY: u8 = u8::MAX;

/// The first field of each [`MemoryRef`]. Every format refuses it as the length of a byte string.
/// So a value that is encoded within a message and decoded outside of one, or the other way round,
/// is an error and never another value.
const MARK: u64 = u64::from_le_bytes(*b"\xf7memory\xff");

/// Runs `encode`, and returns the memory that it attaches.
pub(crate) fn collect_outgoing<T>(encode: impl FnOnce() -> T) -> (T, OutgoingMemory) {
    let message = MessageScope::enter(&OUTGOING, CurrentMessage::WithoutMemory);
    let value = encode();
    match message.leave() {
        CurrentMessage::WithMemory(memory) => (value, *memory),
        _ => (value, OutgoingMemory::default()),
    }
}

/// Runs `encode`, and returns whether it would attach memory or descriptors to a message. If so,
/// its output is not complete, and the value must be encoded again, with [`collect_outgoing`].
pub(crate) fn would_attach<T>(encode: impl FnOnce() -> T) -> (T, bool) {
    let trial = CurrentMessage::Trial { attaches: false };
    let message = MessageScope::enter(&OUTGOING, trial);
    let value = encode();
    let would_attach = matches!(message.leave(), CurrentMessage::Trial { attaches: true });
    (value, would_attach)
}

/// Runs `decode`, which can resolve references to the memory of a message. Descriptors that it does
/// not use are closed.
pub(crate) fn with_incoming<T>(
    fds: Vec<OwnedFd>,
    region: InlineRegion,
    origin: Origin,
    decode: impl FnOnce() -> T,
) -> T {
    let message = if fds.is_empty() && matches!(region, InlineRegion::None) {
        CurrentMessage::WithoutMemory
    } else {
        let fds = fds.into_iter().map(IncomingFd::Unused).collect();
        CurrentMessage::WithMemory(Box::new(IncomingMemory {
            fds,
            region,
            origin,
        }))
    };
    let _message = MessageScope::enter(&INCOMING, message);
    decode()
}

/// A range of memory: the memory, the offset in it, and the number of bytes.
pub(crate) type MemoryRange<'a> = (&'a Memory, usize, usize);

/// Attaches a range of memory, or an empty one, to the message that is being encoded. Returns
/// `None` if there is no such message.
pub(crate) fn attach(
    range: Option<MemoryRange<'_>>,
    alignment: usize,
) -> Option<Result<MemoryRef, TooManyDescriptorsError>> {
    OUTGOING.with_borrow_mut(|outgoing| {
        let Some((memory, offset, length)) = range else {
            let is_in_message = !matches!(**outgoing, CurrentMessage::None);
            return is_in_message.then_some(Ok(MemoryRef::OF_EMPTY));
        };
        if outgoing.note_in_trial() {
            return Some(Ok(MemoryRef::OF_EMPTY));
        }
        let outgoing = outgoing.memory()?;
        let (index, offset) = match memory {
            Memory::Sealed(memory) => match outgoing.index_of(Attached::Memory(memory.clone())) {
                Ok(index) => (index, offset),
                Err(error) => return Some(Err(error)),
            },
            Memory::Leased(_) | Memory::Owned(_) => {
                let range = offset..offset + length;
                (IN_REGION, outgoing.region.add(memory, range, alignment))
            }
        };
        Some(Ok(MemoryRef {
            mark: MARK,
            index,
            offset: offset as u64,
            length: length as u64,
        }))
    })
}

/// A descriptor as it is encoded within a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DescriptorRef {
    /// [`DESCRIPTOR_MARK`].
    mark: u64,
    index: u8,
}

/// The first field of each [`DescriptorRef`]; see [`MARK`].
const DESCRIPTOR_MARK: u64 = u64::from_le_bytes(*b"\xf7descrip");

/// Attaches a descriptor to the message that is being encoded. Returns `None` if there is none.
///
/// In a trial, and while a decoded value is encoded again, to compare it with what has arrived, the
/// reference leads nowhere.
pub(crate) fn attach_descriptor(
    fd: &Arc<OwnedFd>,
) -> Option<Result<DescriptorRef, TooManyDescriptorsError>> {
    let to_nowhere = DescriptorRef {
        mark: DESCRIPTOR_MARK,
        index: EMPTY,
    };
    let attached = OUTGOING.with_borrow_mut(|outgoing| {
        if outgoing.note_in_trial() {
            return Some(Ok(to_nowhere));
        }
        let index = outgoing
            .memory()?
            .index_of(Attached::Descriptor(fd.clone()));
        Some(index.map(|index| DescriptorRef {
            mark: DESCRIPTOR_MARK,
            index,
        }))
    });
    attached.or_else(|| is_decoding().then_some(Ok(to_nowhere)))
}

/// Notes that the message which is being encoded takes a side of a channel away from this process.
pub(crate) fn note_moved_side() {
    OUTGOING.with_borrow_mut(|outgoing| {
        if let Some(outgoing) = outgoing.memory() {
            outgoing.moves_sides = true;
        }
    });
}

/// Returns a descriptor that came with the message that is being decoded. The message keeps it,
/// too, until it has been decoded: it may have to be decoded twice.
pub(crate) fn take_descriptor(reference: DescriptorRef) -> Result<Arc<OwnedFd>, AttachmentError> {
    if reference.mark != DESCRIPTOR_MARK {
        return Err(AttachmentError::Malformed);
    }
    INCOMING.with_borrow_mut(|incoming| {
        let incoming = incoming.memory().ok_or(AttachmentError::Malformed)?;
        let fd = incoming.fds.get_mut(usize::from(reference.index));
        fd.ok_or(AttachmentError::Lost)?.take()
    })
}

/// Returns whether a message is being decoded on this thread.
pub(crate) fn is_decoding() -> bool {
    INCOMING.with_borrow(|message| !matches!(**message, CurrentMessage::None))
}

/// Memory to which a [`MemoryRef`] leads.
#[derive(Debug)]
pub(crate) enum ResolvedMemory {
    Empty,
    /// Memory that may be kept.
    Kept(Memory, Range<usize>),
    /// Bytes of the frame, which have to be copied.
    Copied(Arc<[u8]>, Range<usize>),
}

/// Finds memory that came with the message that is being decoded.
pub(crate) fn resolve(reference: MemoryRef) -> Result<ResolvedMemory, AttachmentError> {
    if reference.mark != MARK {
        return Err(AttachmentError::Malformed);
    }
    if reference == MemoryRef::OF_EMPTY {
        return Ok(ResolvedMemory::Empty);
    }
    let region = INCOMING.with_borrow_mut(|incoming| {
        let incoming = incoming.memory().ok_or(AttachmentError::Malformed)?;
        if reference.index == IN_REGION {
            return Ok(incoming.region.clone());
        }
        let fd = incoming.fds.get_mut(usize::from(reference.index));
        let memory = fd.ok_or(AttachmentError::Lost)?.map(incoming.origin)?;
        let all = 0..memory.len();
        Ok(InlineRegion::InMemory(Memory::Sealed(memory), all))
    })?;
    let offset = usize::try_from(reference.offset).map_err(|_| AttachmentError::Malformed)?;
    let length = usize::try_from(reference.length).map_err(|_| AttachmentError::Malformed)?;
    let actual = region.len();
    let end = offset.checked_add(length).filter(|end| *end <= actual);
    let end = end.ok_or(AttachmentError::Short {
        wanted: reference.offset.saturating_add(reference.length),
        actual,
    })?;
    match region {
        InlineRegion::None => Err(AttachmentError::Malformed),
        InlineRegion::InMemory(memory, Range { start, .. }) => {
            Ok(ResolvedMemory::Kept(memory, start + offset..start + end))
        }
        InlineRegion::InFrame(bytes) => Ok(ResolvedMemory::Copied(bytes, offset..end)),
    }
}

impl DescriptorRef {
    /// Returns whether the descriptor is attached to a message.
    pub(in crate::transport) fn leads_somewhere(self) -> bool {
        self.index != EMPTY
    }
}

impl MemoryRef {
    const OF_EMPTY: Self = Self {
        mark: MARK,
        index: EMPTY,
        offset: 0,
        length: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::{MemfdWriter, Refused};
    use crate::sys::socket::MAX_FDS;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn memory(bytes: &[u8]) -> Memory {
        let mut writer = MemfdWriter::new().unwrap();
        writer.append(bytes).unwrap();
        Memory::Sealed(Arc::new(writer.seal().unwrap()))
    }

    fn kept(reference: MemoryRef) -> (Memory, Range<usize>) {
        match resolve(reference).unwrap() {
            ResolvedMemory::Kept(memory, range) => (memory, range),
            other => panic!("{other:?}"),
        }
    }

    fn reference(index: u8, offset: u64, length: u64) -> MemoryRef {
        MemoryRef {
            mark: MARK,
            index,
            offset,
            length,
        }
    }

    fn descriptors(outgoing: &OutgoingMemory) -> Vec<OwnedFd> {
        outgoing.fds().map(|fd| fd.try_clone().unwrap()).collect()
    }

    #[test]
    fn memory_is_found_by_its_index_and_mapped_once() {
        let (one, two) = (memory(b"one"), memory(b"second"));
        let (references, outgoing) = collect_outgoing(|| {
            [(&one, 0, 3), (&two, 1, 4), (&one, 1, 2)]
                .map(|range| attach(Some(range), 1).unwrap().unwrap())
        });
        assert_eq!(
            outgoing.attached.len(),
            2,
            "the same memory is attached once"
        );
        with_incoming(
            descriptors(&outgoing),
            InlineRegion::None,
            Origin::Untrusted,
            || {
                let kept = references.map(kept);
                let texts = kept
                    .each_ref()
                    .map(|(memory, range)| &memory[range.clone()]);
                assert_eq!(texts, [&b"one"[..], b"econ", b"ne"]);
                assert_eq!(kept[0].0.as_ptr(), kept[2].0.as_ptr());
            },
        );
    }

    #[test]
    fn outside_a_message_nothing_is_attached_and_nothing_found() {
        let memory = memory(b"x");
        assert!(attach(Some((&memory, 0, 1)), 1).is_none());
        assert!(!is_decoding());
        assert!(matches!(
            resolve(reference(0, 0, 1)),
            Err(AttachmentError::Malformed)
        ));
    }

    #[test]
    fn a_trial_attaches_nothing_and_says_that_it_would() {
        let memory = memory(b"x");
        let pipe: Arc<OwnedFd> = Arc::new(std::io::pipe().unwrap().0.into());
        let (empty, attaches) = would_attach(|| attach(None, 1).unwrap().unwrap());
        assert!(!attaches && empty == MemoryRef::OF_EMPTY);
        let (_, attaches) = would_attach(|| attach(Some((&memory, 0, 1)), 1).unwrap().unwrap());
        assert!(attaches);
        let (reference, attaches) = would_attach(|| attach_descriptor(&pipe).unwrap().unwrap());
        assert!(attaches && !reference.leads_somewhere());
        assert_eq!(Arc::strong_count(&pipe), 1);
    }

    #[test]
    fn a_reference_to_missing_memory_is_an_error() {
        let five = memory(b"12345");
        let (_, outgoing) = collect_outgoing(|| attach(Some((&five, 0, 5)), 1));
        with_incoming(
            descriptors(&outgoing),
            InlineRegion::None,
            Origin::Untrusted,
            || {
                assert!(matches!(
                    resolve(reference(1, 0, 1)),
                    Err(AttachmentError::Lost)
                ));
                for (offset, length) in [(0, 6), (5, 1), (6, 0), (u64::MAX, 1), (1, u64::MAX)] {
                    let resolved = resolve(reference(0, offset, length));
                    assert!(
                        matches!(resolved, Err(AttachmentError::Short { .. })),
                        "{resolved:?}"
                    );
                }
                let unmarked = MemoryRef {
                    mark: 0,
                    ..reference(0, 0, 1)
                };
                assert!(matches!(resolve(unmarked), Err(AttachmentError::Malformed)));
                assert!(resolve(reference(0, 5, 0)).is_ok());
                assert!(matches!(
                    resolve(MemoryRef::OF_EMPTY),
                    Ok(ResolvedMemory::Empty)
                ));
                for length in [0, 1] {
                    let in_region = resolve(reference(IN_REGION, 0, length));
                    assert!(in_region.is_err(), "there is no region: {in_region:?}");
                }
            },
        );
    }

    #[test]
    fn memory_that_is_refused_once_stays_refused() {
        let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
        with_incoming(vec![pipe], InlineRegion::None, Origin::Untrusted, || {
            assert!(matches!(
                resolve(reference(0, 0, 1)),
                Err(AttachmentError::Refused(Refused::NoMemory))
            ));
            assert!(matches!(
                resolve(reference(0, 0, 1)),
                Err(AttachmentError::Malformed)
            ));
        });
    }

    #[test]
    fn a_nested_message_has_its_own_memory_also_after_a_panic() {
        let (outer, inner) = (memory(b"outer"), memory(b"inner"));
        let ((), outgoing) = collect_outgoing(|| {
            attach(Some((&outer, 0, 5)), 1).unwrap().unwrap();
            let (nested, outgoing) =
                collect_outgoing(|| attach(Some((&inner, 0, 5)), 1).unwrap().unwrap());
            assert_eq!((nested.index, outgoing.attached.len()), (0, 1));
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                collect_outgoing(|| panic!("of the user's"))
            }));
            assert!(panicked.is_err());
            assert_eq!(attach(Some((&inner, 0, 5)), 1).unwrap().unwrap().index, 1);
        });
        assert_eq!(outgoing.attached.len(), 2);
        assert!(attach(Some((&outer, 0, 5)), 1).is_none());
    }

    #[test]
    fn a_message_has_a_limited_number_of_descriptors() {
        let ((), outgoing) = collect_outgoing(|| {
            let first = memory(b"first");
            for index in 0..MAX_FDS {
                let memory = if index == 0 {
                    first.clone()
                } else {
                    memory(b"x")
                };
                assert!(attach(Some((&memory, 0, 1)), 1).unwrap().is_ok());
            }
            assert_eq!(
                attach(Some((&memory(b"x"), 0, 1)), 1),
                Some(Err(TooManyDescriptorsError))
            );
            assert!(
                attach(Some((&first, 1, 1)), 1).unwrap().is_ok(),
                "the first memory is attached already"
            );
        });
        assert_eq!(outgoing.attached.len(), MAX_FDS);
        assert!(MAX_FDS < usize::from(IN_REGION));
    }
}
