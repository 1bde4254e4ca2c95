//! Runs the tests of programs with a fork server. libtest cannot: it starts threads before the hook
//! is reached.

#![allow(dead_code)] // each test program uses its own part of this

use libtest_mimic::{Arguments, Trial};

/// The names and functions of a file's tests.
pub type Suite = &'static [(&'static str, fn())];

/// Runs the tests of these modules that the program's arguments select, and exits.
pub fn run(suites: &[(&'static str, Suite)]) -> ! {
    if cfg!(target_env = "musl") {
        println!("skipped: with musl, forking is not safe");
        std::process::exit(0);
    }
    super::dispositions::reset();
    super::stage::before_the_hook();
    seedbed::init();
    let trials = suites.iter().flat_map(|&(module, suite)| {
        suite.iter().map(move |&(name, test)| {
            Trial::test(format!("{module}::{name}"), move || {
                test();
                Ok(())
            })
        })
    });
    // Tests count processes and descriptors, so only one runs at a time.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials.collect()).exit()
}
