//! Checks that the examples, tests and files that the README, the docs and the CI script name
//! exist, that pages say what the sources say, and that the root of the crate has few names and a
//! short map. (Code in the docs is compiled and run as doctests.)

mod architecture;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use seedbed_checks::root;

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Adds the files below a folder, at any depth, whose names have this ending.
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

/// Returns the name that follows each occurrence of `before`.
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
fn the_readme_has_at_most_five_hundred_words() {
    assert!(text("README.md").split_whitespace().count() <= 500);
}

#[test]
fn every_example_is_run_and_every_example_named_exists() {
    let examples = examples();
    let ci = text(".ci/run");
    let tests = text("tests/examples.rs");
    let calls = ["example", "run", "said"].map(|call| format!("{call}(\""));
    let tested: BTreeSet<_> = calls
        .iter()
        .flat_map(|call| names_after(&tests, call))
        .collect();
    for example in &examples {
        let name = example.as_str();
        assert!(
            tested.contains(name) || names_after(&ci, "example ").contains(name),
            "neither tests/examples.rs nor .ci/run runs the example `{example}`"
        );
    }
    for page in [".ci/run", "README.md", "examples/README.md"] {
        for name in names_after(&text(page), "--example ") {
            assert!(
                examples.contains(name),
                "{page} names the example `{name}`, which does not exist"
            );
        }
    }
}

