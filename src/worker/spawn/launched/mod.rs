//! Workers that a [`Launcher`](crate::worker::Launcher) starts, perhaps on another machine.
//!
//! [`transport::relay`](crate::transport::relay) describes the protocol. A [`relay`] is a
//! background task of this program for each worker; a [`guardian`] is what this program becomes
//! where the launcher starts it. Both move frames with a [`pump`].

pub(in crate::worker) mod guardian;
mod pump;
pub(in crate::worker) mod relay;

use std::future::Future;
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;

/// Awaits a future. Returns `None` if that takes longer than `limit`.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let in_time = async { Some(future.await) };
    let late = async {
        Timer::after(limit).await;
        None
    };
    in_time.or(late).await
}
