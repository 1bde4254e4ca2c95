//! Jobs whose end is waited for as a whole.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::delayed::value::awaiter::{JobId, Target};
use crate::sys::primitives::lock;

/// The jobs of a block, or of one place of a limit, that have not ended.
#[derive(Default)]
pub(super) struct JobGroup {
    jobs: Mutex<BTreeSet<JobId>>,
}

impl JobGroup {
    pub(super) fn add(&self, job: JobId) {
        lock(&self.jobs).insert(job);
    }

    pub(super) fn remove(&self, job: JobId) {
        lock(&self.jobs).remove(&job);
    }

    pub(super) fn jobs(&self) -> Vec<JobId> {
        lock(&self.jobs).iter().copied().collect()
    }
}

/// The wait for the end of a block.
impl Target for JobGroup {
    fn alternatives(&self) -> Vec<Vec<JobId>> {
        vec![self.jobs()]
    }

    fn is_reached(&self) -> bool {
        lock(&self.jobs).is_empty()
    }
}
