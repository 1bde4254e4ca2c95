//! Numbers, names and parents of tasks, and the tree of all tasks. Polled by hand or in a run; no
//! test sleeps.

#[path = "../common/polling.rs"]
mod polling;

mod current;
mod links;
mod waits;
mod whole;

use seedbed::nursery::{TaskInfo, task_tree};

fn names(tasks: &[TaskInfo]) -> Vec<&str> {
    tasks.iter().map(TaskInfo::name).collect()
}

/// Draws the tree of the current task, without the numbers.
fn drawn() -> String {
    without_numbers(&task_tree().expect("called in a task").to_string())
}

fn without_numbers(tree: &str) -> String {
    let without = |line: &str| match line.rsplit_once(" #") {
        Some((line, rest)) => {
            let (number, waits) = rest
                .split_once(',')
                .map_or((rest, String::new()), |(number, waits)| {
                    (number, format!(",{waits}"))
                });
            assert!(number.parse::<u64>().is_ok(), "{number}");
            format!("{line}{waits}")
        }
        None => line.to_string(),
    };
    tree.lines().map(without).collect::<Vec<_>>().join("\n")
}
