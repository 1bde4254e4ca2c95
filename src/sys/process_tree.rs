//! Kills all descendants of a process, however they have detached themselves from it.
//!
//! The process is a child subreaper, so a descendant whose parent ends becomes its child. Neither
//! `setsid` nor a double fork leads out of its tree while it lives. The descendants are found by
//! the lists of children in `/proc`. First each one is stopped, until a scan finds no new one: a
//! process with a pending stop signal cannot fork. Then they are killed, until two scans find none
//! that lives. (A list may lack a child if another one is reaped while it is read; an empty list is
//! exact.)
//!
//! A number may be given to another process between the scan and the signal. So each signal goes
//! through a pidfd, which is opened first; then the process's parent is read, and after that the
//! parent's start time. If that has not changed, the number has named the same parent all along,
//! and the process is its child.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::proc_file;
use super::process::{Number, Pidfd, reap_all_children};
use super::tuning::{KILL_TIMEOUT, SCAN_INTERVAL, STOP_TIMEOUT};

/// The end of a process's descendants, which takes several scans.
#[derive(Debug)]
pub(crate) struct DescendantKiller {
    root: Identity,
    /// The root is this process, which cannot stop itself.
    root_is_self: bool,
    since: Instant,
    is_killing: bool,
    stopped: HashSet<Identity>,
    /// The last scan found no descendant that lives.
    found_none: bool,
}

/// A process, told from others that have the same number at other times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) pid: u32,
    /// In clock ticks since the system was started.
    pub(super) start_time: u64,
}

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    state: u8,
    parent: u32,
    pub(super) group: u32,
    pub(super) start_time: u64,
}

impl DescendantKiller {
    /// Begins with a child of this process, which is stopped. `None` if the child has ended, so
    /// that it has no descendants.
    pub(crate) fn of_child(root: &Pidfd) -> io::Result<Option<Self>> {
        root.send(Signal::STOP)?;
        let this = Self::new(root.pid(), false)?;
        // Not ended after its start time was read, so that is not the start time of another
        // process.
        Ok((!root.has_ended()).then_some(this))
    }

