//! A server and its clients, in one run.

mod calls;
mod client;
mod harness;
mod offload;
mod probe;
mod tls;
mod tools;
