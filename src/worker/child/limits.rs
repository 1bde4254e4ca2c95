//! Applies the settings of a `WorkerConfig` in the worker, before any code of the program runs.
//!
//! The working directory is set in the process that calls the preload closures, and inherited by
//! forked workers. All other settings are applied in each worker, spawned or forked, in a fixed
//! order: settings that read files before the limit of files, and the stack after the limit of
//! memory, because it counts towards that.
//!
//! An error names the setting as it is written in the program, with the kernel's reason.

use std::ffi::OsStr;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getpriority_process, kill_process_group,
    set_child_subreaper, setpgid, setpriority_process, setrlimit,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::tuning::OOM_SCORE_ADJ;
use crate::sys::cpu_timer::CpuTimer;
use crate::sys::data_size::data_held;
use crate::sys::process_tree::DescendantKiller;
use crate::sys::{descriptors, interval_timer, process_group, signal};
use crate::transport::message::{Limits, Refusal};

/// Changes to the working directory, if one is set.
pub(super) fn enter(directory: Option<&[u8]>) -> Result<(), Refusal> {
    let Some(path) = directory else {
        return Ok(());
    };
    let path = Path::new(OsStr::from_bytes(path));
    std::env::set_current_dir(path).map_err(|error| {
        let words = "name a directory that exists and may be searched by this program";
        refusal(format!("current_dir({path:?})"), &error, words)
    })
}

/// Where the kernel keeps the adjustment of the OOM killer's score.
const OOM_SCORE_ADJ_FILE: &str = "/proc/self/oom_score_adj";

/// Applies all settings except the stack.
#[inline]
pub(super) fn submit_to(limits: &Limits) -> Result<(Option<Group>, CpuTime), Refusal> {
    if *limits == Limits::default() {
        return Ok((None, CpuTime(None))); // without a page fault for the code of the limits
    }
    apply(limits)
}

fn apply(limits: &Limits) -> Result<(Option<Group>, CpuTime), Refusal> {
    let group = limits.own_group.then(Group::new).transpose()?;
    limits.cpus.as_deref().map_or(Ok(()), stay_on)?;
    limits.nice.map_or(Ok(()), be_nice)?;
    limits.oom_score_adj.map_or(Ok(()), set_oom_score_adj)?;
    let cpu_time = CpuTime::new(limits.cpu_time)?;
    limits.memory.map_or(Ok(()), limit_memory)?;
    limits.open_files.map_or(Ok(()), limit_open_files)?;
    Ok((group, cpu_time))
}

/// The process group that a worker leads. The parent ends the group when it reaps the worker, which
/// may be long after an idle worker has exited; so a worker that exits by itself ends the group
/// too.
pub(super) struct Group {
    /// The former group of the worker. `None` if that lies outside of the pid namespace.
    home: Option<Pid>,
}

impl Group {
    fn new() -> Result<Self, Refusal> {
        let home = process_group::current();
        setpgid(None, None).map_err(|error| {
            let words = "a process that leads a session cannot leave its group";
            refusal("kill_tree(true)".into(), &error.into(), words)
        })?;
        // Descendants whose parents end become this process's children, so that the parent finds
        // them.
        set_child_subreaper(Some(getpid())).map_err(|error| {
            let words = "the kernel does not let this process adopt orphans";
            refusal("kill_tree(true)".into(), &error.into(), words)
        })?;
        signal::ignore_terminal_stops();
        Ok(Self { home })
    }

    /// Kills all descendants and all members but this process, which returns to its former group.
    pub(super) fn end(&self) {
        if let Ok(killer) = DescendantKiller::of_this_process() {
            killer.run();
        }
        // If the former group is gone, or was never to be seen, the parent ends the group.
        if self
            .home
            .is_some_and(|home| setpgid(None, Some(home)).is_ok())
        {
            // The group may have no other member.
            let _ = kill_process_group(getpid(), Signal::KILL);
        }
    }
}

fn refusal(setting: String, error: &io::Error, words: impl Into<String>) -> Refusal {
    Refusal {
        setting,
        os_error: error.raw_os_error(),
        words: words.into(),
    }
}

fn stay_on(cpus: &[usize]) -> Result<(), Refusal> {
    let mut wanted = CpuSet::new();
    cpus.iter().for_each(|&cpu| wanted.set(cpu));
    let set = sched_setaffinity(None, &wanted).and_then(|()| sched_getaffinity(None));
    let words = "name CPUs that are there and that this program may use";
    let got =
        set.map_err(|error| refusal(format!("cpu_affinity({cpus:?})"), &error.into(), words))?;
    // The kernel accepts a set of which it can grant only a part.
    let missing: Vec<usize> = cpus
        .iter()
        .copied()
        .filter(|&cpu| !got.is_set(cpu))
        .collect();
    match missing[..] {
        [] => Ok(()),
        _ => Err(Refusal {
            setting: format!("cpu_affinity({cpus:?})"),
            os_error: None,
            words: format!("the CPUs {missing:?} are not to be had; {words}"),
        }),
    }
}

fn be_nice(niceness: i32) -> Result<(), Refusal> {
    setpriority_process(None, niceness).map_err(|error| {
        let words = match getpriority_process(None) {
            Ok(now) => format!("it is {now}, and only a privileged process may have less"),
            Err(_) => "only a privileged process may be less nice than it is".into(),
        };
        refusal(format!("nice({niceness})"), &error.into(), words)
    })
}

