//! The request of a job.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::amount::Amount;

pub(crate) const CORES: &str = "cores";
pub(crate) const MEMORY: &str = "memory";

/// The resources that a job asks for: one [`Need`], or any of several.
///
/// `a & b` asks for both, `a | b` for the first that fits. `&` binds tighter than `|`.
/// [`Cores`](crate::delayed::Cores), [`Memory`](crate::delayed::Memory) and the other kinds become
/// requests by these operators and by `into()`. `&` combines different things: a kind on both sides
/// makes a request that no job can have.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Amount, Cores, Memory, Request, Units};
///
/// let request = Cores(4) & Memory::gib(8) | Cores(1) & Units("gpus", 1);
/// assert_eq!(request.to_string(), "4 cores and 8 GiB, or 1 core and 1 of `gpus`");
///
/// /// A kind of one's own.
/// fn licences(count: u32) -> Request {
///     Request::amount("licences", Amount::from(count))
/// }
/// assert_eq!((licences(2) & Cores(1)).to_string(), "1 core and 2 of `licences`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Without any, the request is for nothing.
    needs: Vec<Need>,
    /// The name of a kind that stands on both sides of an `&`.
    doubled: Option<Box<str>>,
}

/// One way to satisfy a [`Request`]: amounts by name; made by [`Request::needs`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    amounts: BTreeMap<Box<str>, Amount>,
    wall_time: Option<Duration>,
}

/// The request for nothing. A job with it is not pinned, and starts at once.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Cores, ZERO};
///
/// assert_eq!(ZERO & Cores(1), Cores(1).into());
/// assert_eq!(ZERO.to_string(), "nothing");
/// ```
pub const ZERO: Request = Request {
    needs: Vec::new(),
    doubled: None,
};

impl Request {
    /// Asks for an amount of any name. With the amount zero, the name must exist.
    ///
    /// ```
    /// use seedbed::delayed::{Amount, Cores, Request};
    ///
    /// assert_eq!(Request::amount("cores", Amount::from(2)), Cores(2).into());
    /// ```
    pub fn amount(name: &str, amount: Amount) -> Self {
        let amounts = BTreeMap::from([(name.into(), amount)]);
        Self::of(Need {
            amounts,
            wall_time: None,
        })
    }

    pub(super) fn of_wall_time(time: Duration) -> Self {
        Self::of(Need {
            amounts: BTreeMap::new(),
            wall_time: Some(time),
        })
    }

    fn of(need: Need) -> Self {
        Self {
            needs: vec![need],
            doubled: None,
        }
    }

    /// Returns the alternatives, in the order of preference.
    ///
    /// ```
    /// use seedbed::delayed::{Cores, ZERO};
    ///
    /// assert_eq!((Cores(2) | Cores(1)).needs().len(), 2);
    /// assert_eq!(ZERO.needs().len(), 1);
    /// ```
    pub fn needs(&self) -> &[Need] {
        static NOTHING: Need = Need {
            amounts: BTreeMap::new(),
            wall_time: None,
        };
        if self.needs.is_empty() {
            std::slice::from_ref(&NOTHING)
        } else {
            &self.needs
        }
    }

    /// Returns the kind that stands on both sides of an `&`.
    pub(super) fn doubled(&self) -> Option<&str> {
        self.doubled.as_deref()
    }
}

impl Need {
    /// Returns the names and amounts.
    ///
    /// ```
    /// use seedbed::delayed::{Amount, Cores, Request};
    ///
    /// let request = Request::from(Cores(2));
    /// let amounts: Vec<_> = request.needs()[0].amounts().collect();
    /// assert_eq!(amounts, [("cores", Amount::from(2))]);
    /// ```
    pub fn amounts(&self) -> impl Iterator<Item = (&str, Amount)> {
        self.amounts.iter().map(|(name, amount)| (&**name, *amount))
    }

    /// Returns the time that must be left when the job starts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::delayed::{Request, WallTime};
    ///
    /// let hour = Duration::from_secs(3600);
    /// let request = Request::from(WallTime(hour));
    /// assert_eq!(request.needs()[0].wall_time(), Some(hour));
    /// ```
    pub fn wall_time(&self) -> Option<Duration> {
        self.wall_time
    }

    /// Returns what both ask for, and the first kind that both ask for.
    fn and(&self, other: &Self) -> (Self, Option<Box<str>>) {
        let mut both = self.clone();
        let mut doubled = None;
        for (name, amount) in &other.amounts {
            if both.amounts.insert(name.clone(), *amount).is_some() {
                doubled.get_or_insert_with(|| name.clone());
            }
        }
        if let Some(time) = other.wall_time
            && both.wall_time.replace(time).is_some()
        {
            doubled.get_or_insert_with(|| "wall time".into());
        }
        (both, doubled)
    }
}

impl<R: Into<Self>> BitAnd<R> for Request {
    type Output = Self;

    fn bitand(self, other: R) -> Self {
        let other = other.into();
        let mut doubled = self.doubled.clone().or_else(|| other.doubled.clone());
        let mut needs = Vec::new();
        for one in self.needs() {
            for another in other.needs() {
                let (both, twice) = one.and(another);
                doubled = doubled.or(twice);
                needs.push(both);
            }
        }
        if needs.iter().all(|need| *need == Need::default()) {
            needs.clear();
        }
        Self { needs, doubled }
    }
}

impl<R: Into<Self>> BitOr<R> for Request {
    type Output = Self;

    fn bitor(self, other: R) -> Self {
        let other = other.into();
        let needs = [self.needs(), other.needs()].concat();
        Self {
            needs,
            doubled: self.doubled.or(other.doubled),
        }
    }
}

impl From<&Request> for Request {
    fn from(request: &Request) -> Self {
        request.clone()
    }
}

/// Writes an amount with its kind.
pub(super) fn write_amount(f: &mut fmt::Formatter<'_>, name: &str, amount: Amount) -> fmt::Result {
    match name {
        _ if amount.is_zero() => write!(f, "the token `{name}`"),
        CORES if amount <= Amount::ONE => write!(f, "{amount} core"),
        CORES => write!(f, "{amount} cores"),
        MEMORY => write_bytes(f, amount.wholes()),
        name => write!(f, "{amount} of `{name}`"),
    }
}

/// Writes a number of bytes in the largest unit that divides it.
pub(super) fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: u64) -> fmt::Result {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return write!(f, "{} {unit}", bytes >> shift);
        }
    }
    write!(f, "{bytes} bytes")
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, amount) in self.amounts() {
            f.write_str(separator)?;
            write_amount(f, name, amount)?;
            separator = " and ";
        }
        match self.wall_time {
            Some(time) => write!(f, "{separator}{time:?} of wall time"),
            None if separator.is_empty() => f.write_str("nothing"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, need) in self.needs().iter().enumerate() {
            f.write_str(if at == 0 { "" } else { ", or " })?;
            need.fmt(f)?;
        }
        Ok(())
    }
}
