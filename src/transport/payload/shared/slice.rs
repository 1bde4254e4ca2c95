//! What users hold: a stretch of memory that nobody changes, seen as values of one type.
//!
//! `SharedBytes` is `SharedSlice<u8>`, not a type of its own: all that differs is that bytes can come from a stream. Values
//! that have no size are refused when the program is compiled, as there is nothing to share; so are values that want to
//! lie at rounder addresses than pages do, because the kernel promises no more.
//!
//! Invariants of a [`SharedSlice`]: `length` values of `T` lie in `memory` from `offset` on, aligned; without memory
//! there are none.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, RangeBounds};
use std::sync::Arc;

use bytemuck::Pod;

use crate::sys::memory::{Draft, Scratch, Sealed};
use crate::transport::payload::inline::{Memory, PAGE, Values};

/// Immutable bytes that processes share. See [`SharedSlice`].
///
/// ```
/// use seedbed::{SharedBytes, run_sync};
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
pub type SharedBytes = SharedSlice<u8>;

/// An immutable slice of plain values in memory that processes share.
///
/// Passing one to a [worker](crate::run_sync), as an argument or a part of one, costs a descriptor and no copy, whatever
/// its size; and so does passing one back. (One that was made [from a `Vec`](#from-a-vec) is copied once.) Workers and parent read it in place, as a slice, which it
/// [dereferences](Deref) to. Clones and [slices](SharedSlice::slice) are cheap: they share the memory, which is given back
/// when the last of them is dropped, in all processes. So a job that keeps a clone in a static keeps all of the memory, as
/// long as its worker lives.
///
/// The values are plain old data, as [`bytemuck::Pod`] defines it: any bytes are a value, and there is no padding, pointer
/// or cell in it. Numbers and arrays of numbers are; structures of them can be with `#[derive(bytemuck::Pod)]`. Values
/// lie as their type's alignment demands, wherever they are read.
///
/// # Nobody can change it
///
/// The memory, unless it is that of a `Vec`, is a file without a name (a *memfd*) that is *sealed* when it has been filled: the kernel refuses to write
/// to it, to shrink it and to grow it, for every process and for ever. Who receives one asks the kernel whether that is so,
/// and whether all of it is there, before looking at it; memory that is not is an error of this call
/// ([`DecodeArgument`](crate::worker::WorkerErrorKind::DecodeArgument) or
/// [`DecodeResult`](crate::worker::WorkerErrorKind::DecodeResult)), never a signal, and nothing that a worker does afterwards can
/// change or invalidate what the parent reads.
///
/// # From a `Vec`
///
/// A slice that was made [`From`] a `Vec` is that `Vec`, in this process alone. Each time that it goes to a worker it is copied, to
/// memory that is used again for later calls, and the job reads it there, in place; that is the quickest way for what is sent once.
/// The job may keep it, and then that memory is not used again. A process that the job forks cannot read it (looking at it
/// ends it with SIGABRT), as nobody would know how long it does. A worker's result that was made so is copied to sealed memory, where
/// its parent reads it.
///
/// # What it costs
///
/// One descriptor for each piece of sealed memory in each process that has it, however many clones and slices there are, until the
/// last is dropped there. A message takes at most 253 pieces, which is the kernel's limit; more are an
/// [error](crate::worker::WorkerErrorKind::EncodeArgument) before anything has been sent. Many small pieces are better made as
/// slices of one large piece. Where the receiver has too many files open, that is an error of this one call.
///
/// Making one is a copy, or a little more. It is worth while for what is used by several calls, or is large, or stays
/// unread for the most part: a few kilobytes go faster as a `Vec`.
///
/// # Elsewhere
///
/// It can be serialised with any format. Outside of a call it is its bytes, as they lie in memory; so numbers are in the
/// order of this machine. The same holds for the data of [`init`](crate::WorkerConfig::init) and
/// [`retire`](crate::WorkerConfig::retire) closures, and within a call for what a `Serialize` of your own turns into text.
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
/// Values without a size are refused by the compiler:
///
/// ```compile_fail
/// let nothings = seedbed::worker::SharedSlice::copy_from(&[(), ()]);
/// ```
pub struct SharedSlice<T> {
    memory: Option<Memory>,
    /// In bytes.
    offset: usize,
    /// In values.
    length: usize,
    /// It is owned as by an `Arc<[T]>`, so it may go to other threads where that may.
    values: PhantomData<Arc<[T]>>,
}

