//! The public shared slice: memory that does not change, as values of one type.
//!
//! `SharedBytes` is `SharedSlice<u8>`; only bytes can be collected by a writer. Zero-sized values
//! are refused at compile time, because there is nothing to share, and so are values whose
//! alignment is above that of a page.
//!
//! Invariants of a [`SharedSlice`]: `memory` holds `length` aligned values of `T` from `offset` on;
//! without memory, the slice is empty. There is no `unsafe` here: `bytemuck` casts the bytes and
//! checks length and alignment each time.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, RangeBounds};
use std::sync::Arc;

use bytemuck::Pod;

use super::inline::{Memory, PAGE, Values};
use crate::sys::memory::{MemfdWriter, Sealed};
use crate::sys::scratch::Scratch;

/// Immutable bytes that processes share. See [`SharedSlice`].
///
/// ```
/// use seedbed::worker::SharedBytes;
/// use seedbed::run_sync;
///
/// fn first_line(text: SharedBytes) -> SharedBytes {
///     let end = text.iter().position(|byte| *byte == b'\n');
///     text.slice(..end.unwrap_or(text.len())) // the same memory: nothing is copied on the way back either
/// }
///
/// fn main() -> std::io::Result<()> {
///     seedbed::init();
///     let text = SharedBytes::copy_from(b"mandrake\nnettle\n")?;
///     let first = smol::block_on(async { run_sync(first_line, text).await }).unwrap();
///     assert_eq!(&*first, b"mandrake");
///     Ok(())
/// }
/// ```
#[doc(alias = "shared_memory")]
#[doc(alias = "memfd")]
pub type SharedBytes = SharedSlice<u8>;

/// An immutable slice of plain values in memory that processes share.
///
/// Passing one to a [worker](crate::run_sync), as an argument or a part of one, costs a descriptor
/// and no copy, whatever its size, and so does returning one. (A slice [from a `Vec`](#from-a-vec)
/// is copied once.) Worker and parent read it in place, as a slice, to which it
/// [dereferences](Deref). Clones and [slices](SharedSlice::slice) are cheap: they share the memory,
/// which is freed when the last of them is dropped, in all processes. So a job that keeps a clone
/// in a static keeps all of the memory for as long as its worker lives.
///
/// The values are plain old data, as [`bytemuck::Pod`] defines it: any bytes are a valid value,
/// without padding, pointers or cells. Numbers and arrays of numbers are plain old data; structures
/// of them can be, with `#[derive(bytemuck::Pod)]`. Values are aligned as their type demands, in
/// every process.
///
/// # No process can change it
///
/// The memory, unless it is that of a `Vec`, is a file without a name (a *memfd*) that is *sealed*
/// when it is complete: from then on the kernel refuses to write, shrink or grow it, for every
/// process. A receiver asks the kernel whether the memory is sealed and complete before it reads
/// it. Other memory is an error of this one call
/// ([`DecodeArgument`](crate::worker::WorkerErrorKind::DecodeArgument) or
/// [`DecodeResult`](crate::worker::WorkerErrorKind::DecodeResult)), never a signal. A worker can
/// neither change nor invalidate what its parent reads.
///
/// # From a `Vec`
///
/// A slice made [`From`] a `Vec` is that `Vec`, in this process alone. Each time it goes to a
/// worker, it is copied into memory that later calls use again, and the job reads it there in
/// place; that is the fastest way for values that are sent once. The job may keep it, and then that
/// memory is not used again. A process that the job forks cannot read it (an access ends that
/// process with SIGABRT), because the parent could not tell how long it reads. A worker's result
/// that was made from a `Vec` is copied into sealed memory, where the parent reads it.
///
/// # What it costs
///
/// Each piece of sealed memory takes one descriptor in each process that has it, however many
/// clones and slices there are, until the last is dropped there. A message holds at most 253
/// pieces, which is the kernel's limit; more are an
/// [error](crate::worker::WorkerErrorKind::EncodeArgument) before anything is sent. Make many small
/// pieces as slices of one large piece. If the receiver has too many open files, this one call
/// fails.
///
/// Making a slice costs a copy, or a little more. It pays for values that several calls use, that
/// are large, or of which most is never read: a few kilobytes go faster as a `Vec`.
///
/// # Elsewhere
///
/// A slice can be serialised in any format. Outside of a call it is encoded as its bytes in memory,
/// so numbers are in the byte order of this machine. So is the data of
/// [`init`](crate::WorkerConfig::init) and [`retire`](crate::WorkerConfig::retire) closures, and
/// within a call each slice that a `Serialize` of your own turns into text.
///
/// # Examples
///
/// ```
/// use seedbed::run_sync;
/// use seedbed::worker::SharedSlice;
///
/// fn sum((numbers, from, to): (SharedSlice<f64>, usize, usize)) -> f64 {
///     numbers[from..to].iter().sum()
/// }
///
/// fn main() -> std::io::Result<()> {
///     seedbed::init();
///     let numbers = SharedSlice::build(1000, |numbers: &mut [f64]| {
///         numbers.fill(0.5);
///         Ok(())
///     })?;
///     let half = |from, to| run_sync(sum, (numbers.clone(), from, to)).into_future();
///     let halves = smol::block_on(smol::future::zip(half(0, 500), half(500, 1000)));
///     assert_eq!(halves.0.unwrap() + halves.1.unwrap(), 500.0);
///     Ok(())
/// }
/// # use std::future::IntoFuture;
/// ```
///
/// The compiler refuses zero-sized values:
///
/// ```compile_fail
/// let nothings = seedbed::worker::SharedSlice::copy_from(&[(), ()]);
/// ```
pub struct SharedSlice<T> {
    memory: Option<Memory>,
    /// Offset of the first value in the memory, in bytes.
    offset: usize,
    /// Number of values.
    length: usize,
    /// `Send` and `Sync` as an `Arc<[T]>` is.
    values: PhantomData<Arc<[T]>>,
}

