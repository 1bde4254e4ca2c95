//! Resources as plain data: what a job asks for, what there is, and who has what.
//!
//! Nothing here waits, wakes or runs. `seedbed::delayed` publishes the types and obeys the
//! decisions.
//!
//! | files | job |
//! |---|---|
//! | `amount`, `request`, `kinds` | what a job asks for |
//! | `resources`, `local`, `nodes`, `cgroup` | what there is |
//! | `pool`, `ledger`, `allocation` | what is free, and what a job has got |
//! | `queue` | which job is next |

mod allocation;
mod amount;
mod cgroup;
mod kinds;
mod ledger;
mod local;
mod nodes;
mod pool;
mod queue;
mod request;
mod resources;

#[cfg(test)]
mod tests;

pub use allocation::Allocation;
pub use amount::Amount;
pub use kinds::{Cores, Memory, Node, Token, Units, WallTime};
pub use request::{Need, Request, ZERO};
pub use resources::Resources;

pub(crate) use ledger::Ledger;
pub(crate) use queue::{Queue, TicketId};
pub(crate) use request::{CORES, MEMORY};
