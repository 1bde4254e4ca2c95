//! Tests that run parts of this program, *scenarios*, each on the main thread of a process of its
//! own. (libtest would run them on another thread, among other threads.)

#![allow(dead_code)] // each test program uses its own part of this

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The environment variable that holds the name of the scenario, and what follows a colon for it.
const SCENARIO: &str = "SEEDBED_TEST_SCENARIO";

/// The exit code of a scenario that has returned.
pub const RETURNED: i32 = 3;
/// The exit code of a scenario that this system does not allow.
pub const NOT_ALLOWED: i32 = 77;
/// The longest time that a scenario may take, only to fail instead of hanging.
const BOUND: Duration = Duration::from_secs(30);

/// Functions with their names.
pub type Named = &'static [(&'static str, fn())];

macro_rules! names {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}

/// Runs a scenario, if this process was started for one, or else the tests.
pub fn main(tests: Named, scenarios: Named) -> ! {
    super::dispositions::reset();
    if let Ok(name) = std::env::var(SCENARIO) {
        let (name, _) = name.split_once(':').unwrap_or((&name, ""));
        let find = scenarios.iter().find(|(known, _)| *known == name);
        let (_, scenario) = find.expect("the name of a scenario");
        scenario();
        std::process::exit(RETURNED);
    }
    let trials = tests.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit()
}

pub fn scenario(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(SCENARIO, name);
    command
}

/// Returns the part after the colon in the name of this process's scenario.
pub fn argument() -> String {
    let name = std::env::var(SCENARIO).unwrap();
    name.split_once(':').unwrap().1.to_owned()
}

/// Waits until a process has ended, without reaping it. Returns false if it does not.
pub fn ends_within_bound(pid: Pid) -> bool {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let bound = Timespec::try_from(BOUND).unwrap();
    let mut ends = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut ends, Some(&bound)).unwrap() > 0
}

/// Waits for the end of a scenario, and fails if it hangs.
pub fn end_of(mut child: Child) -> ExitStatus {
    let pid = Pid::from_child(&child);
    let hangs = !ends_within_bound(pid);
    if hangs {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert!(!hangs, "the scenario hangs");
    status
}

/// Runs a scenario. Returns its end and what it printed.
pub fn outcome(name: &str) -> (ExitStatus, String) {
    let mut child = scenario(name).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let status = end_of(child);
    let mut printed = String::new();
    stdout.read_to_string(&mut printed).unwrap();
    (status, printed)
}