impl<T: Pod> SharedSlice<T> {
    /// Makes `length` zeroed values, and calls `fill` to fill them in.
    ///
    /// # Errors
    ///
    /// Fails if there is not enough memory or address space, or if the process may not have more
    /// descriptors or files of this size. An error of `fill` is returned as it is.
    ///
    /// # Panics
    ///
    /// If `fill` panics; then the memory is freed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Read;
    /// use seedbed::worker::SharedBytes;
    ///
    /// let mut file = std::fs::File::open("Cargo.toml")?;
    /// let start = SharedBytes::build(9, |bytes| file.read_exact(bytes))?;
    /// assert_eq!(&*start, b"[workspac");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn build(length: usize, fill: impl FnOnce(&mut [T]) -> io::Result<()>) -> io::Result<Self> {
        let () = Self::CAN_BE_SHARED;
        let bytes = length.saturating_mul(size_of::<T>());
        if bytes == 0 {
            fill(&mut [])?;
            return Ok(Self::default());
        }
        let mut scratch = Scratch::new(bytes).map_err(|error| unavailable(bytes, error))?;
        fill(bytemuck::cast_slice_mut(&mut scratch))?;
        let sealed = MemfdWriter::new().and_then(|mut writer| {
            scratch.pour(&mut writer)?;
            writer.seal()
        });
        let memory = sealed.map_err(|error| unavailable(bytes, error))?;
        Ok(Self::from_sealed(memory))
    }

    /// Copies values into shared memory.
    ///
    /// # Errors
    ///
    /// Fails if there is not enough memory, or if the process may not have more descriptors or
    /// files of this size.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::SharedSlice;
    ///
    /// let primes = SharedSlice::copy_from(&[2u64, 3, 5, 7])?;
    /// assert_eq!(primes.iter().sum::<u64>(), 17);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn copy_from(values: &[T]) -> io::Result<Self> {
        let () = Self::CAN_BE_SHARED;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let sealed = MemfdWriter::new().and_then(|mut writer| {
            writer.append(bytes)?;
            writer.seal()
        });
        let memory = sealed.map_err(|error| unavailable(bytes.len(), error))?;
        Ok(Self::from_sealed(memory))
    }

    /// Returns a part of this slice that shares its memory: a process that receives the part has a
    /// descriptor of the whole memory.
    ///
    /// # Panics
    ///
    /// If the range is not within the slice, as when a slice is indexed.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::SharedSlice;
    ///
    /// let squares = SharedSlice::copy_from(&[1, 4, 9, 16])?;
    /// let middle = squares.slice(1..3);
    /// assert_eq!(*middle, [4, 9]);
    /// assert_eq!(middle.as_ptr(), &squares[1]);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.length,
        };
        let length = self[start..end].len();
        if length == 0 {
            return Self::default(); // an empty slice keeps no memory
        }
        Self {
            memory: self.memory.clone(),
            offset: self.offset + start * size_of::<T>(),
            length,
            values: PhantomData,
        }
    }

    /// Converts the slice to values of another type in the same memory. A conversion to bytes
    /// always succeeds.
    ///
    /// # Errors
    ///
    /// Returns the slice unchanged if its length is not that of whole values, or if it is not
    /// aligned for them.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::SharedSlice;
    ///
    /// let pairs = SharedSlice::copy_from(&[[1u32, 2], [3, 4]])?;
    /// let flat = pairs.cast::<u32>().unwrap();
    /// assert_eq!(*flat, [1, 2, 3, 4]);
    /// let three = flat.slice(1..).cast::<[u32; 2]>().unwrap_err();
    /// assert_eq!(*three, [2, 3, 4]);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cast<U: Pod>(self) -> Result<SharedSlice<U>, Self> {
        let () = SharedSlice::<U>::CAN_BE_SHARED;
        let length = match bytemuck::try_cast_slice::<u8, U>(self.bytes()) {
            Ok(values) => values.len(),
            Err(_) if self.length == 0 => 0,
            Err(_) => return Err(self),
        };
        Ok(SharedSlice {
            memory: self.memory,
            offset: self.offset,
            length,
            values: PhantomData,
        })
    }
}

