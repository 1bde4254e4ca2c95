//! Runs the survey example as a user does, on trees with broken and hostile files.

#[path = "../../../tests/common/dispositions.rs"]
mod dispositions;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use tempfile::TempDir;

/// Returns a command that runs the survey.
fn survey() -> Command {
    // The survey handles Ctrl-C, so it must not inherit that SIGINT is ignored.
    dispositions::reset();
    Command::new(env!("CARGO_BIN_EXE_survey"))
}

/// A folder to survey.
struct Tree(TempDir);

impl Tree {
    fn new() -> Tree {
        Tree(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        fs::write(self.at(name), content).unwrap();
    }

    /// Makes a sparse file of zeros, which takes no space on the disk.
    fn sparse_file(&self, name: &str, megabytes: u64) {
        let file = File::create(self.at(name)).unwrap();
        file.set_len(megabytes << 20).unwrap();
    }

    fn fifo(&self, name: &str) {
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, self.at(name), FileType::Fifo, mode, 0).unwrap();
    }

    /// Returns the command that surveys the tree, with these options.
    fn survey(&self, options: &[&str]) -> Command {
        let mut command = survey();
        command
            .args(options)
            .arg(self.0.path())
            .stdin(Stdio::null());
        command
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Parses the report of a survey with `--json`.
fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error} in {}{}",
            text(&output.stdout),
            text(&output.stderr)
        )
    })
}

