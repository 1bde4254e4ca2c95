//! The tests of programs whose workers are forked, which libtest cannot run, as it has threads.

#![allow(dead_code)] // each test program uses its own part of this

use libtest_mimic::{Arguments, Trial};

/// The tests of a file, by their names.
pub type Suite = &'static [(&'static str, fn())];

/// Runs these modules' suites as the arguments say, and exits.
pub fn run(suites: &[(&'static str, Suite)]) -> ! {
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
    // Processes and descriptors are counted, so there is one test at a time.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials.collect()).exit()
}
