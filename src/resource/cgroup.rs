//! The limits of the control groups of this process, in both versions.
//!
//! A limit of a group holds for all groups below it, so the least of a path counts. In a container,
//! the path in `/proc/self/cgroup` may lie outside of what is mounted; the mounted root then is the
//! container's own group, and the only one that can be read.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// Returns the number of processors that the CPU quota is worth, if there is one.
pub(super) fn cpu_quota() -> Option<f64> {
    cpu_quota_of(&groups(&own_groups(), Path::new(ROOT)))
}

/// Returns the memory that the limits leave, in bytes, if there are limits.
pub(super) fn memory_left() -> Option<u64> {
    memory_left_of(&groups(&own_groups(), Path::new(ROOT)))
}

fn own_groups() -> String {
    // Without `/proc`, only the root can be read.
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// Returns the folders of all groups that the process is in, given the text of
/// `/proc/self/cgroup`.
fn groups(text: &str, root: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        let mut bases = vec![root.to_owned()];
        bases.extend(
            controllers
                .split(',')
                .filter(|name| !name.is_empty())
                .map(|name| root.join(name)),
        );
        for base in bases {
            folders.extend(path.ancestors().map(|group| base.join(group)));
        }
    }
    folders.push(root.to_owned());
    folders
}

fn cpu_quota_of(groups: &[PathBuf]) -> Option<f64> {
    let quotas = groups.iter().filter_map(|group| {
        let text = fs::read_to_string(group.join("cpu.max")).ok();
        let v2 = text.and_then(|text| {
            let (quota, period) = text.trim().split_once(' ')?;
            ratio(quota, period)
        });
        v2.or_else(|| {
            let quota = fs::read_to_string(group.join("cpu.cfs_quota_us")).ok()?;
            let period = fs::read_to_string(group.join("cpu.cfs_period_us")).ok()?;
            ratio(quota.trim(), period.trim())
        })
    });
    quotas.min_by(f64::total_cmp)
}

/// Divides the quota by the period. There is no quota if it is `max` (version 2) or -1 (version 1).
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

fn memory_left_of(groups: &[PathBuf]) -> Option<u64> {
    let number = |group: &Path, file: &str| -> Option<u64> {
        fs::read_to_string(group.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let left = groups.iter().filter_map(|group| {
        let v2 = || {
            Some((
                number(group, "memory.max")?,
                number(group, "memory.current")?,
            ))
        };
        let v1 = || {
            let limit = number(group, "memory.limit_in_bytes")?;
            Some((limit, number(group, "memory.usage_in_bytes")?))
        };
        let (limit, used) = v2().or_else(v1)?;
        // The caches of files count as used, and can be freed.
        let cached =
            cached_memory(&fs::read_to_string(group.join("memory.stat")).unwrap_or_default());
        Some(limit.saturating_sub(used.saturating_sub(cached)))
    });
    left.min()
}

/// Finds the memory of inactive caches of files in the text of `memory.stat`.
fn cached_memory(text: &str) -> u64 {
    let value = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    value("total_inactive_file ")
        .or_else(|| value("inactive_file "))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn the_least_limit_of_the_groups_above_counts_in_version_2() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("a/cpu.max", "150000 100000\n"),
                ("a/memory.max", "1000\n"),
                ("a/memory.current", "700\n"),
                ("a/memory.stat", "anon 500\ninactive_file 200\n"),
                ("a/b/cpu.max", "max 100000\n"),
                ("a/b/memory.max", "max\n"),
            ],
        );
        let groups = groups("0::/a/b\n", root.path());
        assert_eq!(cpu_quota_of(&groups), Some(1.5));
        assert_eq!(memory_left_of(&groups), Some(500));
    }

    #[test]
    fn each_controller_has_its_own_groups_in_version_1() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("cpu/x/cpu.cfs_quota_us", "200000\n"),
                ("cpu/x/cpu.cfs_period_us", "100000\n"),
                ("memory/y/memory.limit_in_bytes", "4096\n"),
                ("memory/y/memory.usage_in_bytes", "96\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/memory.usage_in_bytes", "5\n"),
            ],
        );
        let text = "4:memory:/y\n3:cpu,cpuacct:/x\n1:name=systemd:/z\n";
        let groups = groups(text, root.path());
        assert_eq!(cpu_quota_of(&groups), Some(2.0));
        assert_eq!(memory_left_of(&groups), Some(4000));
    }

    #[test]
    fn a_container_reads_the_limits_of_its_root() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("cpu.max", "50000 100000\n")]);
        let groups = groups("0::/docker/outside\n", root.path());
        assert_eq!(cpu_quota_of(&groups), Some(0.5));
        assert_eq!(memory_left_of(&groups), None);
    }

    #[test]
    fn there_may_be_no_limits() {
        let root = tempfile::tempdir().unwrap();
        let groups = groups("", root.path());
        assert_eq!(
            (cpu_quota_of(&groups), memory_left_of(&groups)),
            (None, None)
        );
    }
}
