//! The rule of learned limits (pure): what a limit is, given what earlier jobs have taken.

use std::time::Duration;

use crate::delayed::tuning::{
    JOBS_BEFORE_LIMIT, LEARNED_DEVIATIONS, LEAST_LEARNED_MEMORY, LEAST_LEARNED_TIME,
};

/// The number, the mean and the spread of what jobs have taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    count: u32,
    mean: f64,
    /// The sum of the squares of the differences from the mean.
    squares: f64,
    max: f64,
}

impl Sample {
    /// Adds what one more job has taken (Welford's method).
    pub(super) fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let difference = value - self.mean;
        self.mean += difference / f64::from(self.count);
        self.squares += difference * (value - self.mean);
        self.max = self.max.max(value);
    }

    /// Returns the mean plus this many standard deviations. `None` before enough jobs have ended.
    fn above_mean(&self, deviations: f64) -> Option<f64> {
        if self.count < JOBS_BEFORE_LIMIT {
            return None;
        }
        let variance = self.squares / f64::from(self.count - 1);
        Some(self.mean + deviations * variance.max(0.0).sqrt())
    }
}

/// Returns the time limit, given the times in seconds.
pub(super) fn time_limit(times: &Sample) -> Option<Duration> {
    let limit = times.above_mean(LEARNED_DEVIATIONS)?;
    // Times that are all alike say little about the next one.
    let limit = limit.max(2.0 * times.mean);
    Some(seconds(limit).max(LEAST_LEARNED_TIME))
}

/// Returns the time that a job is expected to take at most, given the times in seconds.
pub(super) fn expected_time(times: &Sample) -> Option<Duration> {
    times.above_mean(2.0).map(seconds)
}

/// Returns the amount of memory in bytes, given the peaks in bytes.
pub(super) fn memory(peaks: &Sample) -> Option<u64> {
    let amount = peaks.above_mean(LEARNED_DEVIATIONS)?;
    let amount = amount.max(1.25 * peaks.max);
    // The conversion keeps what is too large at the greatest number.
    Some((amount.ceil() as u64).max(LEAST_LEARNED_MEMORY))
}

fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(values: &[f64]) -> Sample {
        let mut sample = Sample::default();
        values.iter().for_each(|value| sample.add(*value));
        sample
    }

    /// The mean and the standard deviation, computed in two passes.
    fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (mean, (squares / (count - 1.0)).sqrt())
    }

    #[test]
    fn there_is_no_limit_before_enough_jobs_have_ended() {
        for count in 0..JOBS_BEFORE_LIMIT as usize {
            let sample = sample(&vec![20.0; count]);
            assert_eq!(time_limit(&sample), None);
            assert_eq!(expected_time(&sample), None);
            assert_eq!(memory(&sample), None);
        }
    }

    #[test]
    fn jobs_that_are_all_alike_may_take_twice_as_long_and_a_quarter_more_memory() {
        let alike = sample(&[100.0; 8]);
        assert_eq!(time_limit(&alike), Some(Duration::from_secs(200)));
        assert_eq!(expected_time(&alike), Some(Duration::from_secs(100)));
        let large = sample(&[8e9; 8]);
        assert_eq!(memory(&large), Some(10_000_000_000));
    }

    #[test]
    fn short_and_small_jobs_have_the_least_limits() {
        let small = sample(&[0.001; 8]);
        assert_eq!(time_limit(&small), Some(LEAST_LEARNED_TIME));
        assert_eq!(memory(&small), Some(LEAST_LEARNED_MEMORY));
    }

    #[test]
    fn numbers_that_are_too_large_are_the_greatest_limit() {
        let huge = sample(&[1e300; 8]);
        assert_eq!(time_limit(&huge), Some(Duration::MAX));
        assert_eq!(memory(&huge), Some(u64::MAX));
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(0.0..1e6_f64, 8..200)
    }

    proptest! {
        #[test]
        fn a_limit_is_the_mean_and_five_deviations_or_twice_the_mean(values in values()) {
            let (mean, deviation) = mean_and_deviation(&values);
            let expected = (mean + 5.0 * deviation).max(2.0 * mean).max(10.0);
            let limit = time_limit(&sample(&values)).unwrap().as_secs_f64();
            prop_assert!((limit - expected).abs() <= 1e-6 * expected, "{limit} {expected}");
        }

        #[test]
        fn memory_covers_each_peak_with_a_quarter_to_spare(values in values()) {
            let peaks: Vec<f64> = values.iter().map(|value| value * 1e6).collect();
            let amount = memory(&sample(&peaks)).unwrap();
            for peak in peaks {
                prop_assert!(amount as f64 >= 1.25 * peak);
            }
        }

        #[test]
        fn the_order_of_jobs_does_not_matter(values in values(), seed: u64) {
            let mut shuffled = values.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            let limits = [values, shuffled].map(|values| time_limit(&sample(&values)).unwrap());
            let [one, other] = limits.map(|limit| limit.as_secs_f64());
            prop_assert!((one - other).abs() <= 1e-6 * one);
        }
    }
}
