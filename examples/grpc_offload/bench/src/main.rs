//! Compares the adapter of the example with tonic's own server: the CPU time of the server for each
//! unary call. The example's `README.md` describes it.

mod client;
mod echo;
mod figures;
mod servers;

use std::error::Error;
use std::time::Instant;

use client::{Clients, Shape};
use figures::{median, quantile};
use servers::{Contender, Running};

const USAGE: &str = "usage: grpc_offload_bench [--quick] [--rounds N] [--only adapter|tonic|hyper] \
                     [1x64|8x16|1x1]..";

/// The adapter may use at most this many times the CPU time of tonic on tokio.
const TARGET: f64 = 1.25;

/// Rounds whose figures count. One more comes first.
const ROUNDS: usize = 12;

const SHAPES: [Shape; 3] = [
    Shape {
        name: "1x64",
        connections: 1,
        in_flight: 64,
        calls: 16_384,
    },
    Shape {
        name: "8x16",
        connections: 8,
        in_flight: 16,
        calls: 16_384,
    },
    Shape {
        name: "1x1",
        connections: 1,
        in_flight: 1,
        calls: 4_000,
    },
];

struct Arguments {
    /// Makes a sixteenth of the calls, which shows that everything runs.
    quick: bool,
    rounds: usize,
    /// Measures one server, for a profiler.
    only: Option<Contender>,
    /// Serves, in a child process.
    serve: Option<Contender>,
    /// The names of shapes; none for all of them.
    shapes: Vec<String>,
}

impl Arguments {
    fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut arguments = Self {
            quick: false,
            rounds: ROUNDS,
            only: None,
            serve: None,
            shapes: Vec::new(),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => arguments.quick = true,
                Long("rounds") => arguments.rounds = parser.value()?.parse()?,
                Long("only") => arguments.only = Some(parser.value()?.parse_with(contender)?),
                Long("serve") => arguments.serve = Some(parser.value()?.parse_with(contender)?),
                Value(name) => {
                    let name = name.string()?;
                    if !SHAPES.iter().any(|shape| shape.name == name) {
                        return Err(format!("no shape is named {name}").into());
                    }
                    arguments.shapes.push(name);
                }
                _ => return Err(argument.unexpected()),
            }
        }
        if arguments.rounds == 0 {
            return Err("the number of rounds is to be 1 or more".into());
        }
        Ok(arguments)
    }
}

/// Finds the contender whose name begins with this word.
fn contender(word: &str) -> Result<Contender, String> {
    let mut all = Contender::ALL.into_iter();
    all.find(|contender| contender.word() == word)
        .ok_or_else(|| format!("no server is named {word}"))
}

/// The measured cost of a contender's calls in one round.
struct Sample {
    /// CPU time of the server per call, in microseconds.
    cpu: f64,
    /// Calls per second.
    rate: f64,
    /// Median of the time that a call took, in microseconds.
    latency: f64,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse().map_err(|error| format!("{error}\n{USAGE}"))?;
    if let Some(contender) = arguments.serve {
        return contender.serve();
    }
    let contenders: Vec<_> = match arguments.only {
        Some(contender) => vec![contender],
        None => Contender::ALL.to_vec(),
    };
    println!("load {}", load()?);
    println!(
        "name, CPU time per call: adapter [max], other [max], ratio [quartiles of the rounds]"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for mut shape in SHAPES {
        if !arguments.shapes.is_empty() && !arguments.shapes.iter().any(|name| name == shape.name) {
            continue;
        }
        if arguments.quick {
            shape.calls /= 16;
        }
        let samples = runtime.block_on(measure(&contenders, shape, arguments.rounds))?;
        report(shape, &contenders, &samples);
    }
    println!("\nload at the end {}", load()?);
    Ok(())
}

/// Measures the contenders in turn. Returns the samples of each, by round.
async fn measure(
    contenders: &[Contender],
    shape: Shape,
    rounds: usize,
) -> Result<Vec<Vec<Sample>>, Box<dyn Error + Send + Sync>> {
    let mut servers = Vec::new();
    for &contender in contenders {
        let server = Running::start(contender)?;
        let clients = Clients::connect(server.address, shape).await?;
        servers.push((server, clients, Vec::new()));
    }
    let count = servers.len();
    for round in 0..=rounds {
        for turn in 0..count {
            // Each round begins with another contender.
            let (server, clients, samples) = &mut servers[(round + turn) % count];
            let (cpu, began) = (server.cpu_time()?, Instant::now());
            let latencies = clients.call().await?;
            let calls = latencies.len() as f64;
            let rate = calls / began.elapsed().as_secs_f64();
            let sample = Sample {
                cpu: (server.cpu_time()? - cpu) / calls / 1e3,
                rate,
                latency: median(latencies.iter().map(|latency| latency.as_secs_f64() * 1e6)),
            };
            // The first round warms up the caches and the allocators.
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    Ok(servers.into_iter().map(|(_, _, samples)| samples).collect())
}

fn report(shape: Shape, contenders: &[Contender], samples: &[Vec<Sample>]) {
    let Shape {
        name,
        connections,
        in_flight,
        ..
    } = shape;
    println!("\n## {name}: connections {connections}, calls in flight on each {in_flight}");
    let cpu = |samples: &[Sample]| {
        let figures = || samples.iter().map(|sample| sample.cpu);
        format!(
            "{:.1} [{:.1}] µs",
            median(figures()),
            quantile(figures(), 1.0)
        )
    };
    let ours = &samples[0];
    for (contender, theirs) in contenders.iter().zip(samples) {
        let rate = median(theirs.iter().map(|sample| sample.rate));
        let latency = median(theirs.iter().map(|sample| sample.latency));
        println!(
            "{}, {}, {rate:.0} calls/s, latency {latency:.0} µs",
            contender.name(),
            cpu(theirs)
        );
    }
    for (contender, theirs) in contenders.iter().zip(samples).skip(1) {
        let of_medians = median(ours.iter().map(|sample| sample.cpu))
            / median(theirs.iter().map(|sample| sample.cpu));
        let ratios = || {
            ours.iter()
                .zip(theirs)
                .map(|(ours, theirs)| ours.cpu / theirs.cpu)
        };
        let verdict = match contender {
            Contender::Tonic if of_medians <= TARGET => format!(", target {TARGET}: reached"),
            Contender::Tonic => format!(
                ", target {TARGET}: MISSED by {:.0} %",
                (of_medians / TARGET - 1.0) * 100.0
            ),
            _ => String::new(),
        };
        println!(
            "{name}/{}, {}, {}, {of_medians:.2} [{:.2} to {:.2}; max {:.2}]{verdict}",
            contender.name(),
            cpu(ours),
            cpu(theirs),
            quantile(ratios(), 0.25),
            quantile(ratios(), 0.75),
            quantile(ratios(), 1.0),
        );
    }
}

fn load() -> std::io::Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}
