//! Prints the measurements as `name, ours, theirs, ratio`, with a description of the machine.

use std::time::Instant;

use crate::figures::{Figures, Goal, Pair};

/// The unit in which a figure, nanoseconds per operation, is printed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// Time per operation.
    Time,
    /// Operations per second.
    Rate,
}

/// Prints the machine and its load.
pub fn header() {
    let kernel = read("/proc/sys/kernel/osrelease");
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    println!(
        "Linux {kernel}, {cores} cores ({}), load {}",
        processor(),
        load()
    );
    println!(
        "reading the clock takes {:.0} ns, contained once in each sample",
        clock_cost()
    );
}

/// Prints the load at the end: other programs that ran at the same time show here.
pub fn footer() {
    println!("\nload at the end {}", load());
}

/// Prints the head of a section.
pub fn section(title: &str) {
    println!("\n## {title}");
    println!("name, ours [p99], theirs [p99], ratio [quartiles of the rounds]");
}

/// Prints seedbed's figures, with the targets that do not depend on a peer.
pub fn ours(name: &str, figures: Figures, goal: Goal, unit: Unit) {
    let verdicts = verdicts(figures, goal, unit);
    println!("{name}, {}{verdicts}", self::figures(figures, unit));
}

/// Prints one line of a section, with the target for its ratio. `goal` applies to lines of seedbed
/// itself.
pub fn line(name: &str, pair: &Pair, at_most: Option<f64>, goal: Goal, unit: Unit) {
    let (low, high) = pair.ratio_quartiles;
    let target = at_most.map_or_else(String::new, |target| {
        format!(", target {target:.2}: {}", verdict(pair.ratio, target))
    });
    println!(
        "{name}, {}, {}, {:.2} [{low:.2} to {high:.2}]{target}{}",
        figures(pair.ours, unit),
        figures(pair.theirs, unit),
        pair.ratio,
        verdicts(pair.theirs, goal, unit)
    );
}

/// Returns the targets that apply to `figures`, each with its verdict.
fn verdicts(figures: Figures, goal: Goal, unit: Unit) -> String {
    let of = |what, figure, target: Option<f64>| {
        target.map_or_else(String::new, |target| {
            let verdict = verdict(figure, target);
            format!(", {what} {}: {verdict}", self::figure(target, unit))
        })
    };
    of("target", figures.median, goal.median) + &of("p99 target", figures.p99, goal.p99)
}

/// Returns whether a figure reaches its target, and if not, by how much it misses.
fn verdict(figure: f64, target: f64) -> String {
    if figure <= target {
        "reached".to_owned()
    } else if target == 0.0 {
        "MISSED".to_owned()
    } else {
        format!("MISSED by {:.0} %", (figure / target - 1.0) * 100.0)
    }
}

/// Prints the head of a section of plain numbers.
pub fn counts_section(title: &str) {
    println!("\n## {title}\nname, ours, theirs, ratio");
}

/// Prints one line of plain numbers per operation, such as allocations.
pub fn counts(name: &str, ours: f64, theirs: f64) {
    println!("{name}, {ours:.2}, {theirs:.2}, {:.2}", ours / theirs);
}

/// Prints one plain number per operation.
pub fn count(name: &str, count: f64) {
    println!("{name}, {count:.2}");
}

/// Prints one plain number per child, with a target. Allocations per block do not count against it.
pub fn count_within(name: &str, count: f64, at_most: f64) {
    // Two digits: with ten thousand children, this ignores up to fifty allocations per block.
    let rounded = (count * 100.0).round() / 100.0;
    println!(
        "{name}, {count:.2}, target {at_most}: {}",
        verdict(rounded, at_most)
    );
}

fn figures(figures: Figures, unit: Unit) -> String {
    let [median, p99] = [figures.median, figures.p99].map(|value| figure(value, unit));
    format!("{median} [{p99}]")
}

fn figure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Time => nanoseconds(value),
        Unit::Rate => format!("{:.0}/s", 1e9 / value),
    }
}

fn nanoseconds(value: f64) -> String {
    match value {
        0.0..100.0 => format!("{value:.1} ns"),
        100.0..10_000.0 => format!("{value:.0} ns"),
        10_000.0..1_000_000.0 => format!("{:.1} us", value / 1e3),
        _ => format!("{:.0} us", value / 1e3),
    }
}

fn clock_cost() -> f64 {
    const READS: u32 = 10_000;
    let start = Instant::now();
    for _ in 0..READS {
        std::hint::black_box(Instant::now());
    }
    start.elapsed().as_nanos() as f64 / f64::from(READS)
}

fn load() -> String {
    read("/proc/loadavg")
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    model
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        })
        .to_owned()
}

/// Returns a file's text for the reader of the report. A missing file is "unknown", not an error.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_of_ours_has_its_verdict() {
        let figures = Figures {
            median: 1_000.0,
            p99: 6_000.0,
        };
        let goal = Goal {
            median: Some(1_500.0),
            p99: Some(5_000.0),
        };
        assert_eq!(
            verdicts(figures, goal, Unit::Time),
            ", target 1500 ns: reached, p99 target 5000 ns: MISSED by 20 %"
        );
        assert_eq!(verdicts(figures, Goal::default(), Unit::Time), "");
    }

    #[test]
    fn a_rate_is_how_often_a_time_goes_into_a_second() {
        assert_eq!(figure(2_000.0, Unit::Rate), "500000/s");
        assert_eq!(figure(2_000.0, Unit::Time), "2000 ns");
    }

    #[test]
    fn a_target_is_reached_or_missed_by_a_part_of_it() {
        assert_eq!(verdict(60.0, 60.0), "reached");
        assert_eq!(verdict(90.0, 60.0), "MISSED by 50 %");
        assert_eq!(verdict(0.1, 0.0), "MISSED");
    }

    #[test]
    fn durations_keep_about_three_digits() {
        let cases = [(7.25, "7.2 ns"), (812.4, "812 ns"), (9_999.0, "9999 ns")];
        let more = [(47_123.0, "47.1 us"), (6_400_000.0, "6400 us")];
        for (value, text) in cases.into_iter().chain(more) {
            assert_eq!(nanoseconds(value), text);
        }
    }
}