/// Code, tables and links cannot be wrapped, and generated code is as it is.
#[test]
fn comments_wrap_at_a_hundred_columns() {
    let mut sources = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "macros"] {
        files(&root().join(folder), ".rs", &mut sources);
    }
    let mut too_long = Vec::new();
    sources.retain(|path| {
        !path
            .components()
            .any(|part| part.as_os_str() == "generated")
    });
    for path in sources {
        let source = fs::read_to_string(&path).unwrap();
        let mut is_code = false;
        for (number, line) in (1..).zip(source.lines()) {
            let Some(comment) = line.trim_start().strip_prefix("//") else {
                is_code &= line.trim_start().starts_with("#[doc"); // a macro's part of an example
                continue;
            };
            let comment = comment.trim_start_matches(['/', '!']).trim_start();
            is_code ^= comment.starts_with("```");
            let cannot_wrap = is_code || comment.starts_with('|') || comment.contains("](");
            if line.chars().count() > 100 && !cannot_wrap {
                too_long.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(
        too_long.is_empty(),
        "longer than 100 columns: {too_long:#?}"
    );
}

#[test]
fn pages_for_contributors_wrap_at_a_hundred_columns() {
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md", "DESIGN.md"] {
        for (number, line) in (1..).zip(text(page).lines()) {
            let is_row = line.starts_with('|');
            assert!(is_row || line.chars().count() <= 100, "{page}:{number}");
        }
    }
}

#[test]
fn the_default_idle_timeout_is_what_the_docs_say() {
    let tuning = text("src/worker/tuning.rs");
    let (_, value) = tuning
        .split_once("DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(")
        .expect("it is a number of seconds");
    let seconds: u64 = value.split(')').next().unwrap().parse().unwrap();
    for (page, says) in [
        (
            "src/worker/config/worker_config.rs",
            format!("an idle timeout of {} minutes", seconds / 60),
        ),
        (
            "docs/from_trio_parallel.md",
            format!("| `idle_timeout`, {seconds} s,"),
        ),
    ] {
        assert!(text(page).contains(&says), "{page} does not say: {says}");
    }
}

#[test]
fn every_example_is_listed() {
    let readme = text("examples/README.md");
    for example in examples() {
        let named = ["`", "--example "]
            .iter()
            .any(|before| names_after(&readme, before).contains(example.as_str()));
        assert!(
            named,
            "examples/README.md does not list the example `{example}`"
        );
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

/// The subjects of the rows about Trio and tricycle, and the number of rows of each.
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

/// Texts that the last column of a row may have instead of names of tests.
const UNTESTED: [&str; 3] = ["being built", "cannot be written", "left out"];

/// Returns the cells of each row of the table, without the outermost bars.
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
    let page = text("tests/trio_rows.md");
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
    let page = text("tests/trio_rows.md");
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
        wrong.extend(missing_tests(id, held_by, &tests));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Says which tests that the row of `id` names are missing.
fn missing_tests(id: &str, held_by: &str, tests: &[(String, String)]) -> Vec<String> {
    let is_there = |name: &&str| {
        let (place, test) = name.rsplit_once("::").unwrap_or(("", name));
        let mut tests = tests.iter();
        tests.any(|(file, name)| name == test && is_below(file, place))
    };
    let names = held_by.split(", ").map(|name| name.trim_matches('`'));
    let missing = names.filter(|name| !is_there(name));
    missing
        .map(|name| format!("{id} names {name}, which does not exist"))
        .collect()
}

#[test]
fn every_row_of_a_fault_names_tests_that_exist() {
    let page = text("tests/faults.md");
    let tests = tests_by_place();
    let mut wrong = Vec::new();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    for row in rows.skip(1) {
        let inner = row.trim_start_matches("| ").trim_end_matches(" |");
        let cells: Vec<&str> = inner.split(" | ").collect();
        let [id, _, _, held_by] = cells[..] else {
            panic!("a row has four cells: {row}");
        };
        if held_by != "docs" {
            wrong.extend(missing_tests(id, held_by, &tests));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns whether this file is the named module, or in it.
fn is_below(file: &str, place: &str) -> bool {
    file.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns all tests: the file, as a module path below `tests` or `src`, and the name.
fn tests_by_place() -> Vec<(String, String)> {
    let mut tests = Vec::new();
    for folder in ["src", "tests", "tests/checks/tests"] {
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
            let names = tests_in(&source).chain(listed_in(&source));
            tests.extend(names.map(|name| (place.clone(), name.to_string())));
        }
    }
    tests
}

/// Returns the names of the functions of a source that are marked as tests.
fn tests_in(source: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    source.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[") || line.starts_with("//") {
            marked |= line == "#[test]" || line.starts_with("#[seedbed::test");
            return None;
        }
        let name = line.trim_start_matches("async ").strip_prefix("fn ")?;
        std::mem::take(&mut marked).then(|| name.split('(').next().unwrap_or(name))
    })
}

/// Returns the names that stand alone in a line of a source, before a comma: test programs with a
/// `main` of their own list their tests so, as functions or as strings.
fn listed_in(source: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    source
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','))
        .map(|name| name.trim_matches('"'))
        .filter(move |name| !name.is_empty() && name.chars().all(is_part))
}

/// Pages whose links to files are relative paths. rustdoc checks the links in `docs`.
const LINKING_PAGES: [&str; 10] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "DESIGN.md",
    "SECURITY.md",
    "benches/README.md",
    "examples/README.md",
    "tests/faults.md",
    "tests/trio_rows.md",
];

#[test]
fn every_link_from_a_page_to_a_file_leads_to_one() {
    for page in LINKING_PAGES {
        let folder = root().join(page);
        let folder = folder.parent().expect("a page is in a folder");
        for link in text(page).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or("");
            if !target.contains("://") && !target.is_empty() {
                assert!(
                    folder.join(target).exists(),
                    "{page} links to {target}, which does not exist"
                );
            }
        }
    }
}

