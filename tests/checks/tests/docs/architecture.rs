//! Checks that the files that ARCHITECTURE.md and DESIGN.md name exist, and that the functions and
//! constants that ARCHITECTURE.md names are in the files that it names for them.
//!
//! A path is relative to `src/`, unless it begins with another folder of the package. A file
//! without a folder is one in the folder that the same paragraph, list item or row names before, or
//! next to the file. The file of a name is the one that follows in the same clause, or else the one
//! before.

use std::fs;
use std::path::{Path, PathBuf};

use seedbed_checks::root;

use super::{files, text};

const PAGE: &str = "ARCHITECTURE.md";

/// Folders of the package that the page names with their paths.
const OTHER_FOLDERS: [&str; 7] = [
    ".ci/",
    "src/",
    "tests/",
    "examples/",
    "macros/",
    "docs/",
    "benches/",
];

#[test]
fn files_and_names_of_the_architecture_exist() {
    let page = Page::of(&text(PAGE));
    let mut checked = Checked::default();
    for block in &page.prose {
        checked.check_paths_and_names(block);
    }
    for (number, block) in page.drawings.iter().enumerate() {
        match number {
            0 => checked.check_map(block),
            _ => checked.check_diagram(block),
        }
    }
    assert!(checked.wrong.is_empty(), "{PAGE}: {:#?}", checked.wrong);
    // Otherwise the page is read in another way than it is written.
    assert!(checked.paths > 200, "only {} paths", checked.paths);
    assert!(checked.names > 35, "only {} names", checked.names);
}

#[test]
fn files_of_the_design_exist() {
    let mut checked = Checked::default();
    for block in &Page::of(&text("DESIGN.md")).prose {
        checked.check_paths(block);
    }
    assert!(checked.wrong.is_empty(), "DESIGN.md: {:#?}", checked.wrong);
    assert!(checked.paths > 60, "only {} paths", checked.paths);
}

#[test]
fn the_map_shows_every_module() {
    let page = Page::of(&text(PAGE));
    let entries = fs::read_dir(root().join("src")).expect("there are sources");
    for entry in entries {
        let path = entry.expect("they can be listed").path();
        let mut name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            name.push('/');
        }
        let mut words = page.drawings[0].split_whitespace();
        assert!(words.any(|word| word == name), "the map lacks {name}");
    }
}

/// The parts of a page that are checked.
struct Page {
    /// Paragraphs, list items and rows of tables.
    prose: Vec<String>,
    /// The contents of code blocks.
    drawings: Vec<String>,
}

impl Page {
    fn of(text: &str) -> Self {
        let mut page = Page {
            prose: vec![String::new()],
            drawings: Vec::new(),
        };
        let mut is_drawing = false;
        for line in text.lines() {
            if line.starts_with("```") {
                is_drawing = !is_drawing;
                if is_drawing {
                    page.drawings.push(String::new());
                }
                continue;
            }
            if !is_drawing && (line.is_empty() || line.starts_with("- ") || line.starts_with('|')) {
                page.prose.push(String::new());
            }
            let place = if is_drawing {
                &mut page.drawings
            } else {
                &mut page.prose
            };
            let block = place.last_mut().expect("one was pushed");
            block.push_str(line);
            block.push('\n');
        }
        page
    }
}

/// The results of the checks so far.
#[derive(Default)]
struct Checked {
    paths: usize,
    names: usize,
    wrong: Vec<String>,
}

impl Checked {
    fn check_paths(&mut self, block: &str) {
        self.check(block, false);
    }

    fn check_paths_and_names(&mut self, block: &str) {
        self.check(block, true);
    }

    fn check(&mut self, block: &str, has_names: bool) {
        let block = block.replace('\n', " ");
        let pieces: Vec<&str> = block.split('`').collect();
        // The last file or folder that was named before each piece.
        let mut before: Option<PathBuf> = None;
        for at in (1..pieces.len()).step_by(2) {
            if is_path(pieces[at]) {
                for path in expand(pieces[at]) {
                    match find(&path, before.as_deref()) {
                        Some(found) => before = Some(found),
                        None => self.wrong.push(format!("{path} does not exist")),
                    }
                    self.paths += 1;
                }
            } else if has_names
                && let Some(declared) = declarations(pieces[at], is_linked(&pieces, at))
            {
                self.names += 1;
                let next = path_in_clause(&pieces, at);
                let next = next.and_then(|path| find(&expand(path)[0], before.as_deref()));
                let Some(place) = next.or_else(|| before.clone()) else {
                    self.wrong.push(format!("{} is in no file", pieces[at]));
                    continue;
                };
                let sources = sources(&place);
                let has = |words: &String| sources.iter().any(|source| contains(source, words));
                if !declared.iter().all(has) {
                    self.wrong
                        .push(format!("{} is not in {}", pieces[at], place.display()));
                }
            }
        }
    }

