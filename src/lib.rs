//! Trio for Rust, on smol.

#![deny(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]

pub mod sync;
