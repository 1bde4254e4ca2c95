//! Code that has nothing to do with delayed values compiles although they are linked: operators
//! whose types the compiler has to infer.
//!
//! `impl<U> Add<Delayed<U>> for f64 where f64: Add<U>` would make the first function fail with
//! E0275, "overflow evaluating the requirement `f64: Add<Delayed<_>>`".

use seedbed::delayed::{Delayed, delayed_val};

struct Operator(Box<dyn Fn(f64, f64) -> f64>);

fn operators() -> Vec<Operator> {
    vec![
        Operator(Box::new(|x, y| x + y)),
        Operator(Box::new(|x, y| 2.0 * x - y / 3.0)),
    ]
}

fn sum_of_squares(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>() + values.iter().fold(0.0, |sum, x| sum + x)
}

fn bits(values: &[u64]) -> u64 {
    values.iter().fold(1, |all, value| (all << 1) | (value & 1))
}

/// Literals take the type of the delayed value.
fn literals(a: Delayed<f64>, f: Delayed<f32>, n: Delayed<u64>, flag: Delayed<bool>) {
    let _: Delayed<f64> = 2.0 * &a + 1.0 - &a / 3.0;
    let _: Delayed<f32> = f * 2.0;
    let _: Delayed<u64> = ((&n << 2u32) | 1) % 7 + 2 * n;
    let _: Delayed<bool> = flag & true;
}

/// A type of another crate, with operators of its own.
#[derive(Clone)]
struct Meters(f64);

impl std::ops::Mul<f64> for Meters {
    type Output = Meters;
    fn mul(self, factor: f64) -> Meters {
        Meters(self.0 * factor)
    }
}

impl std::ops::Mul<Meters> for f64 {
    type Output = Meters;
    fn mul(self, length: Meters) -> Meters {
        length * self
    }
}

fn main() {
    assert_eq!((operators()[0].0)(1.0, 2.0), 3.0);
    assert_eq!(sum_of_squares(&[1.0, 2.0]), 8.0);
    assert_eq!(bits(&[1, 0]), 6);
    literals(delayed_val(1.0), delayed_val(1.0), delayed_val(1), delayed_val(true));
    let _: Delayed<Meters> = delayed_val(Meters(1.0)) * 2.0;
    let _: Delayed<Meters> = delayed_val(2.0) * delayed_val(Meters(1.0));
}
