//! The tuning constants of the transport.

use std::time::Duration;

/// The number of 64-bit words in a mailbox slot: 32 KiB, less the two words before them and the
/// cache line behind them. A small frame shares the cache line of the state.
pub(crate) const SLOT_WORDS: usize = 4096 - 2 - 8;

/// A frame of up to this many bytes is written into a slot before its sender knows whether the
/// receiver watches. Writing it takes less time than the extra transfer of a cache line between the
/// two processors.
pub(crate) const BLIND_WRITE_BYTES: usize = 256;

/// The number of checks, of about 25 ns each, between two yields of the processor.
pub(crate) const SPINS_BETWEEN_YIELDS: u32 = 64;

/// The number of bytes that a receiver reserves for a frame of unknown size. Most frames fit,
/// header included.
pub(crate) const READ_ROOM: usize = 4 * 1024;

/// The least number of bytes that a receiver reserves for the rest of a large frame.
pub(crate) const READ_CHUNK: usize = 256 * 1024;

/// A yield that takes longer has let a process use up its time slice, which is 0.7 ms or more. A
/// thread that only answers a call is done sooner.
pub(crate) const LONG_YIELD: Duration = Duration::from_micros(300);

/// For this long after a long yield, spins do not yield. A program that is alone again loses little
/// by that, and one that still competes loses one time slice in this time.
pub(crate) const CONTENTION_MEMORY: Duration = Duration::from_millis(100);

/// The longest payload, in bytes, that stays in its frame. Half as much costs about the same either
/// way, and this fits into the buffer of a socket.
pub(crate) const MAX_PAYLOAD_IN_FRAME: usize = 128 * 1024;

/// How many bytes of an encoding are collected before they are written to memory.
pub(crate) const WRITE_CHUNK: usize = 64 * 1024;

/// The least length, in bytes, of a buffer that is decoded into huge pages. The C library maps a
/// block of this size anew and unmaps it when it is freed, so its pages are untouched and its own.
pub(crate) const HUGE_PAGE_MIN: usize = 32 << 20;

/// How many bytes [`SharedBytesWriter`](super::payload::SharedBytesWriter) collects before it
/// writes them. A system call for this many bytes is cheap.
pub(crate) const SHARED_WRITE_BUFFER: usize = 64 * 1024;

/// The most idle arenas in a pool. A program that makes more large calls at once lacks processors
/// first.
pub(crate) const MAX_IDLE_ARENAS: usize = 16;

/// How many times as large as its contents a reused arena may be, if the length is known: a job
/// that keeps a part of an arena keeps all of it.
pub(crate) const MAX_ARENA_EXCESS: usize = 8;

/// The most bytes in the idle arenas of a pool.
pub(crate) const MAX_IDLE_ARENA_BYTES: usize = 256 << 20;

/// The limits, in bytes, within which bincode reserves memory for a text before it has seen the
/// text: see `codec`.
pub(crate) const SMALL_DECODE_LIMIT: usize = 1 << 20;
pub(crate) const LARGE_DECODE_LIMIT: usize = 1 << 30;

/// The stack that is set aside for each level at which a value is nested, in a format that
/// describes itself. Unoptimized code takes the most: see the tests of `described`.
pub(crate) const STACK_PER_LEVEL_BYTES: usize = 12 * 1024;

/// The words in each ring of a map's session: 128 KiB. Two chunks of 4,096 small items fit, which
/// is a millisecond of the quickest work.
pub(crate) const MAP_RING_WORDS: usize = 16 * 1024;

/// The most bytes of a record in a ring. A longer item is a call of its own, and a longer result
/// ends its session; a call with as much costs little more than copying it.
pub(crate) const MAP_RECORD_BYTES: usize = 16 * 1024;

/// How long a worker spins for items of a map. The parent often has some when it next looks.
pub(crate) const MAP_SPIN: Duration = Duration::from_micros(20);

/// At least one of this many waits for items spins, however many spins have failed.
pub(crate) const MAP_SPIN_INTERVAL: u32 = 16;

/// The clock is read less often if the items between two readings took less than this.
pub(crate) const MAP_MEASURED_SHORTEST: Duration = Duration::from_micros(10);

/// The clock is read more often if the items between two readings took more than this.
pub(crate) const MAP_MEASURED_LONGEST: Duration = Duration::from_micros(50);

/// The time between two checks of a waiting worker that its parent exists.
pub(crate) const PARENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The most bytes of the text of an error in a ring. The rest is cut off.
pub(crate) const MAP_TEXT_BYTES: usize = 64 * 1024;

/// The number of words in a ring: 256 KiB, which stay in a processor's second cache. A message of a
/// few words takes about as long as in a smaller ring.
pub(crate) const RING_WORDS: usize = 32 * 1024;

/// The most messages with descriptors that are on their way in a ring. Each may have much memory.
pub(crate) const MAX_RING_MESSAGES_WITH_FDS: usize = 4;

/// How long a side of a ring that may block its thread spins before it sleeps: about as long as it
/// takes to wake it.
pub(crate) const RING_SPIN: Duration = Duration::from_micros(50);

/// At least one of this many waits of a side of a ring spins, however many spins have failed.
pub(crate) const RING_SPIN_INTERVAL: u32 = 64;

/// A buffer of a receiver that is larger than this many bytes is not kept for the next message.
pub(crate) const RING_BUFFER_KEPT: usize = 1 << 20;

/// The most packets of a ring's socket that are read before this side looks at the ring again. A
/// correct peer leaves fewer.
pub(crate) const RING_PACKETS_PER_LOOK: usize = 64;

/// The most parts of a message that are received, or packets that are read, in one poll of a task.
pub(crate) const RING_ROUNDS_PER_POLL: usize = 8;

/// How many times in a term a guardian asks for a renewal of its lease: so that three in a row may
/// be lost or late.
pub(crate) const LEASE_RENEWALS_PER_TERM: u32 = 4;

/// The time within which a guardian whose lease is over has killed its worker.
pub(crate) const LEASE_KILL_MARGIN: Duration = Duration::from_secs(1);

/// The most bytes that may arrive before a guardian's greeting. A login script prints less.
pub(crate) const MAX_GREETING_NOISE: usize = 1 << 20;

/// The most bytes of data in a packet between a program and a guardian. Control packets wait for
/// one data packet at most.
pub(crate) const PACKET_DATA_BYTES: usize = 32 * 1024;

/// The bytes of data that may be on their way to a program or a guardian: at 10 Gbit/s, a round
/// trip of a millisecond is filled.
pub(crate) const RELAY_WINDOW: usize = 1 << 20;
