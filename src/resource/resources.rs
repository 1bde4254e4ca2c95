//! The resources of a block.

use std::collections::BTreeMap;
use std::time::Duration;

use super::amount::Amount;
use super::kinds::Memory;
use super::local;
use super::nodes;
use super::pool::Pool;
use super::request::{CORES, MEMORY};

/// The resources that the jobs of a block share.
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Memory, Resources};
///
/// let resources = Resources::local()
///     .memory(Memory::gib(4))
///     .units("gpus", ["0", "1"])
///     .amount("licences", 5)
///     .token("internet");
/// assert!(resources.core_count() >= 1);
/// ```
#[derive(Clone, Debug)]
pub struct Resources {
    pools: BTreeMap<Box<str>, Pool>,
    wall_time: Option<Duration>,
}

impl Resources {
    /// Returns the cores and the memory that this process may use now.
    ///
    /// The cores are those of the affinity of the calling thread, at most as many as the CPU quota
    /// of the process's cgroups allows, and at least one. The memory is what the kernel can give
    /// without swapping, at most what the limits of the cgroups leave. Cgroups of both versions
    /// count, so a container's limits hold.
    ///
    /// ```
    /// use seedbed::delayed::Resources;
    ///
    /// assert!(Resources::local().core_count() >= 1);
    /// ```
    pub fn local() -> Self {
        let resources = Self::none().cores(local::cores());
        match local::memory() {
            Some(bytes) => resources.memory(Memory::bytes(bytes)),
            None => resources,
        }
    }

    /// Returns no resources, to add what jobs may have.
    ///
    /// ```
    /// use seedbed::delayed::Resources;
    ///
    /// assert_eq!(Resources::none().core_count(), 0);
    /// ```
    pub fn none() -> Self {
        Self {
            pools: BTreeMap::new(),
            wall_time: None,
        }
    }

    /// Sets the cores, by their numbers. A job gets cores of one node of the machine (NUMA) where
    /// one has as many as it asks for, and of the smallest number of nodes otherwise.
    ///
    /// ```
    /// use seedbed::delayed::Resources;
    ///
    /// assert_eq!(Resources::none().cores(0..2).core_count(), 2);
    /// ```
    pub fn cores(self, numbers: impl IntoIterator<Item = usize>) -> Self {
        self.cores_of(numbers, &nodes::nodes())
    }

    /// Sets the cores, of which some are on the given nodes of the machine, and others on node 0.
    pub(super) fn cores_of(
        mut self,
        numbers: impl IntoIterator<Item = usize>,
        nodes: &BTreeMap<usize, u32>,
    ) -> Self {
        let mut distinct: Vec<usize> = Vec::new();
        for number in numbers {
            if !distinct.contains(&number) {
                distinct.push(number);
            }
        }
        let node = |number| nodes.get(&number).copied().unwrap_or(0);
        let cores = distinct.into_iter();
        let cores = cores.map(|number| (number.to_string().into(), node(number)));
        self.pools.insert(CORES.into(), Pool::units(cores));
        self
    }

    /// Returns the number of cores.
    ///
    /// ```
    /// use seedbed::delayed::Resources;
    ///
    /// assert_eq!(Resources::none().cores([5, 7]).core_count(), 2);
    /// ```
    pub fn core_count(&self) -> usize {
        let cores = self.pools.get(CORES).map(Pool::total);
        cores.map_or(0, |cores| {
            usize::try_from(cores.wholes()).unwrap_or(usize::MAX)
        })
    }

    /// Returns the numbers of the cores.
    pub(crate) fn core_numbers(&self) -> Vec<usize> {
        let names = self.pools.get(CORES).map_or(Vec::new(), Pool::names);
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Sets the amount of memory.
    ///
    /// ```
    /// use seedbed::delayed::{Memory, Resources};
    ///
    /// let resources = Resources::local().memory(Memory::gib(1));
    /// assert!(format!("{resources:?}").contains("memory"));
    /// ```
    pub fn memory(mut self, memory: Memory) -> Self {
        let pool = Pool::sum(Amount::whole(memory.as_bytes()));
        self.pools.insert(MEMORY.into(), pool);
        self
    }

    /// Adds an amount without named units, such as a number of licences.
    ///
    /// ```
    /// use seedbed::delayed::Resources;
    ///
    /// let resources = Resources::none().amount("licences", 3);
    /// assert!(format!("{resources:?}").contains("licences"));
    /// ```
    pub fn amount(mut self, name: &str, amount: impl Into<Amount>) -> Self {
        self.pools.insert(name.into(), Pool::sum(amount.into()));
        self
    }

    /// Adds units with names, such as GPUs. A job gets to know the names of its units. Equal names
    /// count once.
    ///
    /// ```
    /// use seedbed::delayed::Resources;
    ///
    /// let resources = Resources::none().units("gpus", ["GPU-0", "GPU-1"]);
    /// assert!(format!("{resources:?}").contains("GPU-1"));
    /// ```
    pub fn units<S: AsRef<str>>(mut self, kind: &str, names: impl IntoIterator<Item = S>) -> Self {
        let mut distinct: Vec<Box<str>> = Vec::new();
        for name in names {
            if !distinct.iter().any(|other| **other == *name.as_ref()) {
                distinct.push(name.as_ref().into());
            }
        }
        let units = distinct.into_iter().map(|name| (name, 0));
        self.pools.insert(kind.into(), Pool::units(units));
        self
    }

    /// Adds a property that jobs may ask for.
    ///
    /// ```
    /// use seedbed::delayed::Resources;
    ///
    /// let resources = Resources::local().token("internet");
    /// assert!(format!("{resources:?}").contains("internet"));
    /// ```
    pub fn token(self, name: &str) -> Self {
        self.amount(name, Amount::ZERO)
    }

    /// Sets how long the block may run, as in a job of a batch system. A job with a
    /// [`WallTime`](crate::delayed::WallTime) starts if at least that is left.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::delayed::Resources;
    ///
    /// let resources = Resources::local().wall_time(Duration::from_secs(3600));
    /// assert!(format!("{resources:?}").contains("3600s"));
    /// ```
    pub fn wall_time(mut self, time: Duration) -> Self {
        self.wall_time = Some(time);
        self
    }

    pub(super) fn pools(&self) -> &BTreeMap<Box<str>, Pool> {
        &self.pools
    }

    pub(crate) fn time(&self) -> Option<Duration> {
        self.wall_time
    }
}