impl<T: Pod> SharedSlice<T> {
    /// Checks at compile time that values of `T` can be shared.
    const CAN_BE_SHARED: () = {
        assert!(
            size_of::<T>() != 0,
            "values without a size need no memory that could be shared: pass their number"
        );
        assert!(
            align_of::<T>() <= PAGE,
            "shared memory begins at a page, which is not aligned enough for these values"
        );
    };

    /// Makes a slice of all of `memory`, which holds whole values.
    pub(super) fn from_sealed(memory: Sealed) -> Self {
        let length = memory.len();
        let memory = Memory::Sealed(Arc::new(memory));
        Self::from_range(memory, 0, length).expect("memory of whole values begins at a page")
    }

    /// Makes a slice of a range of `memory`, in bytes. Returns `None` if it does not hold whole
    /// values, or is not aligned.
    pub(super) fn from_range(memory: Memory, offset: usize, length: usize) -> Option<Self> {
        let () = Self::CAN_BE_SHARED;
        let bytes = memory.get(offset..)?.get(..length)?;
        let length = bytemuck::try_cast_slice::<u8, T>(bytes).ok()?.len();
        if length == 0 {
            return Some(Self::default());
        }
        Some(Self {
            memory: Some(memory),
            offset,
            length,
            values: PhantomData,
        })
    }

    /// Returns the memory and the offset in it, unless the slice is empty.
    pub(super) fn memory(&self) -> Option<(&Memory, usize)> {
        self.memory.as_ref().map(|memory| (memory, self.offset))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let length = self.length * size_of::<T>();
        self.memory
            .as_ref()
            .map_or(&[], |memory| &memory[self.offset..self.offset + length])
    }
}

/// Adds to an error how many bytes were wanted.
pub(super) fn unavailable(bytes: usize, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unavailable { bytes, error })
}

/// An error about shared memory that could not be allocated.
#[derive(Debug)]
struct Unavailable {
    bytes: usize,
    error: io::Error,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, error } = self;
        write!(f, "{bytes} bytes of shared memory cannot be had: {error}")
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<T: Pod> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self.bytes() {
            [] => &[], // an empty slice has no memory that could be aligned
            bytes => bytemuck::cast_slice(bytes),
        }
    }
}

impl<T: Pod> AsRef<[T]> for SharedSlice<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<'a, T: Pod> IntoIterator for &'a SharedSlice<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Takes over the values without a copy. [`SharedSlice`] says how they are sent, under "From a
/// `Vec`".
///
/// ```
/// use seedbed::worker::SharedBytes;
/// use seedbed::run_sync;
///
/// fn count(bytes: SharedBytes) -> usize {
///     bytes.iter().filter(|byte| **byte == b'e').count()
/// }
///
/// fn main() {
///     seedbed::init();
///     let bytes = SharedBytes::from(b"seedbed".to_vec());
///     let count = smol::block_on(async { run_sync(count, bytes).await });
///     assert_eq!(count.unwrap(), 3);
/// }
/// ```
impl<T: Pod + Send + Sync> From<Vec<T>> for SharedSlice<T> {
    fn from(values: Vec<T>) -> Self {
        let () = Self::CAN_BE_SHARED;
        let length = values.len();
        let memory = (length > 0).then(|| Memory::Owned(Arc::new(Values(values))));
        Self {
            memory,
            offset: 0,
            length,
            values: PhantomData,
        }
    }
}

/// Takes over the values without a copy, as from a `Vec`.
impl<T: Pod + Send + Sync> From<Box<[T]>> for SharedSlice<T> {
    fn from(values: Box<[T]>) -> Self {
        values.into_vec().into()
    }
}

/// Makes an empty slice, which needs no memory.
impl<T> Default for SharedSlice<T> {
    fn default() -> Self {
        Self {
            memory: None,
            offset: 0,
            length: 0,
            values: PhantomData,
        }
    }
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        Self {
            memory: self.memory.clone(),
            ..*self
        }
    }
}

impl<T: Pod + PartialEq> PartialEq for SharedSlice<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + Eq> Eq for SharedSlice<T> {}

/// Shows the length, not the values.
impl<T> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSlice")
            .field("len", &self.length)
            .finish_non_exhaustive()
    }
}
