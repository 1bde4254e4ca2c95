//! The kinds of resources that seedbed itself knows, and their operators.

use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::time::Duration;

use super::amount::Amount;
use super::request::{CORES, MEMORY, Request, write_bytes};

/// A number of processor cores. The job's worker is pinned to cores that no other job has.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Cores, Request};
///
/// assert_eq!(Request::from(Cores(2)).to_string(), "2 cores");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores(pub u32);

impl Cores {
    /// Asks for a part of a core, or for a number that is not whole. The part is of a core that
    /// other jobs with parts share.
    ///
    /// # Panics
    ///
    /// If the number is negative or not finite.
    ///
    /// ```
    /// use seedbed::delayed::Cores;
    ///
    /// assert_eq!(Cores::share(0.25).to_string(), "0.25 core");
    /// ```
    #[track_caller]
    pub fn share(number: f64) -> Request {
        Request::amount(CORES, Amount::share(number))
    }
}

/// An amount of memory. The job's worker cannot allocate more.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::Memory;
///
/// assert_eq!(Memory::gib(2), Memory::mib(2048));
/// assert_eq!(Memory::bytes(3 << 20).to_string(), "3 MiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u64);

impl Memory {
    /// Makes an amount of a number of bytes.
    ///
    /// ```
    /// use seedbed::delayed::Memory;
    ///
    /// assert_eq!(Memory::bytes(1 << 20), Memory::mib(1));
    /// ```
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Makes an amount of a number of mebibytes, of 2²⁰ bytes each.
    ///
    /// ```
    /// use seedbed::delayed::Memory;
    ///
    /// assert_eq!(Memory::mib(1).as_bytes(), 1 << 20);
    /// ```
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes.saturating_mul(1 << 20))
    }

    /// Makes an amount of a number of gibibytes, of 2³⁰ bytes each.
    ///
    /// ```
    /// use seedbed::delayed::Memory;
    ///
    /// assert_eq!(Memory::gib(1).as_bytes(), 1 << 30);
    /// ```
    pub const fn gib(gibibytes: u64) -> Self {
        Self(gibibytes.saturating_mul(1 << 30))
    }

    /// Returns the number of bytes.
    ///
    /// ```
    /// use seedbed::delayed::Memory;
    ///
    /// assert_eq!(Memory::bytes(5).as_bytes(), 5);
    /// ```
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_bytes(f, self.0)
    }
}

/// The time that must be left to the program when the job starts. It limits nothing: see
/// `Jobs::time_limit`. It counts where the [`Resources`](crate::delayed::Resources) have a
/// [`wall_time`](crate::delayed::Resources::wall_time), as within a batch system.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use seedbed::delayed::{Cores, WallTime};
///
/// let request = Cores(1) & WallTime(Duration::from_secs(60));
/// assert_eq!(request.to_string(), "1 core and 60s of wall time");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime(pub Duration);

/// A property that the resources must have, of which jobs use up nothing. It is a plain value, and
/// dropping it has no effect.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Request, Token};
///
/// assert_eq!(Request::from(Token("internet")).to_string(), "the token `internet`");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub &'static str);

/// A number of units of a name, such as GPUs. Where the resources name the units, the job learns
/// which ones it has.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Request, Units};
///
/// assert_eq!(Request::from(Units("gpus", 2)).to_string(), "2 of `gpus`");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units(pub &'static str, pub u32);

/// Cores with memory. It is a plain value, and dropping it has no effect.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Cores, Memory, Node, Request};
///
/// let node = Request::from(Node(16, Memory::gib(64)));
/// assert_eq!(node, Cores(16) & Memory::gib(64));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub u32, pub Memory);

/// Implements the operators of requests for kinds.
macro_rules! kinds {
    ($($kind:ident: $value:ident => $request:expr;)+) => {$(
        impl From<$kind> for Request {
            fn from($value: $kind) -> Self {
                $request
            }
        }

        impl<R: Into<Request>> BitAnd<R> for $kind {
            type Output = Request;

            fn bitand(self, other: R) -> Request {
                Request::from(self) & other
            }
        }

        impl<R: Into<Request>> BitOr<R> for $kind {
            type Output = Request;

            fn bitor(self, other: R) -> Request {
                Request::from(self) | other
            }
        }
    )+};
}

kinds! {
    Cores: cores => Request::amount(CORES, cores.0.into());
    Memory: memory => Request::amount(MEMORY, Amount::whole(memory.0));
    WallTime: time => Request::of_wall_time(time.0);
    Token: token => Request::amount(token.0, Amount::ZERO);
    Units: units => Request::amount(units.0, units.1.into());
    Node: node => Cores(node.0) & node.1;
}
