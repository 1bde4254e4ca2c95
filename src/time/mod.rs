//! Clocks, sleeping and the queue of deadlines.
//!
//! Time belongs to the run: inside [`run`](crate::run()), sleeps and deadlines read the run's
//! [`Clock`] and wait in its own queue, so a virtual clock moves all of them together. Outside of a
//! run, the same functions use the system's clock and smol's timers.

// `queue` decides which deadlines have passed, `idle` which waiters learn that the run is idle;
// both are pure. `timers` puts them behind locks and wakes.

mod clock;
mod current;
mod idle;
mod queue;
mod sleep;
mod timers;
mod tuning;

pub use std::time::Instant;

pub use clock::{Clock, RealClock};
pub use current::{current_clock, current_time};
pub use sleep::{Sleep, sleep, sleep_forever, sleep_until};

pub(crate) use current::timers as current_timers;
pub(crate) use idle::IdleKey;
pub(crate) use timers::Timers;
