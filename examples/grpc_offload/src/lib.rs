//! A gRPC service on smol whose work is done in worker processes. `README.md` describes it.

pub mod adapter;
/// Written by the package `codegen`.
#[allow(clippy::all, missing_docs)]
#[rustfmt::skip]
#[path = "generated/offload.v1.rs"]
pub mod generated;
pub mod jobs;
pub mod queue;
pub mod reflection;
pub mod routes;
pub mod service;
pub mod updates;

/// The encoded description of the service.
pub const DESCRIPTOR: &[u8] = include_bytes!("generated/descriptor.bin");
