//! gRPC on smol, inside of nurseries: hyper's HTTP/2 serves tonic's generated services, without a
//! runtime of tokio.
//!
//! ```text
//! serve_grpc: a nursery
//! ├─ the end of the grace period
//! └─ connections: a nursery
//!    ├─ a connection: a nursery, whose body is hyper's connection
//!    │  ├─ hyper's task of a stream: passes on what the call has sent
//!    │  ├─ a call: a scope and a nursery; polls the handler, and the body of its response
//!    │  │  └─ children of the handler, such as producers of streams
//!    │  ┆
//!    ┆
//! ```
//!
//! The point of the design: hyper never polls a handler. When a client resets a stream or goes
//! away, hyper *drops* what it polls; a handler that is dropped from outside cannot clean up, and
//! nothing waits for its workers. Here hyper drops only the receiving side of a call, and that
//! cancels the scope of the call.
//!
//! * [`calls`]: a call and its scope; [`reply`]: the two sides of its response
//! * [`upload`]: the request's body, which never ends too early; [`status`]: the status at the end
//! * [`connection`]: one connection; [`serve`]: all of them, and the end in order
//! * [`executor`], [`preface`], [`timeout`], [`tls`]: what hyper and gRPC need besides

pub mod calls;
pub mod connection;
pub mod executor;
pub mod preface;
pub mod reply;
pub mod serve;
pub mod status;
pub mod timeout;
pub mod tls;
pub mod upload;
