//! The destination of a large encoding: a reused arena, or a new file in memory.
//!
//! The length of an encoding is often unknown while it is written. An encoding that outgrows its
//! arena is copied into a file, which can grow, and the arena returns to the pool. With a pool, a
//! finished file becomes an arena in turn. It is mapped only then, so that the first use costs no
//! page faults and is as cheap as if it were the only one.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::arena_pool::{ArenaPool, Need};
use crate::sys::arena::{Arena, Lent};
use crate::sys::memory::MemfdWriter;

/// An encoding that is being written from beginning to end.
#[derive(Debug)]
pub(in crate::transport) struct Store<'a> {
    target: Target,
    pool: Option<&'a ArenaPool>,
}

#[derive(Debug)]
enum Target {
    File(MemfdWriter),
    Arena {
        arena: Arena,
        /// Number of bytes written.
        length: usize,
    },
}

/// A finished encoding.
#[derive(Debug)]
pub(in crate::transport) enum Written {
    /// In memory that is given away.
    Sealed(OwnedFd),
    /// In an arena that returns with the answer.
    Lent(Lent),
}

impl<'a> Store<'a> {
    /// Makes a store for as many bytes as `need` says: an arena of `pool`, or a file.
    pub(in crate::transport) fn new(need: Need, pool: Option<&'a ArenaPool>) -> io::Result<Self> {
        let taken = pool.and_then(|pool| pool.take(need));
        let target = match (taken, pool) {
            (Some(arena), _) => Target::Arena { arena, length: 0 },
            (None, Some(_)) => Target::File(Arena::writer()?),
            (None, None) => Target::File(MemfdWriter::new()?),
        };
        Ok(Self { target, pool })
    }

    pub(in crate::transport) fn len(&self) -> u64 {
        match &self.target {
            Target::File(writer) => writer.len(),
            Target::Arena { length, .. } => *length as u64,
        }
    }

    /// Writes all of `bytes`, or nothing if there is an error.
    pub(in crate::transport) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Target::Arena { arena, length } = &self.target
            && arena.capacity() - length < bytes.len()
        {
            self.move_to_larger(bytes.len())?;
        }
        match &mut self.target {
            Target::File(writer) => writer.append(bytes),
            Target::Arena { arena, length } => {
                arena.bytes_mut()[*length..][..bytes.len()].copy_from_slice(bytes);
                *length += bytes.len();
                Ok(())
            }
        }
    }

    /// Copies the written bytes to a larger arena, or to a file, which can grow.
    fn move_to_larger(&mut self, more: usize) -> io::Result<()> {
        let Target::Arena { arena, length } = &self.target else {
            return Ok(());
        };
        let mut larger = Self::new(Need::AtLeast(length + more), self.pool)?;
        larger.append(&arena.bytes()[..*length])?; // the new store was made for this many bytes
        let smaller = std::mem::replace(self, larger);
        if let (Target::Arena { arena, .. }, Some(pool)) = (smaller.target, smaller.pool) {
            drop(pool.put(arena, Instant::now())); // the pool had room for it before
        }
        Ok(())
    }

    /// Appends all written bytes to `out`.
    pub(in crate::transport) fn read_onto(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match &self.target {
            Target::File(writer) => writer.read_onto(out),
            Target::Arena { arena, length } => {
                out.extend_from_slice(&arena.bytes()[..*length]);
                Ok(())
            }
        }
    }

    /// Makes the encoding ready to be sent. Returns the store unchanged if that fails.
    pub(in crate::transport) fn finish(self) -> Result<Written, Self> {
        let writer = match self.target {
            Target::Arena { arena, .. } => return Ok(Written::Lent(Lent::new(arena))),
            Target::File(writer) => writer,
        };
        let is_kept = |pool: &ArenaPool| pool.has_room_for(writer.len());
        let writer = if self.pool.is_some_and(is_kept) {
            match Arena::of(writer) {
                Ok(arena) => return Ok(Written::Lent(Lent::new(arena))),
                Err(writer) => writer,
            }
        } else {
            writer
        };
        writer
            .seal_for_others()
            .map(Written::Sealed)
            .map_err(|writer| Self {
                target: Target::File(writer),
                pool: self.pool,
            })
    }
}
