//! Benchmarks of seedbed, its peers and physical limits, measured in turn in one run.
//!
//! Absolute figures drift from machine to machine and from hour to hour. The ratio between two
//! contenders that were measured in turn in the same minute does not. So each line is a pair;
//! `README.md` explains each one.
//!
//! `measure` takes samples and knows no peer. Each section is a file that defines its contenders.
#![deny(unsafe_code)]

mod allocations;
mod bytes;
mod cancel;
mod channels;
mod child;
mod cold;
mod cpu;
mod delayed;
mod figures;
mod flat;
mod fork_server;
mod idle;
mod jobs;
mod kill;
mod launched;
mod mailbox;
mod map;
mod measure;
mod nursery;
mod options;
mod payload;
mod primitives;
mod report;
mod serve;
mod sockets;
mod throughput;
mod timers;
mod warm_call;

use std::process::ExitCode;

use options::Options;

/// Runs the sections that the command line selects. Also the hook of every child process that a
/// section starts.
pub fn main() -> ExitCode {
    // Children of the limits do not return from this call.
    serve::serve_if_asked();
    // Nor do workers of seedbed and procspawn from these.
    seedbed::init();
    procspawn::init();

    let options = match Options::from_command_line() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("seedbed-benches: {message}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    if options.help {
        println!("{}", options::USAGE);
        return ExitCode::SUCCESS;
    }
    if let Some(pins) = options.pins {
        // This process is pinned before it has threads or children, so that all of them inherit the
        // pin.
        child::pin_to_core(pins.caller);
        warm_call::compare(&options);
        return ExitCode::SUCCESS;
    }

    report::header();
    warm_call::compare(&options);
    warm_call::compare_pinned(&options);
    throughput::compare(&options);
    map::compare(&options);
    cold::compare(&options);
    kill::compare(&options);
    launched::compare(&options);
    payload::compare(&options);
    channels::compare(&options);
    delayed::compare(&options);
    idle::compare(&options);
    nursery::compare(&options);
    cancel::compare(&options);
    timers::compare(&options);
    primitives::compare(&options);
    allocations::compare(&options);
    report::footer();
    ExitCode::SUCCESS
}
