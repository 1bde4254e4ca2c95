//! The memory that counts towards a process's limit (`RLIMIT_DATA`).

/// Returns how many bytes count towards the memory limit now, or `None` if `/proc` is not mounted.
pub(crate) fn data_held() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmData:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_held_counts() {
        // Large, and never touched, so that it shows in spite of the other tests in this process.
        const MUCH: usize = 2 << 30;
        let before = data_held().unwrap();
        let held = std::hint::black_box(vec![0u8; MUCH]);
        assert!(data_held().unwrap() >= before + MUCH as u64 / 2);
        drop(held);
    }
}
