//! Checks the structure of the sources: a module imports only from its own layer and from those
//! below it, and neither modules nor the files of a module import each other in a circle.
//!
//! A path that leads to another file of the crate is an import, in a `use` as well as elsewhere. It
//! counts for the file that it names: `super::Name` is an import of the `mod.rs` above, also if
//! that only re-exports `Name` from another file.

mod cycles;
mod paths;
mod sources;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use seedbed_checks::root;

use crate::cycles::{Cycle, cycles};
use crate::sources::{Import, Source, modules, sources};

/// The crate's modules, from the bottom up.
const LAYERS: [&[&str]; 13] = [
    &["sys"],
    &["transport"],
    &["ambient", "wait"],
    &["time", "variables"],
    &["cancel"],
    &["task"],
    &["sync"],
    &["thread", "signal", "testing", "instrument"],
    &["process", "service", "resource"],
    &["worker"],
    &["run"],
    &["remote", "delayed"],
    &["guide"],
];

/// The layers below which nothing is async.
const LOWEST_ASYNC_LAYER: usize = 2;

/// The worker's side of a connection, and the modules that it may use: the others would bring the
/// runtime into the worker.
const CHILD: &str = "worker/child/";
const CHILD_MAY_USE: [&str; 2] = ["sys", "transport"];

