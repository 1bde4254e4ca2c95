//! Which node (NUMA) of the machine has which core.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The folder in which the kernel lists the nodes.
const ROOT: &str = "/sys/devices/system/node";

/// Returns the node of each core. Empty on a machine without nodes.
pub(super) fn nodes() -> BTreeMap<usize, u32> {
    nodes_in(Path::new(ROOT))
}

fn nodes_in(root: &Path) -> BTreeMap<usize, u32> {
    let mut nodes = BTreeMap::new();
    let Ok(folders) = fs::read_dir(root) else {
        return nodes;
    };
    for folder in folders.flatten() {
        let name = folder.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node"));
        let Some(node) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        let list = fs::read_to_string(folder.path().join("cpulist")).unwrap_or_default();
        nodes.extend(cores(&list).map(|core| (core, node)));
    }
    nodes
}

/// Reads a list such as `0-3,8`.
fn cores(list: &str) -> impl Iterator<Item = usize> {
    list.trim().split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1),
            _ => 0..0,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_has_the_node_in_whose_list_it_is() {
        let root = tempfile::tempdir().unwrap();
        for (folder, list) in [
            ("node0", "0-1,4\n"),
            ("node1", "2-3\n"),
            ("node2", "\n"),
            ("power", "7"),
        ] {
            let folder = root.path().join(folder);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("cpulist"), list).unwrap();
        }
        let expected = [(0, 0), (1, 0), (2, 1), (3, 1), (4, 0)];
        assert_eq!(nodes_in(root.path()), BTreeMap::from(expected));
        assert!(nodes_in(&root.path().join("missing")).is_empty());
    }
}
