//! The cost of an idle worker: private memory and CPU time.
//!
//! Memory is what `smaps_rollup` counts as private: pages that no other process maps. Pages that a
//! forked worker shares with its fork server until it writes to them are not private, nor are pages
//! of the executable, which every process maps.

use std::{fs, time::Duration};

use seedbed::CapacityLimiter;
use seedbed::worker::WorkerType::{self, ForkServer, Spawn};

use crate::{
    child::{Gathering, attend},
    jobs,
    options::Options,
    report,
    sockets::SocketPair,
};

const MEMORY: &str = "idle/private-memory";
const TIME: &str = "idle/processor-time";
const WORKERS: usize = 4;
const SECOND: Duration = Duration::from_secs(1);

/// Prints the sections.
pub fn compare(options: &Options) {
    let types = [
        ("seedbed, forked", ForkServer, 500.0),
        ("seedbed, spawned", Spawn, 2_000.0),
    ];
    if options.wants(MEMORY, "") {
        compare_memory(types);
    }
    if options.wants(TIME, "") {
        report::counts_section(&format!(
            "{TIME}, us in a second in which nobody has anything to do"
        ));
        let (_, control) = smol::block_on(time_used(Vec::new()));
        for (name, worker_type, _) in types {
            let (children, parent) = seedbed::run(with_idle_workers(worker_type, time_used));
            report::count_within(&format!("{name}: {WORKERS} workers"), children, 0.0);
            let name = format!("{name}: their parent, and one in smol::block_on without any");
            report::counts(&name, parent, control);
        }
    }
}

fn compare_memory(types: [(&str, WorkerType, f64); 2]) {
    report::counts_section(&format!(
        "{MEMORY}, KB of each of {WORKERS} workers that have done one job"
    ));
    let sockets = SocketPair::start(None);
    assert_eq!(sockets.call(1), 2);
    let limit = private_memory(sockets.pid());
    let pool = jobs::pool_of_one(None);
    let process = pool.spawn((), jobs::pid).join();
    let procspawns = private_memory(process.expect("the pool answers"));
    for (name, worker_type, at_most) in types {
        let ours = seedbed::run(with_idle_workers(worker_type, async |workers: Vec<u32>| {
            let memory = workers.iter().map(|pid| private_memory(*pid));
            memory.sum::<f64>() / workers.len() as f64
        }));
        report::count_within(name, ours, at_most);
        report::counts(&format!("{name}: a child that echoes"), ours, limit);
        report::counts(&format!("{name}: procspawn Pool(1)"), ours, procspawns);
    }
}

/// Calls `look` with the processes of workers that have done a job and are idle.
async fn with_idle_workers<T>(worker_type: WorkerType, look: impl AsyncFnOnce(Vec<u32>) -> T) -> T {
    let config = jobs::config(worker_type, None).no_idle_timeout();
    seedbed::open_worker_context(config, |context| async move {
        let gathering = Gathering::new("idle");
        let unlimited = CapacityLimiter::unlimited();
        let workers = seedbed::open_nursery(async |n| {
            let mut tasks = Vec::new();
            for _ in 0..WORKERS {
                let job = context.run_sync(attend_and_tell, gathering.name().to_owned());
                tasks.push(n.spawn(job.limiter(&unlimited)));
            }
            gathering.of(WORKERS).await;
            let mut workers = Vec::new();
            for task in tasks {
                workers.push(task.await.expect("the worker attends"));
            }
            workers
        })
        .await;
        look(workers).await
    })
    .await
}

fn attend_and_tell(gathering: String) -> u32 {
    attend(gathering);
    std::process::id()
}

/// Measures the CPU time that this process and all its children, including a fork server, use in
/// one second.
async fn time_used(_workers: Vec<u32>) -> (f64, f64) {
    let us = std::process::id();
    let of_children = || children_of(us).into_iter().map(cpu_time).sum::<f64>();
    // Let earlier work finish first.
    smol::Timer::after(SECOND / 10).await;
    // Reading the counters takes CPU time too, so this process is read last before the second and
    // first after it.
    let (children, ours) = (of_children(), cpu_time(us));
    smol::Timer::after(SECOND).await;
    let ours = cpu_time(us) - ours;
    (of_children() - children, ours)
}

fn private_memory(pid: u32) -> f64 {
    private_in(&read(&format!("/proc/{pid}/smaps_rollup")))
}

/// Returns the kilobytes of private memory in `smaps_rollup`.
fn private_in(rollup: &str) -> f64 {
    let line = |line: &str| {
        let value = line.strip_prefix("Private_")?;
        let (_, kilobytes) = value.split_once(':')?;
        kilobytes
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<f64>()
            .ok()
    };
    rollup.lines().filter_map(line).sum()
}

/// Returns the CPU time that the threads of a process have used, in microseconds.
fn cpu_time(pid: u32) -> f64 {
    let of_thread = |thread| {
        let statistics = read(&format!("/proc/{pid}/task/{thread}/schedstat"));
        let nanoseconds = statistics.split(' ').next().map(str::parse::<f64>);
        nanoseconds.expect("a number").expect("a number") / 1e3
    };
    threads_of(pid).into_iter().map(of_thread).sum()
}

fn children_of(pid: u32) -> Vec<u32> {
    let of_thread = |thread| {
        let children = read(&format!("/proc/{pid}/task/{thread}/children"));
        let children = children.split_whitespace();
        children
            .map(|child| child.parse().expect("a process's number"))
            .collect::<Vec<u32>>()
    };
    threads_of(pid).into_iter().flat_map(of_thread).collect()
}

fn threads_of(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    threads
        .map(|thread| thread.expect("the process lives").file_name())
        .map(|name| name.to_str().and_then(|name| name.parse().ok()))
        .map(|number| number.expect("a thread's number"))
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_the_sum_of_the_private_lines() {
        let rollup = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:     2000 kB\nPrivate_Clean:   12 kB\n\
                      Private_Dirty:  340 kB\nShared_Clean:  900 kB\nPrivate_Hugetlb: 0 kB\n";
        assert_eq!(private_in(rollup), 352.0);
        assert!(private_memory(std::process::id()) > 0.0);
    }

    #[test]
    fn the_time_of_a_process_is_that_of_all_its_threads() {
        let us = std::process::id();
        let before = cpu_time(us);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let began = crate::measure::thread_time();
                while crate::measure::thread_time() - began < Duration::from_millis(20) {}
                assert!(cpu_time(us) - before >= 15_000.0);
            });
        });
    }
}
