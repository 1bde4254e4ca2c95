//! Orphans of killed processes, in a program that adopts them.
//!
//! An orphan becomes a child of process 1, or of the nearest ancestor that is a child subreaper,
//! and stays a zombie until that reaps it. If this program is that process, as in a container
//! without an init, it would keep a zombie for each process that it has killed with its parent.

use std::collections::HashSet;

use rustix::param::clock_ticks_per_second;
use rustix::process::child_subreaper;

use super::clock::boot_time;
use super::process::Number;
use super::process_tree::{DescendantKiller, Identity, Stat, children_of};

/// Whether orphans become children of this process.
pub(crate) fn adopts_orphans() -> bool {
    std::process::id() == 1 || child_subreaper().is_ok_and(|is_set| is_set.is_some())
}

/// Processes that have been killed with a child of this process.
#[derive(Debug)]
pub(crate) struct Orphans(Which);

#[derive(Debug)]
enum Which {
    /// The members of the group that the child led, and which began no later than this, in clock
    /// ticks since the system was started. Later, the number may belong to another group.
    Group { leader: u32, until: u64 },
    /// Descendants that were found one by one.
    Found(HashSet<Identity>),
}

impl Orphans {
    /// The members of the group of a child that was reaped just now.
    pub(crate) fn of_group(leader: u32) -> Self {
        let now = boot_time();
        let ticks = clock_ticks_per_second();
        let part = u64::from(now.subsec_nanos()) * ticks / 1_000_000_000;
        Self(Which::Group {
            leader,
            until: now.as_secs() * ticks + part,
        })
    }

    pub(crate) fn killed_by(killer: DescendantKiller) -> Self {
        Self(Which::Found(killer.into_killed()))
    }

    /// Reaps those that are children of this process and have ended. Returns whether there were
    /// any, ended or not: they may have left children of their own to this process since.
    pub(crate) fn reap(&self) -> bool {
        let children = children_of(std::process::id()).unwrap_or_default();
        let adopted = children.into_iter().filter(|&pid| self.contain(pid));
        // They are children of this process, and no other part of it knows them.
        let asked = adopted
            .filter_map(Number::new)
            .map(|orphan| orphan.try_reap(false));
        asked.count() > 0
    }

    fn contain(&self, pid: u32) -> bool {
        let Ok(stat) = Stat::read(pid) else {
            return false;
        };
        match &self.0 {
            Which::Group { leader, until } => {
                stat.group == *leader && pid != *leader && stat.start_time <= *until
            }
            Which::Found(killed) => killed.contains(&Identity {
                pid,
                start_time: stat.start_time,
            }),
        }
    }
}