/// Names of other libraries, under which a search in the docs finds an item: the name, the file
/// below `src`, and the item.
const ALIASES: &[(&str, &str, &str)] = &[
    ("block_on", "run/builder.rs", "run"),
    ("Runtime", "run/builder.rs", "RunBuilder"),
    ("TrioToken", "run/handle.rs", "RunHandle"),
    ("from_thread", "run/handle.rs", "RunHandle"),
    ("spawn_blocking", "thread/run_sync.rs", "run_sync"),
    ("to_thread", "thread/run_sync.rs", "run_sync"),
    ("unblock", "thread/run_sync.rs", "run_sync"),
    ("run_in_executor", "worker/call/run_sync.rs", "run_sync"),
    ("to_process", "worker/call/run_sync.rs", "run_sync"),
    (
        "ProcessPoolExecutor",
        "worker/pool/current.rs",
        "open_worker_context",
    ),
    (
        "multiprocessing",
        "worker/pool/current.rs",
        "open_worker_context",
    ),
    ("initializer", "worker/config/closures.rs", "init"),
    (
        "maxtasksperchild",
        "worker/config/closures.rs",
        "retire_after",
    ),
    ("start_soon", "task/nursery.rs", "spawn"),
    ("task_status", "task/nursery.rs", "start"),
    ("select", "task/nursery.rs", "terminate"),
    ("race", "task/nursery.rs", "terminate"),
    ("JoinSet", "task/open.rs", "open_nursery"),
    ("TaskGroup", "task/open.rs", "open_nursery"),
    ("join_all", "task/open.rs", "open_nursery"),
    ("coroutine_scope", "task/open.rs", "open_nursery"),
    ("try_join_all", "task/open.rs", "try_open_nursery"),
    ("ErrGroup", "task/open.rs", "try_open_nursery"),
    ("LocalSet", "task/open.rs", "open_local_nursery"),
    ("spawn_local", "task/open.rs", "open_local_nursery"),
    ("JoinHandle", "task/child_handle.rs", "Task"),
    ("dump", "task/tree.rs", "task_tree"),
    ("CancellationToken", "cancel/cancel_scope.rs", "CancelScope"),
    ("abort", "cancel/cancel_scope.rs", "cancel"),
    ("CancelScope.shield", "cancel/shield.rs", "shield"),
    ("NonCancellable", "cancel/shield.rs", "shield"),
    ("finally", "cancel/shield.rs", "on_cancel"),
    ("AsyncDrop", "cancel/shield.rs", "on_cancel"),
    ("timeout", "cancel/timeout.rs", "fail_after"),
    ("wait_for", "cancel/timeout.rs", "fail_after"),
    ("timeout", "cancel/timeout.rs", "move_on_after"),
    ("timeout_at", "cancel/timeout.rs", "fail_at"),
    ("yield_now", "cancel/checkpoint.rs", "checkpoint"),
    ("lowlevel.checkpoint", "cancel/checkpoint.rs", "checkpoint"),
    ("child_token", "cancel/group.rs", "ScopeGroup"),
    ("memory_channel", "sync/channel/open.rs", "channel"),
    ("open_memory_channel", "sync/channel/open.rs", "channel"),
    ("mpsc", "sync/channel/open.rs", "channel"),
    ("Notify", "sync/event.rs", "Event"),
    ("async_generator", "sync/producer.rs", "open_producer"),
    ("as_safe_channel", "sync/producer.rs", "open_producer"),
    ("throttle", "sync/limiter/handle.rs", "CapacityLimiter"),
    ("max_workers", "sync/limiter/handle.rs", "CapacityLimiter"),
    ("contextvars", "variables/tree_var.rs", "TreeVar"),
    ("task_local", "variables/tree_var.rs", "TreeVar"),
    ("autojump_clock", "testing/mock_clock.rs", "MockClock"),
    ("pause", "testing/mock_clock.rs", "MockClock"),
    (
        "run_until_stalled",
        "testing/blocked.rs",
        "wait_all_tasks_blocked",
    ),
    ("ctrl_c", "signal/receiver.rs", "open_signal_receiver"),
    ("subprocess", "process/call.rs", "run_process"),
    ("open_process", "process/call.rs", "run_process"),
    ("pending", "time/sleep.rs", "sleep_forever"),
    ("virtual time", "time/clock.rs", "Clock"),
    (
        "shared_memory",
        "transport/payload/shared_slice.rs",
        "SharedBytes",
    ),
    ("memfd", "transport/payload/shared_slice.rs", "SharedBytes"),
];

#[test]
fn a_search_for_a_name_of_another_library_finds_the_item_here() {
    assert!(ALIASES.len() >= 40);
    for (alias, file, item) in ALIASES {
        let source = text(&format!("src/{file}"));
        let attribute = format!("#[doc(alias = \"{alias}\")]");
        let is_on_item = source.split(&attribute).skip(1).any(|rest| {
            let mut lines = rest.lines().map(str::trim_start);
            let declared = lines
                .find(|line| line.starts_with("pub "))
                .unwrap_or_default();
            let mut words = declared.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| word == *item)
        });
        assert!(is_on_item, "{file}: `{item}` has no alias `{alias}`");
    }
}