/// Raises the OOM killer's score of this process, so that it is killed before its parent, unless
/// the configuration sets the score. The processes that it starts inherit it, and forked workers
/// have that of their fork server.
pub(super) fn volunteer_for_oom_killer(limits: &Limits) {
    if limits.oom_score_adj.is_some() {
        return;
    }
    // Without `/proc`, the score stays as it is.
    let _ = std::fs::write(OOM_SCORE_ADJ_FILE, OOM_SCORE_ADJ.to_string());
}

fn set_oom_score_adj(adjustment: i32) -> Result<(), Refusal> {
    std::fs::write(OOM_SCORE_ADJ_FILE, adjustment.to_string()).map_err(|error| {
        let words = "only a privileged process may lower it, and `/proc` must be mounted";
        refusal(format!("oom_score_adj({adjustment})"), &error, words)
    })
}

fn set_limit(resource: Resource, value: u64) -> io::Result<()> {
    let value = Some(value);
    let limit = Rlimit {
        current: value,
        maximum: value,
    };
    Ok(setrlimit(resource, limit)?)
}

fn limit_open_files(count: u32) -> Result<(), Refusal> {
    let setting = || format!("open_file_limit({count})");
    let open = descriptors::list().map_err(|error| {
        let words = "the open descriptors are counted in `/proc/self/fd`: mount `/proc`";
        refusal(setting(), &error, words)
    })?;
    set_limit(Resource::Nofile, limit_beside(&open, count)).map_err(|error| {
        let words = "only a privileged process may have more than its hard limit (`ulimit -Hn`), and none more than \
                     `/proc/sys/fs/nr_open` says";
        refusal(setting(), &error, words)
    })
}

/// Returns the lowest limit of descriptor numbers that leaves room for `count` more, since each new
/// descriptor takes the lowest free number. `open` is in ascending order.
fn limit_beside(open: &[RawFd], count: u32) -> u64 {
    let mut limit = u64::from(count);
    for &number in open {
        if u64::try_from(number).is_ok_and(|number| number < limit) {
            limit += 1;
        }
    }
    limit
}

fn limit_memory(bytes: u64) -> Result<(), Refusal> {
    let setting = || format!("memory_limit({bytes})");
    // The kernel would accept such a limit, and then refuse the first allocation.
    if let Some(held) = data_held()
        && held >= bytes
    {
        return Err(Refusal {
            setting: setting(),
            os_error: None,
            words: format!(
                "a new worker has {held} bytes already, what was preloaded included; allow it more than that"
            ),
        });
    }
    set_limit(Resource::Data, bytes).map_err(|error| {
        let words = "only a privileged process may have more than its hard limit, see `ulimit -Hd`";
        refusal(setting(), &error, words)
    })
}

/// The limit of CPU time for each job.
pub(super) struct CpuTime(Option<(CpuTimer, Duration)>);

impl CpuTime {
    fn new(limit: Option<Duration>) -> Result<Self, Refusal> {
        let Some(limit) = limit else {
            return Ok(Self(None));
        };
        let timer = CpuTimer::new().map_err(|error| {
            let words =
                "each worker needs two timers, which count as pending signals: see `ulimit -i`";
            refusal(format!("cpu_limit({limit:?})"), &error, words)
        })?;
        Ok(Self(Some((timer, limit))))
    }

    /// Runs a job under the limit.
    ///
    /// # Errors
    ///
    /// Fails if the limit cannot be set, because an earlier job or an init closure has deleted the
    /// timers. Then the job has not run.
    pub(super) fn limit<R>(&self, job: impl FnOnce() -> R) -> io::Result<R> {
        let Some((timer, limit)) = &self.0 else {
            return Ok(job());
        };
        timer.set(*limit)?;
        let result = job();
        interval_timer::disarm_deadly();
        // Neither a process that the job has forked nor a job that has deleted the timers has a
        // timer left to clear.
        let _ = timer.clear();
        Ok(result)
    }

    pub(super) fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the refusal for a limit that could not be set before the first job.
    pub(super) fn refusal(&self, error: &io::Error) -> Refusal {
        let limit = self.0.as_ref().map_or(Duration::ZERO, |(_, limit)| *limit);
        let words =
            "an `init` closure has deleted timers that it did not make, or forbidden their use";
        refusal(format!("cpu_limit({limit:?})"), error, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns how many descriptors with numbers below `limit` can still be opened.
    fn room(open: &[RawFd], limit: u64) -> u64 {
        let taken = open.iter().filter(|&&number| (number as u64) < limit);
        limit - taken.count() as u64
    }

    proptest! {
        #[test]
        fn the_limit_leaves_room_for_as_many_as_were_asked_for_and_not_one_more(
            open in prop::collection::btree_set(0..40, 0..20),
            count in 0u32..50,
        ) {
            let open: Vec<RawFd> = open.into_iter().collect();
            let limit = limit_beside(&open, count);
            prop_assert_eq!(room(&open, limit), u64::from(count));
            prop_assert!(limit == 0 || room(&open, limit - 1) < u64::from(count));
        }
    }
}
