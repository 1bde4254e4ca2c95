//! The places of a limit of jobs.

use std::iter;
use std::sync::{Arc, Mutex};

use super::job_group::JobGroup;
use crate::delayed::value::awaiter::{JobId, Target};
use crate::sync::Token;
use crate::sys::primitives::lock;

/// The places of a limit that are taken.
pub(super) struct Places {
    /// How many there are in all.
    count: usize,
    taken: Mutex<Vec<Arc<JobGroup>>>,
}

/// A place of a limit, which is free again when this is dropped.
pub(super) struct Place {
    jobs: Arc<JobGroup>,
    places: Arc<Places>,
    /// The place that the handle had on which the limit was made. The jobs count for both.
    around: Option<Arc<Place>>,
    _token: Token,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self {
            count,
            taken: Mutex::default(),
        }
    }

    pub(super) fn take(self: &Arc<Self>, token: Token, around: Option<Arc<Place>>) -> Place {
        let jobs = Arc::new(JobGroup::default());
        lock(&self.taken).push(jobs.clone());
        Place {
            jobs,
            places: self.clone(),
            around,
            _token: token,
        }
    }
}

impl Place {
    /// Returns the jobs of this place, and of those around it.
    pub(super) fn groups(&self) -> impl Iterator<Item = &JobGroup> {
        let places = iter::successors(Some(self), |place| place.around.as_deref());
        places.map(|place| &*place.jobs)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.taken).retain(|other| !Arc::ptr_eq(other, &self.jobs));
    }
}

/// The wait for a place, which needs the end of all jobs of one of them.
impl Target for Places {
    fn alternatives(&self) -> Vec<Vec<JobId>> {
        let taken = lock(&self.taken);
        if taken.len() < self.count {
            return Vec::new();
        }
        taken.iter().map(|place| place.jobs()).collect()
    }

    fn is_reached(&self) -> bool {
        lock(&self.taken).len() < self.count
    }
}