/// Crates that neither the worker's side nor the layers that it stands on may use.
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
    let sources = sources();
    let modules = modules(&sources);
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.name != "lib.rs") {
        for import in source.imports(&modules) {
            faults.extend(upward(&import).map(|rule| fault(&import, &rule)));
        }
        faults.extend(runtime_in_worker(source));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn no_modules_and_no_files_of_a_module_import_each_other_in_a_circle() {
    let sources = sources();
    let modules = modules(&sources);
    let imports: Vec<Import> = sources
        .iter()
        .filter(|source| source.name != "lib.rs")
        .flat_map(|source| source.imports(&modules))
        .collect();
    let report: Vec<String> = cycles(&imports).iter().map(describe).collect();
    assert!(report.is_empty(), "\n{}\n", report.join("\n"));
}

#[test]
fn every_module_has_a_layer_and_every_name_in_a_layer_is_a_module() {
    let sources = sources();
    let found: BTreeSet<&str> = sources
        .iter()
        .filter_map(|source| Some(source.module.first()?.as_str()))
        .collect();
    assert_eq!(found, LAYERS.concat().into_iter().collect());
}

#[test]
fn the_library_stands_on_smol_and_not_on_tokio() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
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
fn every_kind_of_path_leads_to_its_file() {
    let text = "
        mod low;
        pub(in crate::sys) use self::low::{self as bottom, Low};
        use crate::{sys::{fork::{self, Fork as F}, image}, transport as carrier};
        use super::super::sync::Event;
        use smol::Async;
        /// Names crate::run in its docs.
        fn f() -> impl Sized + use<> { crate::worker::hook::<super::Above>(); } // and crate::run in a comment
        macro_rules! m { () => { $crate::task::open(main()) } }
        fn g() { fork::now(); carrier::frame::read(); bottom::x(); low::y(); std::fs::read(); }
        mod inline { use super::low; fn h() { super::super::Above::new(); } }
        #[cfg(test)]
        mod tests { use crate::testing::MockClock; }
        #[cfg(all(test, loom))]
        mod loom_tests;
    ";
    let names = [
        "lib.rs",
        "run.rs",
        "sync.rs",
        "sys/fork.rs",
        "sys/image.rs",
        "sys/mod.rs",
        "task/mod.rs",
        "testing.rs",
        "transport/frame.rs",
        "transport/mod.rs",
        "worker/call/low.rs",
        "worker/call/mod.rs",
        "worker/mod.rs",
    ];
    let mut sources: Vec<Source> = names
        .iter()
        .map(|&name| Source::read(name.into(), ""))
        .collect();
    let modules = modules(&sources);
    sources.retain(|source| source.name == "worker/call/mod.rs");
    sources[0] = Source::read("worker/call/mod.rs".into(), text);
    let imports = sources[0].imports(&modules);
    let found: Vec<(usize, &str, &str)> = imports
        .iter()
        .map(|import| (import.line, import.path.as_str(), import.to.as_str()))
        .collect();
    let expected = [
        (3, "self::low", "worker/call/low.rs"),
        (3, "self::low::Low", "worker/call/low.rs"),
        (4, "crate::sys::fork", "sys/fork.rs"),
        (4, "crate::sys::fork::Fork", "sys/fork.rs"),
        (4, "crate::sys::image", "sys/image.rs"),
        (4, "crate::transport", "transport/mod.rs"),
        (5, "super::super::sync::Event", "sync.rs"),
        (8, "crate::worker::hook", "worker/mod.rs"),
        (8, "super::Above", "worker/mod.rs"),
        (9, "crate::task::open", "task/mod.rs"),
        (10, "fork::now", "sys/fork.rs"),
        (10, "carrier::frame::read", "transport/frame.rs"),
        (10, "bottom::x", "worker/call/low.rs"),
        (10, "low::y", "worker/call/low.rs"),
        (11, "super::low", "worker/call/low.rs"),
        (11, "super::super::Above::new", "worker/mod.rs"),
    ];
    assert_eq!(found, expected);
    assert_eq!(paths::read(text).test_modules, ["loom_tests"]);
}

#[test]
fn each_rule_is_enforced() {
    let import = |from: &str, to: &str| Import {
        from: from.into(),
        to: to.into(),
        path: String::new(),
        line: 1,
    };
    let rules = [
        ("sync/mod.rs", "worker/spawn/hook.rs", "imports upwards"),
        ("sync/mod.rs", "lib.rs", "re-exports"),
        (
            "worker/child/mod.rs",
            "worker/spawn/hook.rs",
            "worker's side",
        ),
        ("worker/child/mod.rs", "sync/event.rs", "worker's side"),
    ];
    for (from, to, rule) in rules {
        let broken = upward(&import(from, to)).unwrap_or_default();
        assert!(broken.contains(rule), "{from} -> {to}: {broken}");
    }
    let allowed = [
        ("worker/child/mod.rs", "transport/frame.rs"),
        ("worker/child/mod.rs", "worker/child/link.rs"),
        ("run/mod.rs", "sys/mod.rs"),
    ];
    for (from, to) in allowed {
        assert_eq!(upward(&import(from, to)), None, "{from} -> {to}");
    }
    let child = Source::read(
        "worker/child/mod.rs".into(),
        "use smol::Async;\nuse std::fs;",
    );
    assert_eq!(runtime_in_worker(&child).len(), 1);
    let parent = Source::read("worker/mod.rs".into(), "use smol::Async;");
    assert!(runtime_in_worker(&parent).is_empty());

    let imports = [
        import("a/x.rs", "b/x.rs"),
        import("b/y.rs", "c.rs"),
        import("c.rs", "a/z.rs"),
        import("a/x.rs", "a/mod.rs"),
        import("d.rs", "a/x.rs"),
        import("e/one.rs", "e/two.rs"),
        import("e/two.rs", "e/one.rs"),
    ];
    let found: Vec<String> = cycles(&imports)
        .iter()
        .map(|cycle| format!("{}: {:?}", cycle.folder, cycle.entries))
        .collect();
    assert_eq!(
        found,
        [r#": {"a", "b", "c.rs"}"#, r#"e: {"one.rs", "two.rs"}"#]
    );
}

/// Returns the rule that an import breaks by leading to a module that the importing file may not
/// use.
fn upward(import: &Import) -> Option<String> {
    let (from, to) = (module(&import.from), module(&import.to));
    let in_child = import.from.starts_with(CHILD) && !import.to.starts_with(CHILD);
    if in_child && !CHILD_MAY_USE.contains(&to) {
        return Some(format!(
            "the worker's side of a connection uses only {CHILD_MAY_USE:?} of this crate"
        ));
    }
    let Some(to_layer) = layer(to) else {
        return Some(
            "names the module of the item, not an item that the crate's root re-exports".into(),
        );
    };
    let from_layer = layer(from)?;
    (to_layer > from_layer).then(|| {
        format!("`{from}` (layer {from_layer}) imports upwards from `{to}` (layer {to_layer})")
    })
}

/// Returns a message for each path into the runtime's crates in a file that runs in workers.
fn runtime_in_worker(source: &Source) -> Vec<String> {
    let low = layer(module(&source.name)).is_some_and(|layer| layer < LOWEST_ASYNC_LAYER);
    if !low && !source.name.starts_with(CHILD) {
        return Vec::new();
    }
    let of_runtime = source
        .paths
        .iter()
        .filter(|path| RUNTIME.contains(&path.segments[0].as_str()));
    of_runtime
        .map(|path| {
            let (name, line, path) = (&source.name, path.line, path.segments.join("::"));
            format!("src/{name}:{line}: `{path}`: runs in a worker, and uses no runtime")
        })
        .collect()
}

/// The top-level module that a file belongs to.
fn module(file: &str) -> &str {
    file.split('/')
        .next()
        .unwrap_or(file)
        .trim_end_matches(".rs")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn fault(import: &Import, rule: &str) -> String {
    let Import {
        from, path, line, ..
    } = import;
    format!("src/{from}:{line}: `{path}`: {rule}")
}

/// Names the entries of a cycle and, for each two that import each other's files, the first import
/// and the number of them. The pairs with the fewest imports come first, as these are the easiest
/// to cut.
fn describe(cycle: &Cycle<'_>) -> String {
    let entries: Vec<&str> = cycle.entries.iter().map(String::as_str).collect();
    let mut text = format!(
        "src/{}: a circle of imports between {}:",
        cycle.folder,
        entries.join(", ")
    );
    let mut imports: Vec<_> = cycle.imports.iter().collect();
    imports.sort_by_key(|(_, imports)| imports.len());
    for ((from, to), imports) in imports {
        let first = fault(imports[0], "the first of");
        let _ = write!(
            text,
            "\n  {first} {} imports of {to} by {from}",
            imports.len()
        );
    }
    text
}
