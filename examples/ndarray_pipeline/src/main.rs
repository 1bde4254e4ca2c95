//! A pipeline over arrays: worker processes make and reduce blocks of a matrix, and ordinary
//! operators combine the results, which are not there yet.
//!
//! Run it with `cargo run --release -p ndarray_pipeline`.

use ndarray::{Array1, Array2, Axis};
use seedbed::delayed::{Cores, Delayed, JobError, Memory, Setup, each, try_open};

/// The number of blocks, and the rows and columns of each.
const BLOCKS: u64 = 12;
const ROWS: usize = 2_000;
const COLUMNS: usize = 40;

/// Makes a block of points that scatter around a line.
fn measure(seed: u64) -> Array2<f64> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let mut points = Array2::zeros((ROWS, COLUMNS));
    for mut point in points.axis_iter_mut(Axis(0)) {
        let along = 10.0 * random();
        for (column, coordinate) in point.iter_mut().enumerate() {
            *coordinate = 3.0 + along * (column as f64 + 1.0) / COLUMNS as f64 + random();
        }
    }
    points
}

/// Returns the sums of the columns, and of their products with each other.
fn moments(points: Array2<f64>) -> (Array1<f64>, Array2<f64>) {
    (points.sum_axis(Axis(0)), points.t().dot(&points))
}

/// Finds the direction in which the points vary most, by power iteration.
fn main_direction(covariance: Array2<f64>) -> Array1<f64> {
    let mut direction = Array1::ones(covariance.nrows());
    for _ in 0..200 {
        direction = covariance.dot(&direction);
        let length = direction.dot(&direction).sqrt();
        direction /= length;
    }
    direction
}

/// Returns the products of the elements with each other.
fn products(vector: Array1<f64>) -> Array2<f64> {
    let column = vector.view().insert_axis(Axis(1));
    column.dot(&column.t())
}

async fn pipeline(setup: Setup) -> Result<(Array1<f64>, Array1<f64>), JobError> {
    try_open(setup, async |jobs| {
        let narrow = jobs.on(Cores(1) & Memory::mib(256));
        // Each block is reduced where there is a core, as soon as it exists.
        let blocks = (0..BLOCKS).map(|seed| narrow.then(narrow.call(measure, seed), moments));
        let (sums, squares): (Vec<Delayed<_>>, Vec<Delayed<_>>) =
            blocks.map(|block| block.unzip()).unzip();
        let add_up = "there is a block";

        // Expressions over arrays that are not there yet.
        let count = BLOCKS as f64 * ROWS as f64;
        let mean = sums
            .into_iter()
            .reduce(|sum, next| sum + next)
            .expect(add_up)
            / count;
        let squares = squares
            .into_iter()
            .reduce(|sum, next| sum + next)
            .expect(add_up)
            / count;
        let covariance = squares - mean.clone().map(products);
        let direction = narrow.then(covariance, main_direction);
        let result = each((mean, direction));
        println!(
            "The graph has {} nodes.",
            result.to_dot().matches("label").count()
        );
        result.await
    })
    .await
}

#[seedbed::main]
async fn main() -> Result<(), JobError> {
    let (mean, direction) = pipeline(Setup::from_env().name("arrays")).await?;
    println!(
        "The points lie around {:.2}.",
        mean.mean().expect("there are columns")
    );
    // The line that `measure` scatters around.
    let line = Array1::from_iter((1..=COLUMNS).map(|column| column as f64));
    let cosine = direction.dot(&line) / line.dot(&line).sqrt();
    println!(
        "The cosine of the angle to their line is {:.4}.",
        cosine.abs()
    );
    assert!(cosine.abs() > 0.999);
    assert!(mean.iter().all(|mean| (mean - 3.0).abs() < 0.1));
    Ok(())
}
