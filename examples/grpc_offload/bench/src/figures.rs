//! Medians and quartiles.

/// Returns the value below which this share of the values is. There must be at least one.
pub fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let position = share * (values.len() - 1) as f64;
    let (below, above) = (values[position as usize], values[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(values), 2.5);
        assert_eq!(quantile(values, 0.25), 1.75);
        assert_eq!(quantile(values, 1.0), 4.0);
        assert_eq!(median([7.0]), 7.0);
    }
}