    /// Checks the tree of folders. A line begins with its entry; those below a folder are indented.
    fn check_map(&mut self, drawing: &str) {
        let mut parent = String::new();
        let mut entry = String::new();
        for line in drawing.lines() {
            let indent = line.len() - line.trim_start().len();
            for (number, word) in paths_of(line) {
                let is_entry = number == 0 && indent <= 2;
                let candidates = if is_entry {
                    if indent == 0 {
                        parent = String::new();
                    }
                    entry = format!("{parent}{word}");
                    if indent == 0 {
                        parent = entry.clone();
                    }
                    vec![format!("src/{entry}")]
                } else {
                    vec![
                        format!("src/{entry}{word}"),
                        format!("src/{parent}{word}"),
                        format!("src/{word}"),
                        word.to_owned(),
                    ]
                };
                self.expect_one_of(word, &candidates);
            }
        }
    }

    fn check_diagram(&mut self, drawing: &str) {
        for line in drawing.lines() {
            for (_, word) in paths_of(line) {
                self.expect_one_of(word, &[format!("src/{word}")]);
            }
        }
    }

    fn expect_one_of(&mut self, word: &str, candidates: &[String]) {
        if !candidates.iter().any(|path| root().join(path).exists()) {
            self.wrong.push(format!("{word} does not exist"));
        }
        self.paths += 1;
    }
}

/// Returns the words of a line of a drawing that are paths, with their numbers in the line.
fn paths_of(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let words = line.split_whitespace();
    let words = words.map(|word| word.trim_matches(['(', ')', ',', ';', ':', '.']));
    words.enumerate().filter(|(_, word)| is_path(word))
}

/// Returns whether a word is a path of the package, and not one of the system.
fn is_path(word: &str) -> bool {
    (word.contains('/') || word.ends_with(".rs")) && !word.starts_with('/') && !word.contains("::")
}

/// Expands the braces of a path.
fn expand(path: &str) -> Vec<String> {
    match path.split_once('{').zip(path.split_once('}')) {
        Some(((head, _), (_, tail))) => path[head.len() + 1..path.len() - tail.len() - 1]
            .split(',')
            .map(|part| format!("{head}{}{tail}", part.trim()))
            .collect(),
        None => vec![path.to_owned()],
    }
}

/// Finds the file or folder that a path names, if `before` was named before it.
fn find(path: &str, before: Option<&Path>) -> Option<PathBuf> {
    let is_other = OTHER_FOLDERS.iter().any(|folder| path.starts_with(folder));
    let src = root().join("src");
    let candidates = match before {
        _ if is_other => vec![root().join(path)],
        _ if path.contains('/') => vec![src.join(path)],
        Some(before) if before.is_dir() => vec![before.join(path), src.join(path)],
        Some(before) => vec![before.with_file_name(path), src.join(path)],
        None => return find_anywhere(path),
    };
    let is_right = |found: &PathBuf| {
        if path.ends_with('/') {
            found.is_dir()
        } else {
            found.is_file()
        }
    };
    candidates.into_iter().find(is_right)
}

/// Finds a file of this name, such as the `tuning.rs` of any module.
fn find_anywhere(name: &str) -> Option<PathBuf> {
    let mut sources = Vec::new();
    files(&root().join("src"), ".rs", &mut sources);
    sources.into_iter().find(|path| path.ends_with(name))
}

/// Returns the texts of a file, or of all files below a folder.
fn sources(place: &Path) -> Vec<String> {
    let mut paths = vec![place.to_owned()];
    if place.is_dir() {
        paths.clear();
        files(place, ".rs", &mut paths);
    }
    let texts = paths.iter().map(fs::read_to_string);
    texts.map(|text| text.expect("it can be read")).collect()
}

