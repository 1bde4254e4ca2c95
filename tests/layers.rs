//! Holds the sources to their layers: a module uses its own layer and those below it.
//!
//! The sources are read as tokens, so comments and docs do not count, nor does what is compiled for tests only. A path
//! that begins with `crate` or `super` belongs to the module that it leads to; `$crate` in a macro counts as well.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The crate's modules, from the bottom up. `guide` is documentation.
const LAYERS: [&[&str]; 7] = [
    &["sys"],
    &["transport"],
    &["time", "cancel", "run_var", "tree_var"],
    &[
        "instrument",
        "task",
        "process",
        "signal",
        "sync",
        "testing",
        "thread",
    ],
    &["worker"],
    &["run"],
    &["guide"],
];

/// What the child's side of a worker may use of this crate: the rest would bring the runtime into the worker.
const CHILD: &str = "worker/child/";
const CHILD_MAY: [&str; 2] = ["sys", "transport"];

/// Crates that have no place in a worker, and so neither in the child's side nor in the two layers that it stands on.
const RUNTIME: [&str; 10] = [
    "smol",
    "async_channel",
    "async_executor",
    "async_io",
    "async_lock",
    "async_process",
    "async_task",
    "event_listener",
    "futures_lite",
    "tracing",
];

#[test]
fn every_module_imports_downwards_only() {
    let mut broken = Vec::new();
    for file in sources() {
        for path in paths_in(&file.text) {
            broken.extend(fault(&file, &path).map(|rule| Broken {
                place: format!("src/{}:{}", file.name, path.line),
                path: path.to_string(),
                rule,
            }));
        }
    }
    let report: Vec<String> = broken.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "\n{}\n", report.join("\n"));
}

#[test]
fn every_module_has_a_layer_and_every_name_in_a_layer_is_a_module() {
    let modules: BTreeSet<String> = sources()
        .iter()
        .filter(|file| file.name != "lib.rs")
        .map(|file| file.module().to_owned())
        .collect();
    let layered = LAYERS.iter().copied().flatten().copied();
    assert_eq!(modules, layered.map(str::to_owned).collect());
}

#[test]
fn the_library_stands_on_smol_and_not_on_tokio() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    let (dependencies, _) = dependencies.split_once("[dev-dependencies]").unwrap();
    let names = || {
        dependencies
            .lines()
            .filter_map(|line| line.split_once(" = "))
    };
    assert!(names().any(|(name, _)| name == "smol"));
    assert!(names().all(|(name, _)| name != "tokio"));
}

#[test]
fn what_is_looked_for_is_found() {
    let text = "
        use crate::{transport::job::code, sys};
        use super::super::sync::Event;
        /// Says crate::nursery in its docs.
        fn f() { crate::worker::hook(); } // and crate::run in a comment
        macro_rules! m { () => { $crate::run(main()) } }
        use smol::Async;
        #[cfg(test)]
        mod tests { use crate::testing::MockClock; }
    ";
    let found: Vec<String> = paths_in(text).iter().map(ToString::to_string).collect();
    let expected = [
        "crate::transport",
        "crate::sys",
        "super::super::sync",
        "crate::worker",
        "crate::run",
        "smol",
    ];
    for path in expected {
        assert!(
            found.contains(&path.to_owned()),
            "{path} was not found in {found:?}"
        );
    }
    assert!(
        !found.iter().any(|path| path.ends_with("testing")),
        "{found:?}"
    );
    let child = Source {
        name: format!("{CHILD}mod.rs"),
        text: String::new(),
    };
    let faults = paths_in("use super::hook; use crate::sync::Event; use crate::transport::frame;")
        .iter()
        .filter_map(|path| fault(&child, path))
        .count();
    assert_eq!(faults, 2);
    let sync = Source {
        name: "sync/mod.rs".into(),
        text: String::new(),
    };
    assert!(fault(&sync, &paths_in("use crate::worker::hook;")[0]).is_some());
}

/// A file below `src`.
struct Source {
    name: String,
    text: String,
}

impl Source {
    /// The top-level module that it belongs to.
    fn module(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or(&self.name);
        first.trim_end_matches(".rs")
    }

    /// How many `super` lead from it to the crate's root.
    fn depth(&self) -> usize {
        let names = self.name.trim_end_matches(".rs").split('/');
        names.filter(|name| *name != "mod").count()
    }
}

/// The beginning of a path: `crate::job`, `super::super::sync`, `smol`.
struct Beginning {
    /// How many modules it goes up; `None` for `crate`, and for another crate.
    up: Option<usize>,
    of_crate: bool,
    name: String,
    line: usize,
}

impl fmt::Display for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let up = "super::".repeat(self.up.unwrap_or(0));
        let root = if self.of_crate { "crate::" } else { "" };
        write!(f, "{root}{up}{}", self.name)
    }
}

