//! Trio for Rust, on smol.
