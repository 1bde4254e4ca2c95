//! The resources of one name: a sum, or units with names.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::allocation::{Held, Part};
use super::amount::Amount;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Sum { total: Amount, free: Amount },
    Units(Vec<Unit>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    name: Box<str>,
    /// The part of the machine where the unit is. The cores of a job are on one node where that is
    /// free.
    node: u32,
    free: Amount,
}

impl Pool {
    pub(super) fn sum(total: Amount) -> Self {
        Self::Sum { total, free: total }
    }

    /// Makes a pool of units with names, on nodes of the machine.
    pub(super) fn units(units: impl IntoIterator<Item = (Box<str>, u32)>) -> Self {
        let unit = |(name, node)| Unit {
            name,
            node,
            free: Amount::ONE,
        };
        Self::Units(units.into_iter().map(unit).collect())
    }

    /// Returns the names of the units.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::Sum { .. } => Vec::new(),
            Self::Units(units) => units.iter().map(|unit| &*unit.name).collect(),
        }
    }

    pub(super) fn total(&self) -> Amount {
        match self {
            Self::Sum { total, .. } => *total,
            Self::Units(units) => Amount::whole(units.len() as u64),
        }
    }

    pub(super) fn free(&self) -> Amount {
        match self {
            Self::Sum { free, .. } => *free,
            Self::Units(units) => units
                .iter()
                .fold(Amount::ZERO, |sum, unit| sum.plus(unit.free)),
        }
    }

    /// Takes an amount, or nothing if it does not fit.
    ///
    /// Of units, wholes are units that no job has a part of. A fraction is a part of one unit: the
    /// one with the least that is free and enough, so that wholes stay whole.
    pub(super) fn take(&mut self, amount: Amount) -> Option<Held> {
        match self {
            Self::Sum { free, .. } => {
                *free = free.checked_sub(amount)?;
                Some(Held::new(amount, Vec::new()))
            }
            Self::Units(units) => {
                let parts = choose_parts(units, amount)?;
                let take = |(at, part): (usize, Amount)| {
                    let unit = &mut units[at];
                    unit.free = unit.free.checked_sub(part)?;
                    Some(Part::new(at, unit.name.clone(), part))
                };
                let parts: Option<Vec<Part>> = parts.into_iter().map(take).collect();
                parts.map(|parts| Held::new(amount, parts))
            }
        }
    }

    /// Takes what a job holds from a pool in which it is free.
    pub(super) fn take_again(&mut self, held: &Held) {
        match self {
            Self::Sum { free, .. } => {
                *free = free.checked_sub(held.amount()).unwrap_or(Amount::ZERO);
            }
            Self::Units(units) => {
                for part in held.parts() {
                    let free = &mut units[part.place()].free;
                    *free = free.checked_sub(part.amount()).unwrap_or(Amount::ZERO);
                }
            }
        }
    }

    /// Gives back what was taken.
    pub(super) fn put_back(&mut self, held: &Held) {
        match self {
            Self::Sum { free, .. } => *free = free.plus(held.amount()),
            Self::Units(units) => {
                for part in held.parts() {
                    let unit = &mut units[part.place()];
                    unit.free = unit.free.plus(part.amount());
                }
            }
        }
    }
}

/// Chooses units for an amount: their places, and how much of each.
fn choose_parts(units: &[Unit], amount: Amount) -> Option<Vec<(usize, Amount)>> {
    let is_whole = |unit: &Unit| unit.free == Amount::ONE;
    let wanted = usize::try_from(amount.wholes()).ok()?;
    let wholes = units.iter().enumerate().filter(|(_, unit)| is_whole(unit));
    let mut wholes: Vec<usize> = wholes.map(|(at, _)| at).collect();
    if wholes.len() < wanted {
        return None;
    }
    if wanted > 1 {
        order_by_node(units, &mut wholes, wanted);
    }
    let wholes = wholes.into_iter().take(wanted);
    let mut parts: Vec<_> = wholes.map(|at| (at, Amount::ONE)).collect();
    let fraction = amount.fraction();
    if !fraction.is_zero() {
        let taken = |at| parts.iter().any(|&(other, _)| other == at);
        let (at, _) = units
            .iter()
            .enumerate()
            .filter(|&(at, unit)| unit.free >= fraction && !taken(at))
            .min_by_key(|(_, unit)| unit.free)?;
        parts.push((at, fraction));
    }
    Some(parts)
}

/// Brings those units to the front that are on one node, if a node has as many as are wanted: the
/// one with the least number of free units, so that larger groups stay whole. Otherwise those of
/// the nodes with the most.
fn order_by_node(units: &[Unit], free: &mut [usize], wanted: usize) {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for &at in &*free {
        *counts.entry(units[at].node).or_default() += 1;
    }
    if counts.len() < 2 {
        return;
    }
    let is_enough = |&(_, count): &(&u32, &usize)| *count >= wanted;
    let smallest = counts
        .iter()
        .filter(is_enough)
        .min_by_key(|(_, count)| **count);
    let chosen = smallest.map(|(node, _)| *node);
    free.sort_by_key(|&at| {
        let node = units[at].node;
        // The order within a node, and that of equal nodes, stays.
        (Some(node) != chosen, Reverse(counts[&node]), node)
    });
}
