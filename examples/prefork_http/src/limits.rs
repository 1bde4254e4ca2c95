//! The limits of the server, which each of its processes gets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long clients may take, and how many there may be.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Limits {
    /// The connections of one process at a time.
    pub connections: usize,
    /// How long a client may take to send the head of a request, how long for its body, and how
    /// long it may take to receive the answer.
    pub transfer: Duration,
    /// How long the requests in progress may take after the server has begun to end.
    pub drain: Duration,
}