/// Returns the path that follows in the same clause.
fn path_in_clause<'a>(pieces: &[&'a str], at: usize) -> Option<&'a str> {
    for next in (at + 2..pieces.len()).step_by(2) {
        if pieces[next - 1].contains([';', '|']) || pieces[next - 1].contains(". ") {
            return None;
        }
        if is_path(pieces[next]) {
            return Some(pieces[next]);
        }
    }
    None
}

/// Returns whether only other names stand between a name and the path of its file.
fn is_linked(pieces: &[&str], at: usize) -> bool {
    for next in (at + 2..pieces.len()).step_by(2) {
        match pieces[next - 1] {
            " in " | " (" => return is_path(pieces[next]),
            " and " => {}
            _ => return false,
        }
    }
    false
}

/// Returns the words that declare a name, each of which its file must have; `None` if the text is
/// no name that has a file: neither a path with a type, nor a constant, nor one for which a file is
/// named.
fn declarations(name: &str, is_linked: bool) -> Option<Vec<String>> {
    let is_identifier = |part: &str| {
        let mut letters = part.chars();
        !part.is_empty() && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
    };
    if let Some((owner, item)) = name.split_once("::") {
        if owner == "seedbed" || !is_identifier(owner) || !is_identifier(item) {
            return None;
        }
        return Some(match item {
            "drop" => vec![format!("Drop for {owner}"), "fn drop".to_owned()],
            _ if item.starts_with(char::is_lowercase) => {
                vec![owner.to_owned(), format!("fn {item}")]
            }
            _ => vec![owner.to_owned(), item.to_owned()],
        });
    }
    if let Some(beginning) = name.strip_suffix("_..") {
        return Some(vec![format!("const {beginning}_")]);
    }
    if !is_identifier(name) {
        return None;
    }
    let is_constant = name.contains('_') && !name.contains(char::is_lowercase);
    match (is_constant, is_linked) {
        (true, _) => Some(vec![format!("const {name}")]),
        (false, true) if name.starts_with(char::is_uppercase) => {
            Some(vec![format!("struct {name}")])
        }
        (false, true) => Some(vec![format!("fn {name}")]),
        (false, false) => None,
    }
}

/// Returns whether a source contains these words, and not only as a part of others.
fn contains(source: &str, words: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    source.match_indices(words).any(|(at, _)| {
        let ends = words.ends_with('_') || !source[at + words.len()..].starts_with(is_part);
        ends && !source[..at].ends_with(is_part)
    })
}

#[test]
fn a_name_is_searched_in_the_file_of_its_clause() {
    let mut checked = Checked::default();
    checked.check_paths_and_names(
        "| x | `SPIN_FOR_JOB` in `worker/child/tuning.rs`; `Attempt::drop` (`worker/call/attempt.rs`), \
         `reply.rs`, `MAP_..` in `worker/tuning.rs` |",
    );
    assert_eq!(checked.wrong, Vec::<String>::new());
    assert_eq!((checked.paths, checked.names), (4, 3));
    for wrong in [
        "`worker/call/attempts.rs`",
        "`worker/call/attempt.rs/`",
        "`worker/call`",
        "`worker/call/attempt.rs` and `link.rs`",
        "`worker/call/{attempt, link}.rs`",
        "`Attempt::poll` in `worker/call/reply.rs`",
        "`Attempt::polls` in `worker/call/attempt.rs`",
        "`Attempt::fail` in `worker/call/attempt.rs`; `Attempt::pol` there",
        "`Worker::drop` in `worker/call/attempt.rs`",
        "`SPIN_FOR_JOB` in `worker/tuning.rs`",
        "`send_by` in `worker/child/link.rs`",
        "`Attempt::poll`",
    ] {
        let mut checked = Checked::default();
        checked.check_paths_and_names(wrong);
        assert_eq!(checked.wrong.len(), 1, "{wrong}: {:?}", checked.wrong);
    }
    let mut checked = Checked::default();
    checked.check_map("worker/   calls/ and call/\n  call/   x\n  spawns/   x\ncall/  y\n");
    assert_eq!(checked.wrong.len(), 3, "{:?}", checked.wrong);
    checked.check_diagram("  worker/call/attempt.rs  x  worker/call/attempts.rs,\n");
    assert_eq!(checked.wrong.len(), 4, "{:?}", checked.wrong);
}
