//! The resources that a job has.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::amount::Amount;
use super::request::{CORES, MEMORY, write_amount};

/// The resources that a job has; returned by [`allocation`](crate::delayed::allocation()).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    held: BTreeMap<Box<str>, Held>,
    alternative: usize,
}

/// The amount and the units of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    amount: Amount,
    parts: Vec<Part>,
}

/// A unit, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The index of the unit in its pool.
    place: usize,
    name: Box<str>,
    amount: Amount,
}

impl Held {
    pub(super) fn new(amount: Amount, parts: Vec<Part>) -> Self {
        Self { amount, parts }
    }

    pub(super) fn amount(&self) -> Amount {
        self.amount
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl Part {
    pub(super) fn new(place: usize, name: Box<str>, amount: Amount) -> Self {
        Self {
            place,
            name,
            amount,
        }
    }

    pub(super) fn place(&self) -> usize {
        self.place
    }

    pub(super) fn amount(&self) -> Amount {
        self.amount
    }
}

impl Allocation {
    pub(super) fn of_alternative(alternative: usize) -> Self {
        Self {
            held: BTreeMap::new(),
            alternative,
        }
    }

    pub(super) fn add(&mut self, name: &str, held: Held) {
        self.held.insert(name.into(), held);
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.held.iter().map(|(name, held)| (&**name, held))
    }

    /// Returns the numbers of the cores that the job's worker is pinned to. A core of which the job
    /// has a part counts.
    ///
    /// ```
    /// assert!(seedbed::delayed::Allocation::default().cores().is_empty());
    /// ```
    pub fn cores(&self) -> Vec<usize> {
        let mut cores: Vec<usize> = self
            .units(CORES)
            .filter_map(|name| name.parse().ok())
            .collect();
        cores.sort_unstable();
        cores
    }

    /// Returns the number of bytes that the job may allocate, or `None` if that is not limited.
    ///
    /// ```
    /// assert_eq!(seedbed::delayed::Allocation::default().memory(), None);
    /// ```
    pub fn memory(&self) -> Option<u64> {
        self.held.get(MEMORY).map(|held| held.amount.wholes())
    }

    /// Returns the names of the units of a kind that the job has, such as those of GPUs.
    ///
    /// ```
    /// let nothing = seedbed::delayed::Allocation::default();
    /// assert_eq!(nothing.units("gpus").count(), 0);
    /// ```
    pub fn units(&self, kind: &str) -> impl Iterator<Item = &str> + use<'_> {
        let parts = self.held.get(kind).map_or(&[][..], Held::parts);
        parts.iter().map(|part| &*part.name)
    }

    /// Returns how much of a kind the job has, or `None` if it did not ask for it.
    ///
    /// ```
    /// assert_eq!(seedbed::delayed::Allocation::default().amount("licences"), None);
    /// ```
    pub fn amount(&self, kind: &str) -> Option<Amount> {
        self.held.get(kind).map(Held::amount)
    }

    /// Returns the index of the alternative of the request that fitted, in the order in which `|`
    /// lists them.
    ///
    /// ```
    /// assert_eq!(seedbed::delayed::Allocation::default().alternative(), 0);
    /// ```
    pub fn alternative(&self) -> usize {
        self.alternative
    }
}

/// Writes the allocation as in `cores 0-3,7, 8 GiB`.
impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.held.is_empty() {
            return f.write_str("nothing");
        }
        for (at, (name, held)) in self.held().enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            match name {
                CORES if !held.parts.is_empty() => {
                    write!(f, "cores {}", ranges(&self.cores()))?;
                }
                _ if held.parts.is_empty() => write_amount(f, name, held.amount)?,
                _ => {
                    let names: Vec<&str> = self.units(name).collect();
                    write!(f, "{name} {}", names.join(","))?;
                }
            }
        }
        Ok(())
    }
}

/// Writes numbers in ascending order as in `0-3,7`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let run = |run: &[usize]| match *run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}