/// The most names that the root of the crate may have, with modules and macros.
const ROOT_NAMES: usize = 40;

/// The number of rows of the map in the docs of the crate.
const MAP_ROWS: usize = 10;

#[test]
fn the_root_of_the_crate_has_few_names() {
    let names = root_names(&text("src/lib.rs"));
    for name in [
        "open_nursery",
        "run_sync",
        "cancel",
        "main",
        "CapacityLimiter",
    ] {
        assert!(names.contains(name), "{name} was not found in src/lib.rs");
    }
    assert!(
        names.len() <= ROOT_NAMES,
        "the root has {} names; at most {ROOT_NAMES} may stay there: {names:?}",
        names.len()
    );
}

#[test]
fn the_map_of_the_crate_has_ten_rows_that_name_every_module() {
    let source = text("src/lib.rs");
    let map = source
        .split("//! # The map")
        .nth(1)
        .and_then(|rest| rest.split("//! # ").next())
        .expect("the docs of the crate have a map");
    let rows: Vec<&str> = map
        .lines()
        .filter(|line| line.starts_with("//! | "))
        .skip(1)
        .collect();
    assert_eq!(rows.len(), MAP_ROWS, "{rows:#?}");
    // The guide has a list of its own.
    let modules = root_modules(&source);
    for module in modules.iter().filter(|module| *module != "guide") {
        let named = ["`]", "::", "()"]
            .iter()
            .any(|end| map.contains(&format!("[`{module}{end}")));
        assert!(named, "the map of the crate does not name `{module}`");
    }
}

#[test]
fn names_of_a_root_are_what_it_declares_and_what_it_exports() {
    let source = "mod hidden; pub mod shown; use a::B; pub(crate) use c::D; pub mod inline { pub use e::F; } \
                  #[doc(inline)] pub use g::{H, i::{J, self as k}, L as M}; pub use n; pub use g::H;";
    let names: Vec<String> = root_names(source).into_iter().collect();
    assert_eq!(names, ["H", "J", "M", "inline", "k", "n", "shown"]);
    let modules: Vec<String> = root_modules(source).into_iter().collect();
    assert_eq!(modules, ["inline", "shown"]);
}

/// Returns the modules that this source declares `pub`.
fn root_modules(source: &str) -> BTreeSet<String> {
    public_items(source, "mod")
        .iter()
        .map(|item| item[0].to_string())
        .collect()
}

/// Returns the public names of a root that has only modules and re-exports.
fn root_names(source: &str) -> BTreeSet<String> {
    let mut names = root_modules(source);
    for item in public_items(source, "use") {
        last_names(item, &mut names);
    }
    names
}

/// Returns what follows `pub` and this keyword in each item, to the end of the item.
fn public_items(source: &str, keyword: &str) -> Vec<Vec<TokenTree>> {
    let tokens: TokenStream = source.parse().expect("the source is Rust");
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let starts = tokens
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0].to_string() == "pub" && pair[1].to_string() == keyword);
    let items = starts.map(|(at, _)| {
        let item = tokens[at + 2..].iter();
        item.take_while(|token| token.to_string() != ";")
            .cloned()
            .collect()
    });
    items.collect()
}

/// Adds the names that a `use` makes: the last part of each path, or what follows `as`.
fn last_names(path: impl IntoIterator<Item = TokenTree>, names: &mut BTreeSet<String>) {
    let mut last = None;
    for token in path {
        match token {
            TokenTree::Group(list) => {
                last = None;
                last_names(list.stream(), names);
            }
            TokenTree::Punct(mark) if mark.as_char() == ',' => names.extend(last.take()),
            TokenTree::Punct(mark) if mark.as_char() == '*' => {
                panic!("the names of a glob cannot be counted")
            }
            TokenTree::Ident(word) => last = Some(word.to_string()),
            _ => {}
        }
    }
    names.extend(last);
}
