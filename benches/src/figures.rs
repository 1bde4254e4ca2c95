//! Medians, percentiles and ratios of samples.

/// Targets for seedbed's own figures, in nanoseconds, that do not depend on a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Goal {
    pub median: Option<f64>,
    pub p99: Option<f64>,
}

/// The result of measuring two contenders in turn.
#[derive(Debug, PartialEq)]
pub struct Pair {
    pub ours: Figures,
    pub theirs: Figures,
    /// Ours divided by theirs: below one, ours is less.
    pub ratio: f64,
    /// The lower and the upper quartile of the ratios within each round.
    pub ratio_quartiles: (f64, f64),
}

impl Pair {
    pub fn of(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> Pair {
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

/// Median and 99th percentile of samples, in nanoseconds. Of fewer than a hundred samples, the
/// percentile is the maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    pub median: f64,
    pub p99: f64,
}

impl Figures {
    pub fn of(samples: &[f64]) -> Figures {
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

/// Returns the nearest-rank quantile of sorted samples.
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
}
