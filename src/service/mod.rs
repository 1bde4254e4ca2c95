//! Programs that run for a long time: [`supervise()`] restarts what fails, and [`serve()`] shuts
//! down in order.
//!
//! ```
//! use std::io;
//! use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
//! use seedbed::service::{serve, supervise};
//!
//! static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
//!
//! async fn connection() -> io::Result<u32> {
//!     match CONNECTIONS.fetch_add(1, Relaxed) {
//!         0 => Err(io::ErrorKind::ConnectionReset.into()),
//!         number => Ok(number),
//!     }
//! }
//!
//! #[seedbed::main]
//! async fn main() {
//!     let service = serve(|_shutdown| async { supervise(connection).await.unwrap() });
//!     assert_eq!(service.await.unwrap(), Some(1)); // the second connection
//! }
//! ```

// `backoff` decides when a failed child is started again, and is pure; `supervise` starts it.
// `shutdown` is the handle on a service, and `serve` handles its signals, on Linux only.

mod backoff;
mod error;
#[cfg(target_os = "linux")]
mod serve;
#[cfg(target_os = "linux")]
mod shutdown;
mod supervise;
mod tuning;

pub use error::SuperviseError;
#[cfg(target_os = "linux")]
pub use serve::{Serve, ServeFuture, serve};
#[cfg(target_os = "linux")]
pub use shutdown::Shutdown;
pub use supervise::{Supervise, SuperviseFuture, supervise};
