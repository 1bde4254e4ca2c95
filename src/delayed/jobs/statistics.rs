//! The statistics of a block of jobs.

use std::fmt;

use crate::resource::Amount;

/// The statistics of a block of jobs; returned by [`Jobs::statistics`](crate::delayed::Jobs::statistics).
///
/// `Display` writes one line, which says what the head of the queue waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The number of jobs that wait for their resources.
    pub queued: usize,
    /// The number of jobs that have their resources.
    pub running: usize,
    /// The resources of the block, in the order of their names.
    pub resources: Vec<ResourceStatistics>,
    /// The name of the first job in the queue, and what it waits for.
    pub head: Option<String>,
}

/// The free and the total amount of a resource; returned by
/// [`Jobs::statistics`](crate::delayed::Jobs::statistics).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceStatistics {
    /// The name of the resource.
    pub name: String,
    /// How much of it no job has.
    pub free: Amount,
    /// How much of it there is.
    pub total: Amount,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} running, {} queued", self.running, self.queued)?;
        match &self.head {
            Some(head) => write!(f, "; {head}"),
            None => Ok(()),
        }
    }
}