struct Broken {
    place: String,
    path: String,
    rule: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { place, path, rule } = self;
        write!(f, "{place}: `{path}`: {rule}")
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Says which rule the path breaks, if any.
fn fault(file: &Source, path: &Beginning) -> Option<String> {
    if file.name == "lib.rs" {
        return None; // the map of everything
    }
    let child = file.name.starts_with(CHILD);
    let low = layer(file.module()).is_some_and(|layer| layer <= 1);
    let to = match path.up {
        None if path.of_crate => path.name.as_str(),
        None if RUNTIME.contains(&path.name.as_str()) && (child || low) => {
            return Some(
                "what runs in a worker uses no runtime: neither sys, error, job and wire nor the child's side".into(),
            );
        }
        None => return None,
        Some(up) if up >= file.depth() => path.name.as_str(),
        Some(_) => file.module(),
    };
    // `worker::child` is two below the root.
    let stays_in_child = path.up.is_some_and(|up| up + 2 <= file.depth());
    if child && !stays_in_child && !CHILD_MAY.contains(&to) {
        return Some(format!(
            "the child's side of a worker uses only {CHILD_MAY:?} of this crate"
        ));
    }
    let (from, Some(to_layer)) = (layer(file.module())?, layer(to)) else {
        return Some(
            "not a module that has a layer: name the module, not what the crate's root re-exports"
                .into(),
        );
    };
    (to_layer > from).then(|| {
        format!(
            "`{}` (layer {from}) imports upwards from `{to}` (layer {to_layer})",
            file.module()
        )
    })
}

/// Finds the beginnings of all paths in a source text.
fn paths_in(text: &str) -> Vec<Beginning> {
    let tokens: TokenStream = text.parse().expect("the sources are Rust");
    let mut found = Vec::new();
    search(tokens, &mut found);
    found
}

fn search(tokens: TokenStream, found: &mut Vec<Beginning>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if let Some(after) = end_of_test_only_item(&tokens, at) {
            at = after;
            continue;
        }
        match &tokens[at] {
            TokenTree::Group(group) => search(group.stream(), found),
            TokenTree::Ident(_) if !is_colons(&tokens, at.wrapping_sub(2)) => {
                begin(&tokens, at, found)
            }
            _ => {}
        }
        at += 1;
    }
}

/// Reads the beginning of the path at an identifier, if it is one that matters here.
fn begin(tokens: &[TokenTree], at: usize, found: &mut Vec<Beginning>) {
    let TokenTree::Ident(first) = &tokens[at] else {
        return;
    };
    let line = first.span().start().line;
    let push = |found: &mut Vec<Beginning>, up, of_crate, name: String| {
        found.push(Beginning {
            up,
            of_crate,
            name,
            line,
        });
    };
    if first != "crate" && first != "super" {
        if is_colons(tokens, at + 1) {
            push(found, None, false, first.to_string());
        }
        return;
    }
    let of_crate = first == "crate";
    let (mut at, mut up) = (at, usize::from(!of_crate));
    while is_colons(tokens, at + 1) {
        at += 3;
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) if name == "super" => up += 1,
            Some(TokenTree::Ident(name)) => {
                return push(found, (!of_crate).then_some(up), of_crate, name.to_string());
            }
            Some(TokenTree::Group(group)) => {
                for name in first_names(group.stream()) {
                    push(found, (!of_crate).then_some(up), of_crate, name);
                }
                return;
            }
            _ => return,
        }
    }
}

/// The first name of each branch of `{a::b, c}`.
fn first_names(branches: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = branches.into_iter().collect();
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
    tokens
        .split(is_comma)
        .filter_map(|branch| branch.first())
        .map(ToString::to_string)
        .collect()
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let colon =
        |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(at) && colon(at.wrapping_add(1))
}

/// If `#[cfg(test)]` or `#[cfg(all(test, loom))]` stands here, returns where the item after it ends: at a semicolon or
/// a block.
fn end_of_test_only_item(tokens: &[TokenTree], at: usize) -> Option<usize> {
    let (TokenTree::Punct(hash), TokenTree::Group(attribute)) = (&tokens[at], tokens.get(at + 1)?)
    else {
        return None;
    };
    let text = attribute.stream().to_string().replace(' ', "");
    let test_only = ["cfg(test)", "cfg(all(test,loom))"].contains(&text.as_str());
    if hash.as_char() != '#' || !test_only {
        return None;
    }
    let ends = |token: &TokenTree| match token {
        TokenTree::Punct(p) => p.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    let end = tokens[at..].iter().position(ends)?;
    Some(at + end + 1)
}

/// Files that are compiled for tests only and not called so.
const TEST_ONLY: [&str; 2] = ["sync/test_waker.rs", "sys/model.rs"];

/// All files below `src` that are compiled without tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    gather(&root, &mut files);
    let mut sources: Vec<Source> = files
        .into_iter()
        .map(|path| Source {
            name: path
                .strip_prefix(&root)
                .expect("it was found there")
                .to_string_lossy()
                .into_owned(),
            text: fs::read_to_string(&path).expect("a source can be read"),
        })
        .filter(|file| {
            !file.name.ends_with("/tests.rs")
                && !file.name.contains("/tests/")
                && !file.name.ends_with("/loom_tests.rs")
                && !TEST_ONLY.contains(&file.name.as_str())
        })
        .collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources can be listed") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() {
            gather(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
