//! Finds cycles between the entries of one folder: its files, and its subfolders, each as a whole.
//!
//! If no folder has such a cycle, then no files of the crate import each other in a circle either:
//! of the files in a circle, some lie in different entries of the deepest folder that holds them
//! all.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::Import;

/// Entries of one folder that import each other in a circle.
pub struct Cycle<'a> {
    /// Relative to `src`; empty for `src` itself.
    pub folder: String,
    pub entries: BTreeSet<String>,
    /// The imports between the entries, by importing and imported entry.
    pub imports: BTreeMap<(String, String), Vec<&'a Import>>,
}

/// Returns the cycles of all folders, by their names.
pub fn cycles(imports: &[Import]) -> Vec<Cycle<'_>> {
    let mut folders: BTreeMap<String, BTreeMap<(String, String), Vec<&Import>>> = BTreeMap::new();
    for import in imports {
        let (folder, from, to) = common_folder(&import.from, &import.to);
        folders
            .entry(folder)
            .or_default()
            .entry((from, to))
            .or_default()
            .push(import);
    }
    let mut cycles = Vec::new();
    for (folder, edges) in folders {
        for entries in circles(&edges.keys().cloned().collect()) {
            let inside =
                |(from, to): &&(String, String)| entries.contains(from) && entries.contains(to);
            let imports = edges
                .keys()
                .filter(inside)
                .map(|edge| (edge.clone(), edges[edge].clone()))
                .collect();
            cycles.push(Cycle {
                folder: folder.clone(),
                entries,
                imports,
            });
        }
    }
    cycles
}

/// Returns the deepest folder that holds both files, and the entries of it that they belong to.
fn common_folder(from: &str, to: &str) -> (String, String, String) {
    let (from, to): (Vec<&str>, Vec<&str>) = (from.split('/').collect(), to.split('/').collect());
    let depth = from
        .iter()
        .zip(&to)
        .take_while(|(from, to)| from == to)
        .count();
    (
        from[..depth].join("/"),
        from[depth].to_owned(),
        to[depth].to_owned(),
    )
}

/// Returns the strongly connected components with more than one node.
fn circles(edges: &BTreeSet<(String, String)>) -> Vec<BTreeSet<String>> {
    let nodes: BTreeSet<&String> = edges.iter().map(|(from, _)| from).collect();
    let reach: BTreeMap<&String, BTreeSet<&String>> = nodes
        .iter()
        .map(|&node| (node, reachable(node, edges)))
        .collect();
    let together = |a: &String, b: &String| {
        reach[a].contains(b) && reach.get(b).is_some_and(|back| back.contains(a))
    };
    let circle = |&node: &&String| {
        nodes
            .iter()
            .filter(|other| together(node, other))
            .map(|&other| other.clone())
            .collect()
    };
    let circles: BTreeSet<BTreeSet<String>> = nodes.iter().map(circle).collect();
    circles
        .into_iter()
        .filter(|circle: &BTreeSet<String>| circle.len() > 1)
        .collect()
}

fn reachable<'a>(node: &'a String, edges: &'a BTreeSet<(String, String)>) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![node];
    while let Some(node) = next.pop() {
        let targets = edges
            .iter()
            .filter(|(from, _)| from == node)
            .map(|(_, to)| to);
        next.extend(targets.filter(|&to| reached.insert(to)));
    }
    reached
}
