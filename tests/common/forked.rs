//! Runs the tests of programs with a fork server. libtest cannot: it starts threads before the hook
//! is reached.

#![allow(dead_code)] // each test program uses its own part of this

use std::process::{Command, Stdio};

use libtest_mimic::{Arguments, Trial};

/// The names and functions of a file's tests.
pub type Suite = &'static [(&'static str, fn())];

/// The argument of a process that runs a share of the tests: followed by its number and, after a
/// slash, the number of shares.
const SHARE: &str = "--share=";

/// Runs the tests of these modules that the program's arguments select, and exits.
///
/// Tests count processes and descriptors, so only one runs at a time in a process. Without
/// arguments, several processes run a share of the tests each.
pub fn run(suites: &[(&'static str, Suite)]) -> ! {
    if cfg!(target_env = "musl") {
        println!("skipped: with musl, forking is not safe");
        std::process::exit(0);
    }
    super::dispositions::reset();
    super::stage::before_the_hook();
    let shares = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    if std::env::args_os().len() == 1 && shares > 1 && !is_worker() {
        run_in_shares(shares);
    }
    seedbed::init();
    let trials = suites.iter().flat_map(|&(module, suite)| {
        suite.iter().map(move |&(name, test)| {
            Trial::test(format!("{module}::{name}"), move || {
                test();
                Ok(())
            })
        })
    });
    let (mut arguments, trials) = match share() {
        None => (Arguments::from_args(), trials.collect()),
        Some((number, shares)) => {
            let trials = trials.skip(number).step_by(shares);
            (Arguments::default(), trials.collect())
        }
    };
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit()
}

fn is_worker() -> bool {
    std::env::var_os("SEEDBED_WORKER").is_some()
}

/// Returns the number of this process's share, and how many there are.
fn share() -> Option<(usize, usize)> {
    let argument = std::env::args().nth(1)?;
    let (number, shares) = argument.strip_prefix(SHARE)?.split_once('/')?;
    Some((number.parse().ok()?, shares.parse().ok()?))
}

/// Runs the tests in this many processes at once, prints what they print, one after the other, and
/// exits.
fn run_in_shares(shares: usize) -> ! {
    let program = std::env::current_exe().expect("a test knows its own file");
    let processes: Vec<_> = (0..shares)
        .map(|number| {
            let mut command = Command::new(&program);
            command.arg(format!("{SHARE}{number}/{shares}"));
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let process = command.spawn().expect("this program can be started");
            std::thread::spawn(|| process.wait_with_output())
        })
        .collect();
    let mut failed = false;
    for process in processes {
        let output = process
            .join()
            .expect("the thread does not panic")
            .expect("the output can be read");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        failed |= !output.status.success();
    }
    std::process::exit(i32::from(failed))
}