impl<T: Pod> SharedSlice<T> {
    /// Makes `length` values, zeros at first, and has them filled in.
    ///
    /// # Errors
    ///
    /// If there is not enough memory, if so much of it has no addresses, if the process may not have more descriptors or
    /// files as large, and what `fill` returns.
    ///
    /// # Panics
    ///
    /// If `fill` does. Nothing is left then.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Read;
    /// use seedbed::SharedBytes;
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
        let sealed = Draft::new().and_then(|mut draft| {
            scratch.pour(&mut draft)?;
            draft.seal()
        });
        let memory = sealed.map_err(|error| unavailable(bytes, error))?;
        Ok(Self::of(memory))
    }

    /// Copies values into memory that can be shared.
    ///
    /// # Errors
    ///
    /// If there is not enough memory, or if the process may not have more descriptors or files as large.
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
        let sealed = Draft::new().and_then(|mut draft| {
            draft.append(bytes)?;
            draft.seal()
        });
        let memory = sealed.map_err(|error| unavailable(bytes.len(), error))?;
        Ok(Self::of(memory))
    }

    /// Returns a part of this slice, which shares its memory: who gets it has a descriptor of all of it.
    ///
    /// # Panics
    ///
    /// If the range is not within the slice, as with `[..]`.
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
            return Self::default(); // keeps no memory
        }
        Self {
            memory: self.memory.clone(),
            offset: self.offset + start * size_of::<T>(),
            length,
            values: PhantomData,
        }
    }

    /// Sees the same memory as values of another type. To bytes, this always succeeds.
    ///
    /// # Errors
    ///
    /// Gives the slice back if its length is not that of whole values, or if it does not begin where such a value may lie.
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

impl SharedBytes {
    /// Returns a writer that collects bytes, for when their number is not known before.
    ///
    /// # Errors
    ///
    /// If the process may not have more descriptors.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::SharedBytes;
    ///
    /// let mut writer = SharedBytes::writer()?;
    /// std::io::copy(&mut std::fs::File::open("Cargo.toml")?, &mut writer)?;
    /// let bytes = writer.finish()?;
    /// assert_eq!(*bytes, *std::fs::read("Cargo.toml")?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn writer() -> io::Result<super::SharedBytesWriter> {
        super::SharedBytesWriter::new()
    }
}

impl<T: Pod> SharedSlice<T> {
    /// Evaluated where a slice is made: what must hold of `T`.
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

    /// All of some memory, which is one of whole values.
    pub(super) fn of(memory: Sealed) -> Self {
        let length = memory.len();
        let memory = Memory::Sealed(Arc::new(memory));
        Self::of_part(memory, 0, length).expect("memory of whole values begins at a page")
    }

    /// A stretch of some memory, in bytes; `None` if it is not one of whole values, or not aligned.
    pub(super) fn of_part(memory: Memory, offset: usize, length: usize) -> Option<Self> {
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

    /// The memory, unless there is nothing in it, and where this begins in it.
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

/// Says what was wanted.
pub(super) fn unavailable(bytes: usize, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unavailable { bytes, error })
}

/// Shared memory could not be had.
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
            [] => &[], // which lies nowhere, hence is not aligned
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

/// Takes the values over, where they are. How they travel is told at [`SharedSlice`], under "From a `Vec`".
///
/// ```
/// use seedbed::{SharedBytes, run_sync};
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

/// As from a `Vec`.
impl<T: Pod + Send + Sync> From<Box<[T]>> for SharedSlice<T> {
    fn from(values: Box<[T]>) -> Self {
        values.into_vec().into()
    }
}

/// An empty one, which needs no memory.
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

/// Tells the length, not the values.
impl<T> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSlice")
            .field("len", &self.length)
            .finish_non_exhaustive()
    }
}
