//! Takes samples of several contenders in turn, and compares their medians.
//!
//! A round measures every contender once, so that all meet the same conditions. The first round is
//! a warm-up and is discarded. Each round begins with another contender, so that none always runs
//! after the same one. The ratio compares the medians over all rounds; the quartiles of the ratios
//! within each round show how reliable it is.

use std::time::{Duration, Instant};

use crate::{
    figures::{Figures, Goal, Pair},
    options::Options,
    report::{self, Unit},
};

/// The samples that one contender takes in one round, each in nanoseconds per operation.
#[derive(Debug, Default)]
pub struct Samples {
    taken: Vec<f64>,
    wanted: usize,
}

impl Samples {
    /// Returns the number of samples that this round should take.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Returns whether that many samples have been taken.
    pub fn is_full(&self) -> bool {
        self.taken.len() >= self.wanted
    }

    /// Adds a sample: `operations` operations took `elapsed` together.
    pub fn record(&mut self, elapsed: Duration, operations: u64) {
        self.taken
            .push(elapsed.as_nanos() as f64 / operations as f64);
    }

    /// Measures `work` by the wall clock, and adds a sample of `operations` operations.
    pub async fn time<T>(&mut self, operations: u64, work: impl IntoFuture<Output = T>) -> T {
        let start = Instant::now();
        let value = work.await;
        self.record(start.elapsed(), operations);
        value
    }

    /// Measures `work` by the [CPU time of the thread](thread_time), and adds a sample.
    pub async fn thread_time<T>(
        &mut self,
        operations: u64,
        work: impl IntoFuture<Output = T>,
    ) -> T {
        let start = thread_time();
        let value = work.await;
        self.record(thread_time() - start, operations);
        value
    }

    /// Measures blocking `work` by the wall clock, and adds a sample.
    pub fn time_blocking<T>(&mut self, operations: u64, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        self.record(start.elapsed(), operations);
        value
    }
}

/// Returns the CPU time of this thread, which other processes do not add to. It suits work that
/// neither waits nor leaves its thread. Reading it takes a system call.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Returns the CPU time of all threads of this process.
pub fn process_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Takes one round of samples of one contender.
pub type Round<'a> = Box<dyn FnMut(&mut Samples) + 'a>;

/// A section of the report: seedbed compared with other contenders.
pub struct Comparison<'a> {
    section: String,
    ours: (String, Round<'a>),
    theirs: Vec<Theirs<'a>>,
    goal: Goal,
    unit: Unit,
    rounds: usize,
    samples: usize,
}

struct Theirs<'a> {
    name: String,
    round: Round<'a>,
    /// The target for the ratio.
    at_most: Option<f64>,
    /// This is another way to use seedbed, so seedbed's own goal applies to it too.
    is_ours: bool,
}

impl<'a> Comparison<'a> {
    /// Begins a comparison of `ours`, whose samples `round` takes, with the given numbers of rounds
    /// and of samples per round.
    pub fn new(
        section: impl Into<String>,
        (rounds, samples): (usize, usize),
        ours: impl Into<String>,
        round: impl FnMut(&mut Samples) + 'a,
    ) -> Comparison<'a> {
        Comparison {
            section: section.into(),
            ours: (ours.into(), Box::new(round)),
            theirs: Vec::new(),
            goal: Goal::default(),
            unit: Unit::Time,
            rounds,
            samples,
        }
    }

    /// Sets a target for seedbed's median. It applies to one kind of machine; on a slower one, only
    /// the ratios count.
    pub fn ours_within(mut self, at_most: Duration) -> Self {
        self.goal.median = Some(at_most.as_nanos() as f64);
        self
    }

    /// Sets a target for seedbed's 99th percentile.
    pub fn ours_p99_within(mut self, at_most: Duration) -> Self {
        self.goal.p99 = Some(at_most.as_nanos() as f64);
        self
    }

    /// Prints operations per second instead of time per operation. Ratios are still those of the
    /// times.
    pub fn per_second(mut self) -> Self {
        self.unit = Unit::Rate;
        self
    }

    /// Adds a contender.
    pub fn beside(self, name: &str, round: impl FnMut(&mut Samples) + 'a) -> Self {
        self.beside_within(None, name, round)
    }

    /// Adds a contender with a target for its ratio.
    pub fn beside_within(
        mut self,
        at_most: impl Into<Option<f64>>,
        name: &str,
        round: impl FnMut(&mut Samples) + 'a,
    ) -> Self {
        self.theirs.push(Theirs {
            name: name.to_owned(),
            round: Box::new(round),
            at_most: at_most.into(),
            is_ours: false,
        });
        self
    }

    /// Adds another way to use seedbed, to which seedbed's targets apply.
    pub fn beside_ours(mut self, name: &str, round: impl FnMut(&mut Samples) + 'a) -> Self {
        self.theirs.push(Theirs {
            name: name.to_owned(),
            round: Box::new(round),
            at_most: None,
            is_ours: true,
        });
        self
    }

    /// Measures the selected lines, and prints them.
    pub fn run(mut self, options: &Options) {
        self.theirs
            .retain(|theirs| options.wants(&self.section, &theirs.name));
        if self.theirs.is_empty() {
            return;
        }
        if options.quick {
            self.rounds = self.rounds.min(2);
            self.samples = self.samples.div_ceil(10);
        }
        report::section(&self.section);
        let mut contenders: Vec<&mut Round<'a>> = vec![&mut self.ours.1];
        contenders.extend(self.theirs.iter_mut().map(|theirs| &mut theirs.round));
        let measured = take_rounds(&mut contenders, self.rounds, self.samples);
        let ours = Figures::of(&measured[0].concat());
        report::ours(&self.ours.0, ours, self.goal, self.unit);
        for (theirs, samples) in self.theirs.iter().zip(&measured[1..]) {
            let goal = if theirs.is_ours {
                self.goal
            } else {
                Goal::default()
            };
            let pair = Pair::of(&measured[0], samples);
            report::line(&theirs.name, &pair, theirs.at_most, goal, self.unit);
        }
    }
}

/// Takes the samples of each contender in each round.
fn take_rounds(
    contenders: &mut [&mut Round<'_>],
    rounds: usize,
    wanted: usize,
) -> Vec<Vec<Vec<f64>>> {
    let mut measured = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for turn in 0..contenders.len() {
            let contender = (turn + round) % contenders.len();
            let mut samples = Samples {
                wanted,
                ..Samples::default()
            };
            contenders[contender](&mut samples);
            // Round 0 is the warm-up.
            if round > 0 {
                measured[contender].push(samples.taken);
            }
        }
    }
    measured
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_measures_every_contender_once_and_begins_with_another() {
        let order = std::cell::RefCell::new(Vec::new());
        let contender = |name: char| -> Round<'_> {
            let order = &order;
            Box::new(move |samples| {
                order.borrow_mut().push(name);
                (0..samples.wanted()).for_each(|_| samples.record(Duration::from_nanos(6), 2));
            })
        };
        let (mut a, mut b) = (contender('a'), contender('b'));
        let measured = take_rounds(&mut [&mut a, &mut b], 2, 3);
        assert_eq!(measured, [[[3.0; 3]; 2], [[3.0; 3]; 2]]);
        assert_eq!(order.borrow().iter().collect::<String>(), "abbaab");
    }
}
