//! What the README, the pages of `docs` and the CI script name exists. (Their code is compiled and run as doctests.)

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files below a folder, at any depth, whose names end like that.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
}

/// What stands behind each occurrence of `before`, up to the first character that is no part of a name.
fn names_after<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.split(before)
        .skip(1)
        .map(|rest| rest.split(|c| !is_part(c)).next().unwrap_or(""))
        .filter(|name| !name.is_empty())
        .collect()
}

fn examples() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("examples")).expect("there are examples");
    let names = entries.map(|entry| entry.expect("they can be listed").path());
    names
        .filter(|path| path.is_dir() || path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_example_is_run_by_ci_and_every_example_named_exists() {
    let examples = examples();
    let ci = text(".ci/run");
    for example in &examples {
        assert!(
            names_after(&ci, "example ").contains(example.as_str()),
            ".ci/run does not run the example `{example}`"
        );
    }
    for page in [".ci/run", "README.md"] {
        for name in names_after(&text(page), "--example ") {
            assert!(
                examples.contains(name),
                "{page} names the example `{name}`, which does not exist"
            );
        }
    }
}

#[test]
fn every_example_is_named_by_the_readme() {
    let readme = text("README.md");
    for example in examples() {
        let named = ["`", "--example "]
            .iter()
            .any(|before| names_after(&readme, before).contains(example.as_str()));
        assert!(named, "README.md does not name the example `{example}`");
    }
}

#[test]
fn every_test_that_the_table_names_exists() {
    let mut sources = Vec::new();
    files(&root().join("src"), ".rs", &mut sources);
    files(&root().join("tests"), ".rs", &mut sources);
    let sources: Vec<String> = sources
        .iter()
        .map(|path| fs::read_to_string(path).expect("a source can be read"))
        .collect();
    let page = text("docs/from_trio_parallel.md");
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| TP-"))
        .collect();
    assert!(rows.len() > 30);
    let mut missing = Vec::new();
    for row in rows {
        let held_by = row
            .trim_end_matches([' ', '|'])
            .rsplit_once('|')
            .expect("a row has columns")
            .1;
        let names: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing holds {row}");
        for name in names.iter().filter(|name| !name.starts_with('[')) {
            let declaration = format!("fn {name}(");
            if !name.contains("::") && !sources.iter().any(|source| source.contains(&declaration)) {
                missing.push(*name);
            }
        }
    }
    missing.retain(|name| name.contains('_'));
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

/// The promises of Trio and tricycle, by subject: how they are numbered, and how many there are.
const PROMISES: [(&str, u32); 12] = [
    ("RUN", 17),
    ("CP", 9),
    ("CS", 26),
    ("NU", 30),
    ("SY", 34),
    ("CH", 20),
    ("TH", 19),
    ("PR", 14),
    ("SI", 6),
    ("LL", 28),
    ("TE", 16),
    ("TR", 20),
];

/// What the last column of a row may say instead of naming tests.
const UNTESTED: [&str; 3] = ["being built", "cannot be written", "left out"];

/// The rows of the page that goes through Trio's promises: their cells, without the outermost bars.
fn promise_rows(page: &str) -> Vec<Vec<&str>> {
    let is_row = |line: &&str| {
        PROMISES
            .iter()
            .any(|(subject, _)| line.starts_with(&format!("| {subject}-")))
    };
    page.lines()
        .filter(is_row)
        .map(|line| {
            let inner = line.trim_start_matches("| ").trim_end_matches(" |");
            inner.split(" | ").collect()
        })
        .collect()
}

#[test]
fn every_promise_of_trio_has_one_row_or_is_left_out() {
    let page = text("docs/trio_rows.md");
    let left_out = page.split("**Left out**").nth(1).expect("it says so");
    let left_out = left_out.split("\n\n").next().expect("a paragraph");
    let left_out: Vec<&str> = left_out.split([' ', '(', ')', ',', '.', '\n']).collect();
    let mut expected = BTreeSet::new();
    for (subject, count) in PROMISES {
        for number in 1..=count {
            let id = format!("{subject}-{number}");
            if !left_out.contains(&id.as_str()) {
                expected.insert(id);
            }
        }
    }
    let rows = promise_rows(&page);
    let found: BTreeSet<String> = rows.iter().map(|row| row[0].to_string()).collect();
    assert_eq!(rows.len(), found.len(), "a promise has two rows");
    let missing: Vec<_> = expected.difference(&found).collect();
    let unknown: Vec<_> = found.difference(&expected).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "without a row: {missing:?}; neither promised nor kept: {unknown:?}"
    );
}

#[test]
fn every_row_of_a_promise_names_tests_that_exist() {
    let page = text("docs/trio_rows.md");
    let tests = tests_by_place();
    let mut wrong = Vec::new();
    for row in promise_rows(&page) {
        let [id, _, here, held_by] = row[..] else {
            panic!("a row has four cells: {row:?}");
        };
        if here.is_empty() || (UNTESTED.contains(&held_by) && !here.contains(held_by)) {
            wrong.push(format!("{id} does not say why it has no test"));
        }
        if UNTESTED.contains(&held_by) {
            continue;
        }
        for name in held_by.split(", ") {
            let name = name.trim_matches('`');
            let (place, test) = name.rsplit_once("::").unwrap_or(("", name));
            let is_there = |(file, name): &(String, String)| name == test && is_below(file, place);
            if !tests.iter().any(is_there) {
                wrong.push(format!("{id} names {name}, which does not exist"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether this file is the named module, or in it.
fn is_below(file: &str, place: &str) -> bool {
    file.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// All tests: the file, as a module's path from `tests` or `src`, and the name.
fn tests_by_place() -> Vec<(String, String)> {
    let mut tests = Vec::new();
    for folder in ["src", "tests"] {
        let folder = root().join(folder);
        let mut sources = Vec::new();
        files(&folder, ".rs", &mut sources);
        for path in sources {
            let place = path.strip_prefix(&folder).expect("it was found there");
            let place = place
                .with_extension("")
                .to_string_lossy()
                .replace('/', "::");
            let source = fs::read_to_string(&path).expect("a source can be read");
            tests.extend(tests_in(&source).map(|name| (place.clone(), name.to_string())));
        }
    }
    tests
}

/// The names of the functions in a source that are marked as tests, or stand in `seedbed::test!`.
fn tests_in(source: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    let mut in_macro = false;
    source.lines().filter_map(move |line| {
        in_macro = (in_macro && !line.starts_with('}')) || line.starts_with("seedbed::test! {");
        let line = line.trim_start();
        if line.starts_with("#[") || line.starts_with("//") {
            marked |= line == "#[test]";
            return None;
        }
        let name = line.trim_start_matches("async ").strip_prefix("fn ")?;
        let is_test = std::mem::take(&mut marked) || in_macro;
        is_test.then(|| name.split('(').next().unwrap_or(name))
    })
}

#[test]
fn every_link_of_the_readme_to_a_file_leads_to_one() {
    let readme = text("README.md");
    for link in readme.split("](").skip(1) {
        let target = link.split(')').next().unwrap_or("");
        if !target.contains("://") {
            assert!(
                root().join(target).exists(),
                "README.md links to {target}, which does not exist"
            );
        }
    }
}
