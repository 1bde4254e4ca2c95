//! Takes samples of several contenders in turn, and compares their medians.
//!
//! A round measures every contender once, so that all meet the same weather; the first round only warms up and is
//! thrown away; each round begins with another contender, so that nobody always runs after the same neighbour. The
//! ratio is that of the medians over all rounds; beside it stand the quartiles of the rounds' own ratios, which say
//! how far to trust it.

use std::time::{Duration, Instant};

use crate::{
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

/// What our own figures should not exceed, in nanoseconds, where that does not depend on a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Goal {
    pub median: Option<f64>,
    pub p99: Option<f64>,
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

/// The outcome of measuring two things in turn.
#[derive(Debug, PartialEq)]
pub struct Pair {
    pub ours: Figures,
    pub theirs: Figures,
    /// Ours divided by theirs: below one, ours is less.
    pub ratio: f64,
    /// The lower and the upper quartile of the same ratio within each round.
    pub ratio_quartiles: (f64, f64),
}

impl Pair {
    fn of(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> Pair {
        let by_round = sorted(
            ours.iter()
                .zip(theirs)
                .map(|(ours, theirs)| Figures::of(ours).median / Figures::of(theirs).median),
        );
        let (ours, theirs) = (Figures::of(&ours.concat()), Figures::of(&theirs.concat()));
        Pair {
            ours,
            theirs,
            ratio: ours.median / theirs.median,
            ratio_quartiles: (quantile(&by_round, 0.25), quantile(&by_round, 0.75)),
        }
    }
}

/// Median and 99th percentile of samples, in nanoseconds; of fewer than a hundred samples, the latter is the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    pub median: f64,
    pub p99: f64,
}

impl Figures {
    fn of(samples: &[f64]) -> Figures {
        let samples = sorted(samples.iter().copied());
        Figures {
            median: quantile(&samples, 0.5),
            p99: quantile(&samples, 0.99),
        }
    }
}

fn sorted(samples: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut samples: Vec<f64> = samples.collect();
    samples.sort_by(f64::total_cmp);
    samples
}

/// The nearest-rank quantile of sorted samples.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_that_occurred() {
        let samples: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(
            Figures::of(&samples),
            Figures {
                median: 100.0,
                p99: 198.0
            }
        );
        assert_eq!(
            Figures::of(&[3.0, 1.0, 2.0]),
            Figures {
                median: 2.0,
                p99: 3.0
            }
        );
        assert_eq!(
            Figures::of(&[7.0]),
            Figures {
                median: 7.0,
                p99: 7.0
            }
        );
    }

    #[test]
    fn the_ratio_is_that_of_the_medians_and_its_range_that_of_the_rounds() {
        let ours = [vec![10.0], vec![20.0], vec![30.0], vec![40.0]];
        let theirs = [vec![10.0], vec![10.0], vec![10.0], vec![10.0]];
        let pair = Pair::of(&ours, &theirs);
        assert_eq!((pair.ratio, pair.ratio_quartiles), (2.0, (1.0, 3.0)));
    }

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
