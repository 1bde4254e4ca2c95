//! The unit tests of the survey example's pure parts.
//!
//! The tests are in the files of the example. Cargo either builds an example, which
//! `tests/survey.rs` needs, or tests it, but not both. So this file compiles its modules again,
//! with their tests.

#![cfg(test)]
// Without the example's `main`, some items are unused.
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
