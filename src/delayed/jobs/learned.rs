//! The requests of jobs whose limits are learned.

use std::sync::Arc;

use super::handle::Jobs;
use super::options::{Checked, TimeLimit};
use crate::delayed::learned::{Learned, Limit, TimeLimit as Setting};
use crate::resource::{Amount, CORES, MEMORY, Memory, Request, WallTime};

impl Jobs<'_> {
    /// Gives each call an amount of memory that is [`Learned`] from earlier jobs of a group, next to
    /// what [`on`](Self::on) asks for, which must not include memory then.
    ///
    /// A job that runs out of its memory runs once more, with all memory of the block. Without
    /// [`Memory`] among the resources of the block, nothing is limited. Futures and programs are not
    /// limited by this, as their peaks are not known.
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
        let held = &self.options.held_around;
        let of_call = &self.options.of_call;
        let Some(group) = &self.options.memory else {
            return self.demand(of_call);
        };
        let Some(total) = self.pool.total(MEMORY).map(Amount::wholes) else {
            return self.demand(of_call);
        };
        let amount = group.memory();
        let amount = amount.unwrap_or_else(|| self.share(total, &of_call.request));
        let request = of_call.request.clone() & Memory::bytes(amount.min(total));
        self.demand(&Arc::new(self.pool.check(request, held)))
    }

    /// Returns what a job asks for now: the time that it is expected to take, too, if the block's time
    /// is limited.
    pub(super) fn demand(&self, checked: &Arc<Checked>) -> Arc<Checked> {
        let held = &self.options.held_around;
        let expected = match &self.options.time_limit {
            Some(TimeLimit::Learned(group)) if self.pool.time_left().is_some() => {
                group.expected_time()
            }
            _ => None,
        };
        let asks_for_time = |request: &Request| {
            let mut needs = request.needs().iter();
            needs.any(|need| need.wall_time().is_some())
        };
        match expected {
            Some(time) if !asks_for_time(&checked.request) => {
                let request = checked.request.clone() & WallTime(time);
                Arc::new(self.pool.check(request, held))
            }
            _ => checked.clone(),
        }
    }

    /// Returns the part of the memory that belongs to the cores of a request.
    fn share(&self, memory: u64, request: &Request) -> u64 {
        let of_cores = |amount: Amount| amount.max(Amount::ONE).to_f64();
        let all = self.pool.total(CORES).map_or(1.0, of_cores);
        let mut amounts = request.needs().iter().flat_map(|need| need.amounts());
        let own = amounts.find_map(|(name, amount)| (name == CORES).then_some(amount));
        let own = own.map_or(1.0, Amount::to_f64);
        // The conversion rounds down, so that the shares of all cores fit.
        (memory as f64 * (own / all)) as u64
    }
}
