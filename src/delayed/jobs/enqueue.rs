//! Puts jobs into the queue.

use std::any::type_name;

use super::callable::{Callable, Portable};
use super::handle::Jobs;
use super::options::Checked;
use super::record::{Ended, Record};
use super::run::{Job, run_job};
use super::ticket::Ticket;
use crate::delayed::error::JobError;
use crate::delayed::value::awaiter::JobId;

impl Jobs<'_> {
    /// Puts a job into the queue, after its [`Record`] was made. Returns `None` for a job that asks
    /// for nothing.
    ///
    /// # Errors
    ///
    /// If the job can never have what it asks for.
    pub(super) fn enqueue(
        &self,
        job: JobId,
        name: &'static str,
        checked: &Checked,
    ) -> Result<Option<Ticket>, JobError> {
        let is_prioritized = self.options.is_prioritized;
        let submitted = Ticket::submit(&self.pool, (job, name), checked, is_prioritized);
        submitted.map_err(|reason| JobError::impossible(name, 0, reason))
    }

    /// Puts a call into the queue, and runs it.
    pub(super) async fn run_call<F, A, M>(
        &self,
        record: Record,
        (id, f, argument): (JobId, F, A),
    ) -> Ended<F::Value>
    where
        F: Callable<A, M>,
        A: Portable,
        F::Value: Portable,
    {
        let name = type_name::<F>();
        match self.enqueue(id, name, &self.demand_of_call()) {
            Err(error) => record.fail(error),
            Ok(ticket) => {
                let job = Job {
                    f,
                    argument,
                    ticket,
                };
                run_job::<F, A, M>(job, record, self.pool.clone(), self.options.clone()).await
            }
        }
    }
}
