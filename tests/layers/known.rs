//! Faults that exist today, by the owner who removes them. A line goes when its fault does; no line
//! is added. The file goes when it is empty.

/// Modules that import upwards: importing module, imported module.
pub const UPWARD: &[(&str, &str)] = &[];

/// Folders (relative to `src`) whose entries import each other in a circle.
pub const CYCLES: &[&str] = &[
    // transport
    // call, spawn
];
