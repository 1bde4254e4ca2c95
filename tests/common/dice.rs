//! Random numbers.

#![allow(dead_code)] // each test program uses its own part of this

use std::cell::Cell;

/// A random number generator. Equal seeds give equal numbers, though not equal interleavings.
pub struct Dice(Cell<u64>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    /// Returns a number below `sides`.
    pub fn throw(&self, sides: u64) -> u64 {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        (state >> 11) % sides
    }
}
