//! Takes samples of several contenders in turn, and compares their medians.
//!
//! A round measures every contender once, so that all meet the same weather; the first round only warms up and is
//! thrown away; each round begins with another contender, so that nobody always runs after the same neighbour. The
//! ratio is that of the medians over all rounds; beside it stand the quartiles of the rounds' own ratios, which say
//! how far to trust it.

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
    /// How many samples this round should take.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Says whether that many have been taken.
    pub fn is_full(&self) -> bool {
        self.taken.len() >= self.wanted
    }

    /// Adds a sample: `operations` of them took `elapsed` together.
    pub fn record(&mut self, elapsed: Duration, operations: u64) {
        self.taken
            .push(elapsed.as_nanos() as f64 / operations as f64);
    }

    /// Adds a sample that is `operations` long: what polling `work` to its end takes.
    pub async fn time<T>(&mut self, operations: u64, work: impl IntoFuture<Output = T>) -> T {
        let start = Instant::now();
        let value = work.await;
        self.record(start.elapsed(), operations);
        value
    }

    /// Like [`time`](Samples::time), by the [time of the thread](thread_time).
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

    /// Like [`time`](Samples::time), for work that blocks.
    pub fn time_blocking<T>(&mut self, operations: u64, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        self.record(start.elapsed(), operations);
        value
    }
}

/// The processor's time that this thread has used: what a busy machine does not add to. Right for work that neither waits
/// nor leaves its thread; asking takes a system call.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The processor's time that all threads of this process have used.
pub fn process_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Takes one round of samples of one thing.
pub type Round<'a> = Box<dyn FnMut(&mut Samples) + 'a>;

/// One thing compared with others: a section of the report.
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
    /// What the ratio should not exceed.
    at_most: Option<f64>,
    /// This is another way of using seedbed, for which our own goal holds too.
    is_ours: bool,
}

impl<'a> Comparison<'a> {
    /// Begins a comparison of `ours`, whose samples `round` takes, in the given number of rounds and of samples each.
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

    /// Sets a target for our own median. It is stated for one kind of machine: on a slower one, the ratios count.
    pub fn ours_within(mut self, at_most: Duration) -> Self {
        self.goal.median = Some(at_most.as_nanos() as f64);
        self
    }

    /// The same for our 99th percentile.
    pub fn ours_p99_within(mut self, at_most: Duration) -> Self {
        self.goal.p99 = Some(at_most.as_nanos() as f64);
        self
    }

    /// Prints how many operations there are in a second, and not how long one takes. Ratios stay those of the times.
    pub fn per_second(mut self) -> Self {
        self.unit = Unit::Rate;
        self
    }

    /// Adds a contender.
    pub fn beside(self, name: &str, round: impl FnMut(&mut Samples) + 'a) -> Self {
        self.beside_within(None, name, round)
    }

    /// Adds a contender for whose ratio there is a target.
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

    /// Adds another way of using seedbed, which should reach what was set for ours.
    pub fn beside_ours(mut self, name: &str, round: impl FnMut(&mut Samples) + 'a) -> Self {
        self.theirs.push(Theirs {
            name: name.to_owned(),
            round: Box::new(round),
            at_most: None,
            is_ours: true,
        });
        self
    }

    /// Measures the lines that are asked for, and prints them.
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
            let goal = match theirs.is_ours {
                true => self.goal,
                false => Goal::default(),
            };
            let pair = Pair::of(&measured[0], samples);
            report::line(&theirs.name, &pair, theirs.at_most, goal, self.unit);
        }
    }
}

/// Takes the samples: for each contender, those of each round.
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
