//! The tuning constants of the transport.

use std::time::Duration;

/// The number of 64-bit words in a mailbox slot: 32 KiB, less the two words before them and the cache line behind them. A
/// small frame shares the cache line of the state.
pub(crate) const SLOT_WORDS: usize = 4096 - 2 - 8;

/// A frame of up to this many bytes is written into a slot before its sender knows whether the receiver watches. Writing it
/// takes less time than the extra transfer of a cache line between the two processors.
pub(crate) const BLIND_WRITE_BYTES: usize = 256;

/// The number of checks, of about 25 ns each, between two yields of the processor.
pub(crate) const SPINS_BETWEEN_YIELDS: u32 = 64;

/// The number of bytes that a receiver reserves for a frame of unknown size. Most frames fit, header included.
pub(crate) const READ_ROOM: usize = 4 * 1024;

/// The least number of bytes that a receiver reserves for the rest of a large frame.
pub(crate) const READ_CHUNK: usize = 256 * 1024;

/// A yield that takes longer has let a process use up its time slice, which is 0.7 ms or more. A thread that only answers
/// a call is done sooner.
pub(crate) const LONG_YIELD: Duration = Duration::from_micros(300);

/// For this long after a long yield, spins do not yield. A program that is alone again loses little by that, and one that
/// still competes loses one time slice in this time.
pub(crate) const CONTENTION_MEMORY: Duration = Duration::from_millis(100);
