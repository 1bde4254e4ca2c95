//! Memory that travels beside a message, while values are made into bytes or out of them.
//!
//! A value that holds shared memory is written as a number, and the descriptor goes beside the frame, or, if there is
//! none, a copy behind the encoding ([`stretch`](crate::transport::payload::inline)). Between the caller, who has the frame, and the
//! value, deep within the user's types, stands serde, which hands nothing through: a `Serialize` knows its serializer
//! and nothing else. So each side notes on the thread, for as long as one message of ours is encoded or decoded, which
//! memory goes with it; this is the only file that does, and outside such a moment there is nothing noted. (A
//! serializer of our own could carry the list openly. It would have to wrap all of bincode's, and would still lose the
//! list in adapters that buffer values, such as serde's own for untagged enums.)
//!
//! Encoding or decoding may be nested: a `Serialize` of the user's may block on another call. What was noted before is
//! put aside meanwhile, and comes back also if there is a panic.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::LocalKey;

use serde::{Deserialize, Serialize};

use crate::sys::memory::{Refused, Sealed};
use crate::sys::socket::MOST_FDS;
use crate::transport::payload::inline::{Memory, Stretches, Within};

thread_local! {
    /// What goes with the message that is being encoded.
    static LEAVING: RefCell<Option<Leaving>> = const { RefCell::new(None) };
    /// What came with the message that is being decoded.
    static ARRIVED: RefCell<Option<Arrived>> = const { RefCell::new(None) };
}

/// What goes with a message.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// By descriptor, in the order of their numbers.
    pub(in crate::transport) memories: Vec<Arc<Sealed>>,
    /// By copying it.
    pub(in crate::transport) stretches: Stretches,
}

/// What came with a message.
#[derive(Debug)]
struct Arrived {
    enclosed: Vec<Enclosed>,
    within: Within,
}

/// A stretch of memory that goes beside or behind the message, as it stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// [`MARK`].
    mark: u64,
    /// Which of the descriptors, or [`WITHIN`].
    number: u8,
    offset: u64,
    length: u64,
}

/// Stands for what lies behind the message.
const WITHIN: u8 = u8::MAX - 1;

/// Begins each [`Place`]. As the length of a byte string it would be refused by any format: should a value that was
/// encoded as a part of a message be decoded outside of one, or the other way round, that is an error and never another
/// value.
const MARK: u64 = u64::from_le_bytes(*b"\xf7memory\xff");

/// A descriptor that came along.
#[derive(Debug)]
enum Enclosed {
    /// Nobody has asked for it.
    Unseen(OwnedFd),
    Mapped(Arc<Sealed>),
    /// It was looked at, and refused.
    Refused,
}

/// Notes what `encode` encloses, and returns it.
pub(crate) fn collect<T>(encode: impl FnOnce() -> T) -> (T, Leaving) {
    let noted = Noted::begin(&LEAVING, Leaving::default());
    let value = encode();
    (value, noted.end())
}

/// Lets `decode` find what came along. What it does not ask for is closed.
pub(crate) fn hand_out<T>(fds: Vec<OwnedFd>, within: Within, decode: impl FnOnce() -> T) -> T {
    let enclosed = fds.into_iter().map(Enclosed::Unseen).collect();
    let _noted = Noted::begin(&ARRIVED, Arrived { enclosed, within });
    decode()
}

/// A stretch of memory: which, where in it, and how many bytes.
pub(crate) type Stretch<'a> = (&'a Memory, usize, usize);

/// Encloses a stretch of memory, or nothing, with the message that is being encoded; `None` if there is no such
/// message.
pub(crate) fn enclose(
    stretch: Option<Stretch<'_>>,
    alignment: usize,
) -> Option<Result<Place, TooMany>> {
    LEAVING.with_borrow_mut(|leaving| {
        let leaving = leaving.as_mut()?;
        let Some((memory, offset, length)) = stretch else {
            return Some(Ok(Place::NOWHERE));
        };
        let (number, offset) = match memory {
            Memory::Sealed(memory) => match number_of(memory, &mut leaving.memories) {
                Ok(number) => (number, offset),
                Err(too_many) => return Some(Err(too_many)),
            },
            Memory::Leased(_) | Memory::Owned(_) => {
                let range = offset..offset + length;
                (WITHIN, leaving.stretches.add(memory, range, alignment))
            }
        };
        Some(Ok(Place {
            mark: MARK,
            number,
            offset: offset as u64,
            length: length as u64,
        }))
    })
}

/// The number that a piece of memory has among those which go along.
fn number_of(memory: &Arc<Sealed>, leaving: &mut Vec<Arc<Sealed>>) -> Result<u8, TooMany> {
    let known = leaving.iter().position(|other| Arc::ptr_eq(other, memory));
    let number = known.unwrap_or(leaving.len());
    if number == MOST_FDS {
        return Err(TooMany);
    }
    if known.is_none() {
        leaving.push(memory.clone());
    }
    Ok(u8::try_from(number).expect("there are fewer"))
}

