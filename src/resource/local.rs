//! The resources that this process may use.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity};

use super::cgroup;

/// Returns the numbers of the cores that the calling thread may use.
pub(super) fn cores() -> Vec<usize> {
    // Fails only on machines with more cores than the set has room for. All share core 0 then.
    let Ok(set) = sched_getaffinity(None) else {
        return vec![0];
    };
    let mut cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect();
    if let Some(quota) = cgroup::cpu_quota() {
        cores.truncate((quota as usize).max(1));
    }
    cores
}

/// Returns the number of bytes that this process can use without swapping.
pub(super) fn memory() -> Option<u64> {
    let available = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_memory(&text));
    [available, cgroup::memory_left()]
        .into_iter()
        .flatten()
        .min()
}

/// Finds the available memory in the text of `/proc/meminfo`, in bytes.
fn available_memory(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_in_bytes() {
        let text = "MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:    8 kB\n";
        assert_eq!(available_memory(text), Some(8192));
        assert_eq!(available_memory("MemTotal: 16 kB"), None);
    }

    #[test]
    fn this_process_may_use_a_core_and_some_memory() {
        assert!(!cores().is_empty());
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
