//! The resources of one name: a sum, or units with names.

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
    free: Amount,
}

impl Pool {
    pub(super) fn sum(total: Amount) -> Self {
        Self::Sum { total, free: total }
    }

    pub(super) fn units(names: impl IntoIterator<Item = Box<str>>) -> Self {
        let unit = |name| Unit {
            name,
            free: Amount::ONE,
        };
        Self::Units(names.into_iter().map(unit).collect())
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
    let mut parts: Vec<_> = wholes
        .take(wanted)
        .map(|(at, _)| (at, Amount::ONE))
        .collect();
    if parts.len() < wanted {
        return None;
    }
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
