//! The requests of jobs whose limits are learned.

use std::sync::Arc;

use super::demand;
use super::handle::Jobs;
use super::options::{Checked, TimeLimit};
use crate::delayed::learned::{Learned, Limit, TimeLimit as Setting};

impl Jobs<'_> {
    /// Gives each call an amount of memory that is [`Learned`] from earlier jobs of a group, next
    /// to what [`on`](Self::on) asks for, which must not include memory then.
    ///
    /// A job that runs out of its memory runs once more, with all memory of the block. Without
    /// [`Memory`](crate::delayed::Memory) among the resources of the block, nothing is limited.
    /// Futures and programs are not limited by this, as their peaks are not known.
    ///
    /// ```
    /// use seedbed::delayed::{Cores, Learned, Memory, Resources, allocation, open};
    ///
    /// fn memory(_: ()) -> Option<u64> {
    ///     allocation().unwrap().memory()
    /// }
    ///
    /// fn main() {
    ///     let resources = Resources::none().cores([0]).memory(Memory::gib(1));
    ///     seedbed::run(open(resources, async |jobs| {
    ///         let learning = jobs.on(Cores(1)).memory(Learned::new("memory"));
    ///         // Before it knows more: the memory for all cores.
    ///         assert_eq!(learning.call(memory, ()).await.unwrap(), Some(1 << 30));
    ///     }));
    /// }
    /// ```
    pub fn memory(&self, learned: Learned) -> Self {
        let group = self.pool.group(&learned);
        self.with(|options| options.memory = Some(group))
    }

    pub(super) fn learned_limit(&self, limit: Setting) -> TimeLimit {
        match limit.0 {
            Limit::Fixed(limit) => TimeLimit::Fixed(limit),
            Limit::Learned(learned) => TimeLimit::Learned(self.pool.group(&learned)),
        }
    }

    /// Returns what a call asks for now, its memory included.
    pub(super) fn demand_of_call(&self) -> Arc<Checked> {
        demand::of_call(&self.pool, &self.options)
    }

    /// Returns what a job asks for now: the time that it is expected to take, too, if the block's
    /// time is limited.
    pub(super) fn demand(&self, checked: &Arc<Checked>) -> Arc<Checked> {
        demand::with_expected_time(&self.pool, &self.options, checked)
    }
}