/// Whether a message is being decoded.
pub(crate) fn is_decoding() -> bool {
    ARRIVED.with_borrow(Option::is_some)
}

/// A stretch that has been found.
#[derive(Debug)]
pub(crate) enum Found {
    /// There is nothing in it.
    Nothing,
    /// Here it can stay.
    At(Memory, Range<usize>),
    /// Here it can be copied.
    Here(Arc<[u8]>, Range<usize>),
}

/// Finds a stretch of memory, or nothing, that came with the message that is being decoded.
pub(crate) fn find(place: Place) -> Result<Found, NotFound> {
    if place.mark != MARK {
        return Err(NotFound::Garbage);
    }
    if place == Place::NOWHERE {
        return Ok(Found::Nothing);
    }
    let within = ARRIVED.with_borrow_mut(|arrived| {
        let arrived = arrived.as_mut().ok_or(NotFound::Garbage)?;
        if place.number == WITHIN {
            return Ok(arrived.within.clone());
        }
        let enclosed = arrived.enclosed.get_mut(usize::from(place.number));
        let memory = enclosed.ok_or(NotFound::Lost)?.look()?;
        let all = 0..memory.len();
        Ok(Within::At(Memory::Sealed(memory), all))
    })?;
    let offset = usize::try_from(place.offset).map_err(|_| NotFound::Garbage)?;
    let length = usize::try_from(place.length).map_err(|_| NotFound::Garbage)?;
    let there = within.len();
    let end = offset.checked_add(length).filter(|end| *end <= there);
    let end = end.ok_or(NotFound::Short {
        wanted: place.offset.saturating_add(place.length),
        there,
    })?;
    match within {
        Within::Nowhere => Err(NotFound::Garbage),
        Within::At(memory, Range { start, .. }) => {
            Ok(Found::At(memory, start + offset..start + end))
        }
        Within::Here(bytes) => Ok(Found::Here(bytes, offset..end)),
    }
}

impl Place {
    /// That of a slice which is empty and has no memory.
    const NOWHERE: Self = Self {
        mark: MARK,
        number: u8::MAX,
        offset: 0,
        length: 0,
    };
}

impl Enclosed {
    /// Maps it, the first time.
    fn look(&mut self) -> Result<Arc<Sealed>, NotFound> {
        let memory = match std::mem::replace(self, Self::Refused) {
            Self::Unseen(fd) => Arc::new(Sealed::adopt(fd).map_err(NotFound::Refused)?),
            Self::Mapped(memory) => memory,
            Self::Refused => return Err(NotFound::Garbage),
        };
        *self = Self::Mapped(memory.clone());
        Ok(memory)
    }
}

/// Why memory cannot be enclosed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it holds more than {MOST_FDS} pieces of shared memory, and the kernel takes no more descriptors at once; \
             use slices of one larger piece, which count as one"
        )
    }
}

/// Why memory was not found.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// The message does not say what it is.
    Garbage,
    /// There is no such descriptor.
    Lost,
    Refused(Refused),
    /// It is shorter than the message says.
    Short {
        wanted: u64,
        there: usize,
    },
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage => f.write_str(
                "what should be shared memory is something else; was it encoded in another way, or by something else?",
            ),
            Self::Lost => f.write_str(
                "the descriptor of shared memory was lost on its way, because this process has too many files open; raise \
                 its limit (RLIMIT_NOFILE), or drop shared memory that it still holds",
            ),
            Self::Refused(why) => why.fmt(f),
            Self::Short { wanted, there } => write!(
                f,
                "shared memory that came along has {there} bytes, and should have {wanted}"
            ),
        }
    }
}

/// Something that is noted on this thread until this is dropped.
struct Noted<T: 'static> {
    place: &'static LocalKey<RefCell<Option<T>>>,
    before: Option<T>,
}

impl<T> Noted<T> {
    fn begin(place: &'static LocalKey<RefCell<Option<T>>>, value: T) -> Self {
        let before = place.replace(Some(value));
        Self { place, before }
    }

    fn end(self) -> T {
        self.place
            .take()
            .expect("whoever notes something meanwhile puts this back")
    }
}

