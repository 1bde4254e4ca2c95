//! Workers that a [`Launcher`](crate::worker::Launcher) starts, perhaps on another machine.
//!
//! [`transport::relay`](crate::transport::relay) describes the protocol. A [`relay`] is a
//! background task of this program for each worker; a [`guardian`] is what this program becomes
//! where the launcher starts it. Both move frames with a [`pump`].

pub(in crate::worker) mod guardian;
mod pump;
pub(in crate::worker) mod relay;