/// Returns the file name of a path in a report.
fn name(entry: &Value) -> String {
    let path = Path::new(entry["path"].as_str().unwrap());
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Returns the files that could not be surveyed, each with the report's message.
fn not_surveyed(report: &Value) -> BTreeMap<String, String> {
    let entries = report["not_surveyed"].as_array().unwrap().iter();
    entries
        .map(|entry| (name(entry), entry["message"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn one_bad_file_never_costs_another_file_its_result() {
    let tree = Tree::new();
    for index in 0..20 {
        tree.file(format!("good_{index}.rs"), "fn f() { unsafe { g() } }\n");
    }
    tree.file(OsStr::from_bytes(b"good_\xff.rs"), "fn f() {}\n");
    // Few enough that the stack overflows before the tokens need more memory than the cap.
    let parentheses = "(".repeat(50_000) + &")".repeat(50_000);
    tree.file("deep.rs", format!("const X: () = {parentheses};"));
    tree.file("latin1.rs", b"// caf\xe9\n");
    tree.file("wrong.rs", "fn f() {}\nfn fn() {}\n");
    tree.sparse_file("larger_than_the_cap.rs", 300);
    // This file can be read, but the parser copies it.
    tree.sparse_file("larger_than_half_of_the_cap.rs", 40);
    symlink("nowhere", tree.at("dangling.rs")).unwrap();
    symlink("good_0.rs", tree.at("good_link.rs")).unwrap();
    tree.file("not_rust.txt", b"\xff");

    // An hour, as a slow machine may take long.
    let limits = ["--timeout", "1h", "--memory", "64M"];
    let mut command = tree.survey(&["--json", "--jobs", "3"]);
    let output = command.args(limits).output().unwrap();
    let report = report(&output);

    let reasons = not_surveyed(&report);
    let reasons: Vec<_> = reasons
        .iter()
        .map(|(name, reason)| (name.as_str(), reason.as_str()))
        .collect();
    assert_eq!(
        reasons,
        [
            (
                "dangling.rs",
                "unreadable: No such file or directory (os error 2)"
            ),
            ("deep.rs", "crashed: stack overflow (SIGABRT)"),
            ("larger_than_half_of_the_cap.rs", "over the memory cap"),
            ("larger_than_the_cap.rs", "over the memory cap"),
            ("latin1.rs", "not UTF-8 (byte 6)"),
            (
                "wrong.rs",
                "syntax error at 2:4: expected identifier, found keyword `fn`"
            ),
        ]
    );
    assert_eq!(report["surveyed"], 22);
    assert_eq!(report["reported"], 6);
    assert_eq!(report["found"], 28);
    assert_eq!(report["unreached"], 0);
    assert_eq!(report["totals"]["unsafe_blocks"]["total"], 21);

    // Unreadable files make the exit status a failure, and are reported on one line.
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "survey: one file or folder could not be read, and is in the report\n"
    );
}

#[test]
fn a_file_that_never_ends_costs_the_time_limit() {
    let tree = Tree::new();
    tree.fifo("fifo.rs");
    let mut command = tree.survey(&["--json", "--timeout", "200ms"]);
    let report = report(&command.output().unwrap());
    let expected = ("fifo.rs", "timed out and killed after 200ms");
    let expected = [expected].map(|(name, reason)| (name.to_owned(), reason.to_owned()));
    assert_eq!(not_surveyed(&report), expected.into());
}

#[test]
fn a_survey_of_good_files_prints_tables_and_succeeds() {
    let tree = Tree::new();
    tree.file("a.rs", "fn short() {}\n");
    tree.file("b.rs", "\nfn long() {\n    loop {\n    }\n}\n");
    let output = tree.survey(&[]).output().unwrap();
    let table = text(&output.stdout);
    for part in [
        "lines                          6",
        "b.rs:2 long",
        "\n2 surveyed + 0 reported = 2 files found, in ",
    ] {
        assert!(table.contains(part), "no {part:?} in\n{table}");
    }
    assert_eq!(
        (text(&output.stderr), output.status.code()),
        (String::new(), Some(0))
    );
}

#[test]
fn a_limit_takes_the_first_files_and_accounts_for_the_others() {
    let tree = Tree::new();
    for name in ["c.rs", "a.rs", "b.rs"] {
        tree.file(name, "fn f() {}");
    }
    let output = tree
        .survey(&["--limit", "2", "--json", "--jobs", "1"])
        .output()
        .unwrap();
    let report = report(&output);
    let files: Vec<_> = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect();
    assert_eq!(files, ["a.rs", "b.rs"]);
    assert_eq!(report["found"], 3);
    assert_eq!(report["beyond_limit"], 1);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn without_a_folder_cargos_registry_and_this_project_are_surveyed() {
    let cargo_home = Tree::new();
    let sources = cargo_home.at("registry/src/index/crate-1.0.0");
    fs::create_dir_all(&sources).unwrap();
    fs::write(sources.join("lib.rs"), "").unwrap();
    let run = |limit: &str| {
        let mut survey = self::survey();
        survey
            .args(["--json", "--limit", limit])
            .env("CARGO_HOME", cargo_home.0.path());
        report(&survey.output().unwrap())
    };
    // The project's sources are surveyed; its build output is not.
    assert!(run("0")["found"].as_u64() > Some(10));
    assert_eq!(run("1")["surveyed"], 1);
}

#[test]
fn a_wrong_argument_is_a_one_line_error_and_exit_code_2() {
    let tree = Tree::new();
    tree.file("file.rs", "");
    let (missing, file) = (tree.at("missing"), tree.at("file.rs"));
    for (arguments, message) in [
        (
            vec![OsStr::new("--timeout"), OsStr::new("soon")],
            "a time looks like 5s",
        ),
        (
            vec![OsStr::new("--memory=1M")],
            "a worker needs at least 64M",
        ),
        (vec![OsStr::new("--jobs=0")], "nothing gets done by no jobs"),
        (
            vec![OsStr::new("--frobnicate")],
            "invalid option '--frobnicate'",
        ),
        (vec![OsStr::from_bytes(b"--\xff")], "invalid option"),
        (
            vec![missing.as_os_str()],
            "missing: No such file or directory",
        ),
        (vec![file.as_os_str()], "file.rs: Not a directory"),
    ] {
        let output = survey().args(&arguments).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains(message) && stderr.starts_with("survey: "),
            "{arguments:?} gave {stderr:?}"
        );
        assert_eq!(stderr.lines().count(), 1, "{arguments:?} gave {stderr:?}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn help_is_printed_to_stdout() {
    let output = survey().arg("--help").output().unwrap();
    assert!(text(&output.stdout).contains("Usage: survey [OPTIONS] [FOLDER]..."));
    assert_eq!(
        (text(&output.stderr), output.status.code()),
        (String::new(), Some(0))
    );
}

#[test]
fn a_closed_output_pipe_is_no_error() {
    let tree = Tree::new();
    tree.file("a.rs", "fn f() {}");
    let mut survey = tree
        .survey(&[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(survey.stdout.take());
    let output = survey.wait_with_output().unwrap();
    assert_eq!(
        (text(&output.stderr), output.status.code()),
        (String::new(), Some(0))
    );
}

#[test]
fn ctrl_c_prints_the_results_so_far_and_leaves_no_worker() {
    let tree = Tree::new();
    tree.file("a.rs", "fn f() {}");
    tree.fifo("b.rs");
    tree.fifo("c.rs");
    tree.file("d.rs", "fn f() {}");

    let mut command = tree.survey(&["--jobs", "2", "--timeout", "1h"]);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut survey = command.spawn().unwrap();

    // Each worker hangs in a FIFO, and would for an hour.
    let _writers = [
        wait_for_reader(&tree.at("b.rs"), &mut survey),
        wait_for_reader(&tree.at("c.rs"), &mut survey),
    ];
    let workers = children(&survey);
    assert_eq!(workers.len(), 3, "two workers and their fork server");

    // A terminal sends the signal to the whole process group. The workers must ignore it.
    let group = Pid::from_child(&survey);
    kill_process_group(group, Signal::INT).unwrap();
    let output = survey.wait_with_output().unwrap();

    assert_eq!(output.status.signal(), Some(2), "{}", output.status);
    let table = text(&output.stdout);
    assert!(
        table.contains("\n1 surveyed + 0 reported + 3 not reached = 4 files found"),
        "{table}"
    );
    assert_eq!(text(&output.stderr), "");
    for worker in workers {
        assert!(
            !Path::new(&format!("/proc/{worker}")).exists(),
            "worker {worker} is left"
        );
    }
}

#[test]
fn a_terminal_shows_the_files_that_are_parsed_and_how_many_were_in_a_second() {
    let tree = Tree::new();
    tree.file("a.rs", "fn f() {}");
    tree.fifo("b.rs");
    tree.file("c.rs", "fn f() {}");
    tree.fifo("d.rs");

    let mut terminal = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let stderr = File::options()
        .write(true)
        .open(OsStr::from_bytes(name.to_bytes()))
        .unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: 200,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&stderr, size).unwrap();
    let mut command = tree.survey(&["--jobs", "2", "--timeout", "1h"]);
    command
        .env("TERM", "xterm")
        .stdout(Stdio::piped())
        .stderr(stderr);
    let survey = command.spawn().unwrap();
    drop(command); // and with it this process's copy of the terminal's other end

    // The two files in the FIFOs are parsed until the signal.
    let parts: Vec<_> = tree
        .0
        .path()
        .iter()
        .map(|part| part.to_str().unwrap())
        .collect();
    let folder = parts[parts.len() - 2..].join("/");
    let running = format!("parsing {folder}/b.rs, {folder}/d.rs");
    let mut shown = String::new();
    while !(shown.contains(&running) && shown.contains("2/4 files, ") && shown.contains("/s, ")) {
        let mut buffer = [0; 4096];
        let length = terminal.read(&mut buffer).unwrap();
        shown.push_str(&text(&buffer[..length]));
    }
    kill_process(Pid::from_child(&survey), Signal::INT).unwrap();
    let output = survey.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(2), "{}", output.status);
}

/// Waits until a worker has opened the FIFO. The worker then waits for data until the returned file
/// is closed.
fn wait_for_reader(fifo: &Path, survey: &mut Child) -> File {
    let flags = OFlags::NONBLOCK.bits() as i32;
    loop {
        // A non-blocking open for writing fails unless the FIFO has a reader.
        if let Ok(writer) = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(fifo)
        {
            return writer;
        }
        if let Some(status) = survey.try_wait().unwrap() {
            panic!("the survey ended with {status} instead of hanging");
        }
        thread::yield_now();
    }
}

/// Returns the ids of the processes that the survey has started.
fn children(survey: &Child) -> Vec<u32> {
    let mut children = String::new();
    for thread in fs::read_dir(format!("/proc/{}/task", survey.id())).unwrap() {
        let list = File::open(thread.unwrap().path().join("children"));
        list.unwrap().read_to_string(&mut children).unwrap();
    }
    children
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect()
}
