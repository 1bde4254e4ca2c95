//! Amounts, counted in ten-thousandths so that sums of shares are exact.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of parts that one whole has.
const PARTS: u64 = 10_000;

/// An amount of a resource: a number with four decimal places.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::Amount;
///
/// assert_eq!(Amount::share(0.5).to_string(), "0.5");
/// assert_eq!(Amount::from(3).to_string(), "3");
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Amount(u64);

impl Amount {
    pub(crate) const ZERO: Self = Self(0);
    pub(crate) const ONE: Self = Self(PARTS);

    /// Makes an amount of any number, rounded up to a ten-thousandth.
    ///
    /// # Panics
    ///
    /// If the number is negative or not finite, or too large (more than 10¹⁵).
    ///
    /// ```
    /// use seedbed::delayed::Amount;
    ///
    /// assert!(Amount::share(1.0 / 3.0) > Amount::share(0.3333));
    /// ```
    #[track_caller]
    pub fn share(number: f64) -> Self {
        assert!(
            (0.0..=1e15).contains(&number),
            "an amount is a number from 0 to 1e15, and not {number}"
        );
        // The last factor compensates that decimal fractions, such as 0.1, are rounded up in
        // binary.
        Self((number * PARTS as f64 * (1.0 - f64::EPSILON)).ceil() as u64)
    }

    /// Makes a whole number. The largest amount stands for larger ones.
    pub(crate) const fn whole(number: u64) -> Self {
        Self(number.saturating_mul(PARTS))
    }

    /// Returns the number of wholes, rounded down.
    pub(crate) const fn wholes(self) -> u64 {
        self.0 / PARTS
    }

    pub(crate) fn to_f64(self) -> f64 {
        self.0 as f64 / PARTS as f64
    }

    /// Returns what is left besides the wholes.
    pub(crate) const fn fraction(self) -> Self {
        Self(self.0 % PARTS)
    }

    pub(crate) const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl From<u32> for Amount {
    fn from(number: u32) -> Self {
        Self::whole(number.into())
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.wholes())?;
        match self.fraction().0 {
            0 => Ok(()),
            parts => write!(f, ".{}", format!("{parts:04}").trim_end_matches('0')),
        }
    }
}