impl<T> Drop for Noted<T> {
    fn drop(&mut self) {
        self.place.set(self.before.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::Draft;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn memory(bytes: &[u8]) -> Memory {
        let mut draft = Draft::new().unwrap();
        draft.append(bytes).unwrap();
        Memory::Sealed(Arc::new(draft.seal().unwrap()))
    }

    fn found(place: Place) -> (Memory, Range<usize>) {
        match find(place).unwrap() {
            Found::At(memory, range) => (memory, range),
            other => panic!("{other:?}"),
        }
    }

    fn place(number: u8, offset: u64, length: u64) -> Place {
        Place {
            mark: MARK,
            number,
            offset,
            length,
        }
    }

    fn descriptors(memories: &[Arc<Sealed>]) -> Vec<OwnedFd> {
        memories
            .iter()
            .map(|memory| memory.file().try_clone().unwrap())
            .collect()
    }

    #[test]
    fn memory_finds_its_way_by_number_and_is_mapped_once() {
        let (one, two) = (memory(b"one"), memory(b"second"));
        let (places, leaving) = collect(|| {
            [(&one, 0, 3), (&two, 1, 4), (&one, 1, 2)]
                .map(|stretch| enclose(Some(stretch), 1).unwrap().unwrap())
        });
        assert_eq!(leaving.memories.len(), 2, "the same memory goes once");
        hand_out(descriptors(&leaving.memories), Within::Nowhere, || {
            let found = places.map(found);
            let texts = found
                .each_ref()
                .map(|(memory, range)| &memory[range.clone()]);
            assert_eq!(texts, [&b"one"[..], b"econ", b"ne"]);
            assert_eq!(found[0].0.as_ptr(), found[2].0.as_ptr());
        });
    }

    #[test]
    fn outside_a_message_nothing_is_enclosed_and_nothing_found() {
        let memory = memory(b"x");
        assert!(enclose(Some((&memory, 0, 1)), 1).is_none());
        assert!(!is_decoding());
        assert!(matches!(find(place(0, 0, 1)), Err(NotFound::Garbage)));
    }

    #[test]
    fn a_place_that_does_not_exist_is_an_error() {
        let Memory::Sealed(sealed) = memory(b"12345") else {
            unreachable!("it is made so")
        };
        hand_out(descriptors(&[sealed]), Within::Nowhere, || {
            assert!(matches!(find(place(1, 0, 1)), Err(NotFound::Lost)));
            for (offset, length) in [(0, 6), (5, 1), (6, 0), (u64::MAX, 1), (1, u64::MAX)] {
                let found = find(place(0, offset, length));
                assert!(matches!(found, Err(NotFound::Short { .. })), "{found:?}");
            }
            let unmarked = Place {
                mark: 0,
                ..place(0, 0, 1)
            };
            assert!(matches!(find(unmarked), Err(NotFound::Garbage)));
            assert!(find(place(0, 5, 0)).is_ok());
            assert!(matches!(find(Place::NOWHERE), Ok(Found::Nothing)));
            for length in [0, 1] {
                let behind = find(place(WITHIN, 0, length));
                assert!(behind.is_err(), "there is nothing behind: {behind:?}");
            }
        });
    }

    #[test]
    fn what_is_refused_once_stays_refused() {
        let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
        hand_out(vec![pipe], Within::Nowhere, || {
            assert!(matches!(
                find(place(0, 0, 1)),
                Err(NotFound::Refused(Refused::NoMemory))
            ));
            assert!(matches!(find(place(0, 0, 1)), Err(NotFound::Garbage)));
        });
    }

    #[test]
    fn a_message_within_a_message_has_a_list_of_its_own_also_after_a_panic() {
        let (outer, inner) = (memory(b"outer"), memory(b"inner"));
        let ((), leaving) = collect(|| {
            enclose(Some((&outer, 0, 5)), 1).unwrap().unwrap();
            let (place, leaving) = collect(|| enclose(Some((&inner, 0, 5)), 1).unwrap().unwrap());
            assert_eq!((place.number, leaving.memories.len()), (0, 1));
            let panicked = catch_unwind(AssertUnwindSafe(|| collect(|| panic!("of the user's"))));
            assert!(panicked.is_err());
            assert_eq!(enclose(Some((&inner, 0, 5)), 1).unwrap().unwrap().number, 1);
        });
        assert_eq!(leaving.memories.len(), 2);
        assert!(enclose(Some((&outer, 0, 5)), 1).is_none());
    }

    #[test]
    fn the_descriptors_of_one_message_are_counted() {
        let ((), leaving) = collect(|| {
            let first = memory(b"first");
            for number in 0..MOST_FDS {
                let memory = if number == 0 {
                    first.clone()
                } else {
                    memory(b"x")
                };
                assert!(enclose(Some((&memory, 0, 1)), 1).unwrap().is_ok());
            }
            assert_eq!(enclose(Some((&memory(b"x"), 0, 1)), 1), Some(Err(TooMany)));
            assert!(
                enclose(Some((&first, 1, 1)), 1).unwrap().is_ok(),
                "it goes along already"
            );
        });
        assert_eq!(leaving.memories.len(), MOST_FDS);
        assert!(MOST_FDS < usize::from(WITHIN));
    }
}