    /// Begins with the descendants of this process.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        Self::new(std::process::id(), true)
    }

    fn new(pid: u32, root_is_self: bool) -> io::Result<Self> {
        // Some kernels are built without these lists.
        std::fs::metadata("/proc/thread-self/children")?;
        let start_time = Stat::read(pid)?.start_time;
        Ok(Self {
            root: Identity { pid, start_time },
            root_is_self,
            since: Instant::now(),
            is_killing: false,
            stopped: HashSet::new(),
            found_none: false,
        })
    }

    /// Scans once and sends signals. Returns whether no descendant is left, or the time is over.
    pub(crate) fn step(&mut self) -> bool {
        let is_over = self.since.elapsed() > KILL_TIMEOUT;
        let has_ended = match self.scan() {
            Ok(ended) => ended,
            // The root has been reaped, so its descendants are another process's children now.
            Err(error) if is_gone(&error) => true,
            // Without room for a descriptor, a later scan sees more.
            Err(_) => false,
        };
        if has_ended || is_over {
            self.kill_stopped();
        }
        has_ended || is_over
    }

    /// Runs steps without a pause until one of them has sent SIGKILL to all descendants that it
    /// found, or `limit` is over. Returns whether no descendant is left. None is left that is only
    /// stopped.
    pub(crate) fn step_until_killed(&mut self, limit: Duration) -> bool {
        loop {
            let kills = self.is_killing;
            if self.step() {
                return true;
            }
            if kills || self.since.elapsed() > limit {
                // The last step has not found the children of a process that it killed, if they
                // were given to another process before it listed them.
                self.kill_stopped();
                return false;
            }
        }
    }

    /// Kills every process that was stopped and still exists, so that none stays stopped.
    fn kill_stopped(&self) {
        for process in &self.stopped {
            let pidfd = Number::new(process.pid).and_then(|number| number.open().ok());
            // The pidfd is opened first: if the number names the same process afterwards, then so
            // does the pidfd.
            if let Some(pidfd) = pidfd
                && Stat::read(process.pid).is_ok_and(|stat| stat.start_time == process.start_time)
            {
                let _ = pidfd.send(Signal::KILL); // it may have ended, or changed its user
            }
        }
    }

    /// Runs all steps, and sleeps between them. Reaps all children of this process then, which is
    /// about to exit, because a parent that adopts them might not.
    pub(crate) fn run(mut self) {
        while !self.step() {
            std::thread::sleep(SCAN_INTERVAL);
        }
        if self.root_is_self {
            reap_all_children();
        }
    }

    /// Returns the processes that were killed.
    pub(super) fn into_killed(self) -> HashSet<Identity> {
        self.stopped
    }

    fn scan(&mut self) -> io::Result<bool> {
        self.is_killing |= self.since.elapsed() > STOP_TIMEOUT;
        let root = Stat::read(self.root.pid)?;
        if root.start_time != self.root.start_time {
            return Ok(true); // the root has been reaped, and its descendants are another process's
        }
        let mut all_stopped = self.root_is_self || root.is_stopped();
        let mut none_new = true;
        let mut listed = 0;
        let mut tree = vec![self.root];
        let mut next = 0;
        while let Some(&parent) = tree.get(next) {
            next += 1;
            for pid in children_of(parent.pid)? {
                listed += 1;
                let Some((process, stat)) = self.signal_if_child(pid, parent)? else {
                    continue;
                };
                all_stopped &= stat.is_stopped();
                none_new &= !self.stopped.insert(process);
                tree.push(process);
            }
        }
        let none_alive = tree.len() == 1;
        // All that this scan found had a pending stop signal before it began.
        self.is_killing |= none_new;
        let has_found_none = std::mem::replace(&mut self.found_none, none_alive);
        Ok(all_stopped && none_alive && (has_found_none || listed == 0))
    }

    /// Signals the process with this number if it lives and is a child of `parent` or of the root.
    fn signal_if_child(&self, pid: u32, parent: Identity) -> io::Result<Option<(Identity, Stat)>> {
        let Some((process, pidfd, stat)) = self.find_child(pid, parent)? else {
            return Ok(None);
        };
        let signal = if self.is_killing {
            Signal::KILL
        } else {
            Signal::STOP
        };
        // A process that has changed its user may not be signalled, and stays.
        let _ = pidfd.send(signal);
        Ok(Some((process, stat)))
    }

    /// Opens the process with this number if it lives and is a child of `parent`, or of the root,
    /// to which it may have been given since the scan.
    fn find_child(
        &self,
        pid: u32,
        parent: Identity,
    ) -> io::Result<Option<(Identity, Pidfd, Stat)>> {
        let look = || {
            let pidfd = Number::new(pid).ok_or(io::ErrorKind::NotFound)?.open()?;
            let stat = Stat::read(pid)?;
            let parent = if stat.parent == self.root.pid {
                self.root
            } else {
                parent
            };
            let is_child = stat.parent == parent.pid
                && Stat::read(parent.pid)?.start_time == parent.start_time;
            // A process lives on if only its first thread has ended, which makes its state that of
            // a zombie.
            Ok((is_child && !pidfd.has_ended()).then_some((pidfd, stat)))
        };
        match look() {
            Ok(None) => Ok(None),
            Ok(Some((pidfd, stat))) => {
                let start_time = stat.start_time;
                Ok(Some((Identity { pid, start_time }, pidfd, stat)))
            }
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Opens the descendants that a child of this process has at the moment, as far as they can be
/// found and opened.
pub(crate) fn descendants_of(root: &Pidfd) -> Vec<Pidfd> {
    let mut found = Vec::new();
    let Ok(finder) = DescendantKiller::new(root.pid(), false) else {
        return found;
    };
    if root.has_ended() {
        return found; // the start time may be that of another process
    }
    let mut tree = vec![finder.root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        next += 1;
        for pid in children_of(parent.pid).unwrap_or_default() {
            if let Ok(Some((process, pidfd, _))) = finder.find_child(pid, parent)
                && !tree.contains(&process)
            {
                tree.push(process);
                found.push(pidfd);
            }
        }
    }
    found
}

impl Stat {
    pub(super) fn read(pid: u32) -> io::Result<Self> {
        let text = proc_file::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The name in parentheses may hold anything, so the fields are counted from its end.
        let name_end = text.iter().rposition(|&byte| byte == b')')?;
        let fields = std::str::from_utf8(&text[name_end + 1..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        Some(Stat {
            state: *fields.next()?.as_bytes().first()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            start_time: fields.nth(16)?.parse().ok()?,
        })
    }

    /// Whether the first thread is stopped, traced, or ended.
    fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't' | b'Z' | b'X')
    }
}

/// Returns the numbers of a process's children, zombies included. A process that is gone has none.
pub(super) fn children_of(pid: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    let threads = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) if is_gone(&error) => return Ok(children),
        threads => threads?,
    };
    for thread in threads {
        match std::fs::read_to_string(thread?.path().join("children")) {
            Ok(list) => children.extend(list.split_ascii_whitespace().flat_map(str::parse::<u32>)),
            // The thread has ended, and left its children to another one.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

/// Whether the error says that there is no such process.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::ChildStatus;

    #[test]
    fn the_fields_behind_any_name_are_read() {
        let text = b"7 (a) R (b) ) S 4 7 7 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 4711 9 9";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_time), (b'S', 4, 4711));
        assert_eq!(stat.group, 7);
        assert_eq!(Stat::parse(b"7 (a"), None);
        assert_eq!(Stat::parse(b"7 (a) S 4"), None);
    }

    #[test]
    fn a_process_is_among_its_parents_children() {
        let parent = std::os::unix::process::parent_id();
        assert!(children_of(parent).unwrap().contains(&std::process::id()));
        assert_eq!(Stat::read(std::process::id()).unwrap().parent, parent);
    }

    #[test]
    fn a_tree_is_killed_and_its_root_is_stopped() {
        use std::io::{Read, pipe};
        use std::process::Command;
        let (mut output, input) = pipe().unwrap();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "(sleep 60 & sleep 60) & echo; wait"])
            .stdout(input);
        let root = Pidfd::of(shell.spawn().unwrap()).unwrap();
        drop(shell);
        output.read_exact(&mut [0]).unwrap();
        let mut killer = DescendantKiller::of_child(&root).unwrap().unwrap();
        while !killer.step() {
            std::thread::sleep(SCAN_INTERVAL);
        }
        assert!(Stat::read(root.pid()).unwrap().is_stopped());
        root.kill().unwrap();
        assert_eq!(
            output.read(&mut [0]).unwrap(),
            0,
            "no process holds the pipe"
        );
        while root.try_reap(false).unwrap() == ChildStatus::Running {
            std::thread::yield_now();
        }
    }

    #[test]
    fn descendants_are_killed_and_not_only_stopped_when_the_first_steps_end() {
        use std::io::{Read, pipe};
        use std::process::Command;
        let (mut output, input) = pipe().unwrap();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "(setsid sleep 60 & sleep 60) & echo; wait"])
            .stdout(input);
        let root = Pidfd::of(shell.spawn().unwrap()).unwrap();
        drop(shell);
        output.read_exact(&mut [0]).unwrap();
        let mut killer = DescendantKiller::of_child(&root).unwrap().unwrap();
        killer.step_until_killed(KILL_TIMEOUT);
        // No further step follows, as in a program that exits now.
        root.kill().unwrap();
        assert_eq!(
            output.read(&mut [0]).unwrap(),
            0,
            "no stopped process holds the pipe"
        );
        while root.try_reap(false).unwrap() == ChildStatus::Running {
            std::thread::yield_now();
        }
    }
}
