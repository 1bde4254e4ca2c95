//! The unit tests of the survey example's pure parts.
//!
//! They live in the example, beside what they test. Cargo either builds an example, which `tests/survey.rs` needs, or
//! tests it, but not both; so its modules are compiled here once more for their tests.

#![cfg(test)]
// The survey itself is not here, and so not everything is used.
#![allow(dead_code)]

#[path = "../examples/survey/cli.rs"]
mod cli;
#[path = "../examples/survey/find.rs"]
mod find;
#[path = "../examples/survey/ledger.rs"]
mod ledger;
#[path = "../examples/survey/measure.rs"]
mod measure;
#[path = "../examples/survey/reason.rs"]
mod reason;
#[path = "../examples/survey/report.rs"]
mod report;
