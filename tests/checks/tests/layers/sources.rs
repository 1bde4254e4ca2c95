//! The library's source files, as modules, with the imports between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path as FilePath;

use crate::paths::{self, Path};

/// A source file that is compiled without tests.
pub struct Source {
    /// Relative to `src`: `worker/pool/context.rs`.
    pub name: String,
    /// The module's path: `["worker", "pool", "context"]`; empty for `lib.rs`.
    pub module: Vec<String>,
    pub paths: Vec<Path>,
}

/// A path in one file that leads to another file of the crate.
pub struct Import {
    pub from: String,
    pub to: String,
    /// As it is written: `super::context::Context`.
    pub path: String,
    pub line: usize,
}

impl Source {
    pub fn read(name: String, text: &str) -> Self {
        Self {
            module: module_of(&name),
            paths: paths::read(text).paths,
            name,
        }
    }

    /// Makes a path of this file absolute, without `crate`. Returns `None` for a path into another
    /// crate, and for one that begins with a local name.
    fn absolute(
        &self,
        path: &Path,
        modules: &BTreeMap<Vec<String>, String>,
    ) -> Option<Vec<String>> {
        let here = || [&self.module[..], &path.inline[..]].concat();
        let (first, rest) = path.segments.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&here()[..], rest].concat()),
            "super" => {
                let ups = path
                    .segments
                    .iter()
                    .take_while(|name| *name == "super")
                    .count();
                let mut base = here();
                base.truncate(base.len().saturating_sub(ups));
                Some([&base[..], &path.segments[ups..]].concat())
            }
            name => {
                let child = [&here()[..], &[name.to_owned()]].concat();
                if modules.contains_key(&child) {
                    return Some([&child[..], rest].concat());
                }
                let used =
                    |used: &&Path| used.alias.as_deref() == Some(name) && used.segments[0] != name;
                let used = self.paths.iter().find(used)?;
                let module = self.absolute(used, modules)?;
                modules
                    .contains_key(&module)
                    .then(|| [&module[..], rest].concat())
            }
        }
    }

    /// All imports of this file, except from itself.
    pub fn imports(&self, modules: &BTreeMap<Vec<String>, String>) -> Vec<Import> {
        let resolve = |path: &Path| {
            let absolute = self.absolute(path, modules)?;
            let to = (0..=absolute.len())
                .rev()
                .find_map(|length| modules.get(&absolute[..length]))?;
            let import = || Import {
                from: self.name.clone(),
                to: to.clone(),
                path: path.segments.join("::"),
                line: path.line,
            };
            (*to != self.name).then(import)
        };
        self.paths.iter().filter_map(resolve).collect()
    }
}

/// The modules of those files, by their paths.
pub fn modules(sources: &[Source]) -> BTreeMap<Vec<String>, String> {
    sources
        .iter()
        .map(|source| (source.module.clone(), source.name.clone()))
        .collect()
}

/// Reads all files below `src` that are compiled without tests.
pub fn sources() -> Vec<Source> {
    let root = seedbed_checks::root().join("src");
    let mut names = Vec::new();
    list(&root, "", &mut names);
    names.sort();
    let mut test_only = BTreeSet::new();
    let mut sources = Vec::new();
    for name in names {
        let text = fs::read_to_string(root.join(&name)).expect("a source can be read");
        let found = paths::read(&text);
        let module = module_of(&name);
        let path_of = |child: String| [&module[..], &[child]].concat();
        test_only.extend(found.test_modules.into_iter().map(path_of));
        sources.push(Source {
            name,
            module,
            paths: found.paths,
        });
    }
    let is_test_only = |source: &Source| {
        (0..=source.module.len()).any(|length| test_only.contains(&source.module[..length]))
    };
    sources.retain(|source| !is_test_only(source));
    sources
}

fn list(folder: &FilePath, prefix: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the sources can be listed") {
        let path = entry.expect("the sources can be listed").path();
        let name = path
            .file_name()
            .expect("an entry has a name")
            .to_string_lossy();
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            list(&path, &format!("{name}/"), names);
        } else if name.ends_with(".rs") {
            names.push(name);
        }
    }
}

fn module_of(name: &str) -> Vec<String> {
    let names = name.trim_end_matches(".rs").split('/');
    names
        .filter(|name| !["mod", "lib"].contains(name))
        .map(str::to_owned)
        .collect()
}
