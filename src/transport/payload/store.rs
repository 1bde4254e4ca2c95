//! Where a large encoding is written: an arena that is there, or a new file.
//!
//! How much it will be is often not known. So what does not fit into its arena any more is copied into a file, which
//! grows, and the arena goes back. What has been written to a file becomes an arena in its turn, if there is a pool for
//! it: it is mapped then and not before, so the first time costs no page faults, and is as cheap as if it were the only
//! one.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::pool::{Need, Pool};
use crate::sys::arena::{Arena, Lent};
use crate::sys::memory::Draft;

/// An encoding that is being written, from its beginning to its end.
#[derive(Debug)]
pub(in crate::transport) struct Store<'a> {
    place: Place,
    pool: Option<&'a Pool>,
}

#[derive(Debug)]
enum Place {
    New(Draft),
    Again {
        arena: Arena,
        /// How much has been written.
        length: usize,
    },
}

/// What has been written, to be sent.
#[derive(Debug)]
pub(in crate::transport) enum Written {
    /// For good.
    Sealed(OwnedFd),
    /// For this time.
    Lent(Lent),
}

impl<'a> Store<'a> {
    /// Finds a place for so much, in an arena of `pool` or in what may become one.
    pub(in crate::transport) fn new(need: Need, pool: Option<&'a Pool>) -> io::Result<Self> {
        let drawn = pool.and_then(|pool| pool.draw(need));
        let place = match (drawn, pool) {
            (Some(arena), _) => Place::Again { arena, length: 0 },
            (None, Some(_)) => Place::New(Arena::draft()?),
            (None, None) => Place::New(Draft::new()?),
        };
        Ok(Self { place, pool })
    }

    pub(in crate::transport) fn len(&self) -> u64 {
        match &self.place {
            Place::New(draft) => draft.len(),
            Place::Again { length, .. } => *length as u64,
        }
    }

    /// Writes all of `bytes`, or, if there is an error, nothing.
    pub(in crate::transport) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Place::Again { arena, length } = &self.place
            && arena.capacity() - length < bytes.len()
        {
            self.move_out(bytes.len())?;
        }
        match &mut self.place {
            Place::New(draft) => draft.append(bytes),
            Place::Again { arena, length } => {
                arena.bytes_mut()[*length..][..bytes.len()].copy_from_slice(bytes);
                *length += bytes.len();
                Ok(())
            }
        }
    }

    /// Copies what has been written to where there is room for more: an arena, or a file, which can grow.
    fn move_out(&mut self, more: usize) -> io::Result<()> {
        let Place::Again { arena, length } = &self.place else {
            return Ok(());
        };
        let mut larger = Self::new(Need::AtLeast(length + more), self.pool)?;
        larger.append(&arena.bytes()[..*length])?; // fits
        let left = std::mem::replace(self, larger);
        if let (Place::Again { arena, .. }, Some(pool)) = (left.place, left.pool) {
            drop(pool.put(arena, Instant::now())); // there was room for it before
        }
        Ok(())
    }

    /// Appends all that has been written to `out`.
    pub(in crate::transport) fn read_onto(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match &self.place {
            Place::New(draft) => draft.read_onto(out),
            Place::Again { arena, length } => {
                out.extend_from_slice(&arena.bytes()[..*length]);
                Ok(())
            }
        }
    }

    /// Makes it fit to be sent, or gives it back.
    pub(in crate::transport) fn finish(self) -> Result<Written, Self> {
        let draft = match self.place {
            Place::Again { arena, .. } => return Ok(Written::Lent(Lent::new(arena))),
            Place::New(draft) => draft,
        };
        let is_worth_keeping = |pool: &Pool| pool.has_room_for(draft.len());
        let draft = match self.pool.is_some_and(is_worth_keeping) {
            true => match Arena::of(draft) {
                Ok(arena) => return Ok(Written::Lent(Lent::new(arena))),
                Err(draft) => draft,
            },
            false => draft,
        };
        draft
            .seal_for_others()
            .map(Written::Sealed)
            .map_err(|draft| Self {
                place: Place::New(draft),
                pool: self.pool,
            })
    }
}
