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
