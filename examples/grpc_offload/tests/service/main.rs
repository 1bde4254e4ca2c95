//! A server and its clients, in one run.

mod calls;
mod harness;
mod offload;
mod probe;
mod tools;
