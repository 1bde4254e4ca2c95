//! The ledger of resources: a job gets all or nothing, and nothing is lost.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::allocation::Allocation;
use super::amount::Amount;
use super::kinds::Memory;
use super::pool::Pool;
use super::request::{MEMORY, Need, Request};
use super::resources::Resources;

pub(crate) struct Ledger {
    pools: BTreeMap<Box<str>, Pool>,
    /// The pools when nothing is taken.
    all_free: BTreeMap<Box<str>, Pool>,
}

impl Ledger {
    pub(crate) fn new(resources: &Resources) -> Self {
        let pools = resources.pools().clone();
        Self {
            all_free: pools.clone(),
            pools,
        }
    }

    /// Checks that the request fits when everything is free. `time_left` is `None` where time is
    /// not limited.
    ///
    /// # Errors
    ///
    /// A sentence that says what is asked for and what there is.
    pub(crate) fn check(
        &self,
        request: &Request,
        time_left: Option<Duration>,
    ) -> Result<(), String> {
        if let Some(kind) = request.doubled() {
            return Err(format!(
                "`&` combines different things, and {kind} stands on both sides; add the amounts up"
            ));
        }
        let mut pools = self.all_free.clone();
        if allocate(&mut pools, request, time_left).is_some() {
            return Ok(());
        }
        let mut reasons = String::new();
        for need in request.needs() {
            let lacks = lack(&self.all_free, need, time_left);
            let separator = if reasons.is_empty() { "" } else { "; " };
            // Writing to a string does not fail.
            let _ = write!(
                reasons,
                "{separator}it asks for {need}, and there {lacks} in all"
            );
        }
        Err(format!(
            "{reasons}. Ask for less, or give the block more resources"
        ))
    }

    /// Returns whether the request fits when everything is free but `held`.
    pub(crate) fn fits_besides(
        &self,
        held: &[Arc<Allocation>],
        request: &Request,
        time_left: Option<Duration>,
    ) -> bool {
        let mut pools = self.all_free.clone();
        for (name, held) in held.iter().flat_map(|allocation| allocation.held()) {
            if let Some(pool) = pools.get_mut(name) {
                pool.take_again(held);
            }
        }
        allocate(&mut pools, request, time_left).is_some()
    }

    /// Takes the first alternative of the request that fits.
    pub(crate) fn allocate(
        &mut self,
        request: &Request,
        time_left: Option<Duration>,
    ) -> Option<Allocation> {
        allocate(&mut self.pools, request, time_left)
    }

    /// Gives back an allocation, once.
    pub(crate) fn release(&mut self, allocation: &Allocation) {
        for (name, held) in allocation.held() {
            if let Some(pool) = self.pools.get_mut(name) {
                pool.put_back(held);
            }
        }
    }

    /// Returns whether nothing is taken.
    pub(crate) fn is_all_free(&self) -> bool {
        self.pools == self.all_free
    }

    /// Says what the first alternative of a request waits for, as in `waits for 2 of cores (free:
    /// 1)`.
    pub(crate) fn explain(&self, request: &Request, time_left: Option<Duration>) -> String {
        match request.needs() {
            [need, ..] => format!(
                "waits for {need}, and there {}",
                lack(&self.pools, need, time_left)
            ),
            [] => String::new(),
        }
    }

    /// Returns the name of what the first alternative of a request waits for.
    pub(crate) fn lacking<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let mut amounts = request.needs().first()?.amounts();
        let lacking = amounts.find(|&(name, amount)| {
            let pool = self.pools.get(name);
            pool.is_none_or(|pool| pool.clone().take(amount).is_none())
        });
        lacking.map(|(name, _)| name)
    }

    /// Returns the names of all resources with what is free and what there is.
    pub(crate) fn amounts(&self) -> impl Iterator<Item = (&str, Amount, Amount)> {
        self.pools
            .iter()
            .map(|(name, pool)| (&**name, pool.free(), pool.total()))
    }
}

fn allocate(
    pools: &mut BTreeMap<Box<str>, Pool>,
    request: &Request,
    time_left: Option<Duration>,
) -> Option<Allocation> {
    let needs = request.needs().iter().enumerate();
    needs
        .filter(|(_, need)| has_time(need, time_left))
        .find_map(|(at, need)| allocate_need(pools, at, need))
}

fn has_time(need: &Need, time_left: Option<Duration>) -> bool {
    match (need.wall_time(), time_left) {
        (Some(wanted), Some(left)) => wanted <= left,
        _ => true,
    }
}

/// Takes all that is needed, or nothing.
fn allocate_need(
    pools: &mut BTreeMap<Box<str>, Pool>,
    alternative: usize,
    need: &Need,
) -> Option<Allocation> {
    let mut allocation = Allocation::of_alternative(alternative);
    for (name, amount) in need.amounts() {
        let held = pools.get_mut(name).and_then(|pool| pool.take(amount));
        match held {
            Some(held) => allocation.add(name, held),
            None => {
                for (name, held) in allocation.held() {
                    if let Some(pool) = pools.get_mut(name) {
                        pool.put_back(held);
                    }
                }
                return None;
            }
        }
    }
    Some(allocation)
}

/// Says which of the needed things is not there, as a clause after "there".
fn lack(pools: &BTreeMap<Box<str>, Pool>, need: &Need, time_left: Option<Duration>) -> String {
    for (name, amount) in need.amounts() {
        match pools.get(name) {
            None => return format!("is no `{name}`"),
            Some(pool) if pool.clone().take(amount).is_none() => {
                return match name {
                    MEMORY => format!("is {} of memory", Memory::bytes(pool.free().wholes())),
                    _ => format!("is {} of `{name}`", pool.free()),
                };
            }
            Some(_) => {}
        }
    }
    match time_left {
        Some(left) if !has_time(need, time_left) => format!("is {left:?} of wall time"),
        _ => "is enough".to_owned(),
    }
}
