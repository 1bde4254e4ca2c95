//! Programs that must not compile, with the compiler's messages, and programs that must.
//!
//! The test runs rustc on the library that `cargo test` has built, so nothing is built twice. The
//! messages in `compile_fail` are those of Rust 1.95. Other compilers word them differently;
//! with those, only the error codes are compared. `SEEDBED_BLESS=1` writes the messages anew.

use std::collections::HashMap;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use seedbed_checks::{built, root};

/// The compiler whose messages the `.stderr` files contain.
const MESSAGES_OF: &str = "rustc 1.95.";

#[test]
fn unsound_programs_are_refused_with_these_messages() {
    let compiler = Compiler::new();
    let programs = programs("compile_fail");
    assert!(programs.len() > 30, "{} programs", programs.len());
    let next = AtomicUsize::new(0);
    let check_all = || {
        let mut faults = Vec::new();
        while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
            faults.extend(compiler.check_refused(program));
        }
        faults
    };
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let faults: Vec<String> = thread::scope(|scope| {
        let checks: Vec<_> = (0..threads).map(|_| scope.spawn(check_all)).collect();
        checks
            .into_iter()
            .flat_map(|check| check.join().unwrap())
            .collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn sound_programs_are_accepted_and_run() {
    let compiler = Compiler::new();
    for program in programs("compile_pass") {
        let executable = compiler.scratch.path().join("program");
        let output = compiler.run(&program, |rustc| rustc.arg("-o").arg(&executable));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let run = Command::new(executable).output().unwrap();
        assert!(run.status.success(), "{}", text(&run.stderr));
    }
}

fn programs(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new("tests/checks").join(folder);
    let entries = fs::read_dir(root().join(&folder)).unwrap();
    let mut programs: Vec<PathBuf> = entries
        .map(|entry| folder.join(entry.unwrap().file_name()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect();
    programs.sort();
    programs
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Compiler {
    rustc: PathBuf,
    /// Names of libraries, and the files that cargo has built.
    libraries: HashMap<&'static str, PathBuf>,
    has_known_messages: bool,
    scratch: tempfile::TempDir,
}

impl Compiler {
    fn new() -> Self {
        let cargo = Path::new(env!("CARGO"));
        let rustc = env::var_os("RUSTC").map_or_else(|| cargo.with_file_name("rustc"), Into::into);
        let version = Command::new(&rustc).arg("--version").output();
        let version = version.map(|output| text(&output.stdout)).unwrap();
        Compiler {
            libraries: built_libraries(),
            has_known_messages: version.starts_with(MESSAGES_OF),
            scratch: tempfile::tempdir().unwrap(),
            rustc,
        }
    }

    fn run(&self, program: &Path, set_output: impl Fn(&mut Command) -> &mut Command) -> Output {
        let mut rustc = Command::new(&self.rustc);
        rustc
            .current_dir(root())
            .args(["--edition=2024", "--diagnostic-width=140", "--color=never"])
            .arg(program);
        for (name, file) in &self.libraries {
            rustc
                .arg(format!("--extern={name}={}", file.display()))
                .arg("-L")
                .arg(file.parent().expect("a library is in a folder"));
        }
        set_output(&mut rustc).output().expect("rustc can be run")
    }

    /// Returns a description of what is wrong, if the program compiles or the messages differ.
    ///
    /// Code is generated, because some checks are constants that are evaluated only then.
    fn check_refused(&self, program: &Path) -> Option<String> {
        let object = self.scratch.path().join(program.file_stem().unwrap());
        let output = self.run(program, |rustc| {
            rustc.arg("--emit=obj").arg("-o").arg(&object)
        });
        if output.status.success() {
            return Some(format!("{} compiles", program.display()));
        }
        let messages = normalized(&text(&output.stderr), program);
        let file = program.with_extension("stderr");
        let file = root().join(file);
        if env::var_os("SEEDBED_BLESS").is_some() {
            fs::write(file, messages).unwrap();
            return None;
        }
        let expected = fs::read_to_string(file).unwrap_or_default();
        let is_expected = if self.has_known_messages {
            messages == expected
        } else {
            error_codes(&messages) == error_codes(&expected)
        };
        (!is_expected).then(|| {
            let program = program.display();
            format!("{program}: expected\n{expected}\nbut rustc reports\n{messages}")
        })
    }
}

/// The libraries that this test program was linked with.
fn built_libraries() -> HashMap<&'static str, PathBuf> {
    let mut libraries = HashMap::new();
    for artifact in built(&["--test", "compile"]) {
        let is_library = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "rlib");
        let library = artifact.files.into_iter().find(is_library);
        for name in ["seedbed", "smol"] {
            if artifact.name == name
                && let Some(library) = &library
            {
                libraries.insert(name, library.clone());
            }
        }
    }
    assert_eq!(libraries.len(), 2, "{libraries:?}");
    libraries
}

fn error_codes(messages: &str) -> Vec<&str> {
    messages
        .lines()
        .filter(|line| line.starts_with("error"))
        .map(|line| line.split(':').next().unwrap_or(line))
        .collect()
}

/// Removes the parts of the compiler's messages that depend on the machine or on the place of an
/// item in the library. The left margin has a fixed width.
fn normalized(messages: &str, program: &Path) -> String {
    let root = format!("{}/", root().display());
    let mut normalized = String::new();
    let mut snippet_of = Origin::Program;
    for line in messages.lines().filter(|line| !is_noise(line)) {
        let line = without_internals(&line.replace(&root, ""));
        match Margin::split(&line) {
            Some((margin, place)) if margin.is_arrow() => {
                let (origin, place) = Origin::of(place, program);
                snippet_of = origin;
                writeln!(normalized, "    {} {place}", margin.mark)
            }
            Some((margin, rest)) => {
                let is_snippet = margin.mark != "=";
                let number = match snippet_of {
                    // The sources of std are not installed everywhere.
                    Origin::Foreign if is_snippet => continue,
                    Origin::Program => margin.number,
                    Origin::Library | Origin::Foreign => "",
                };
                let line = format!("{number:>3} {} {rest}", margin.mark);
                writeln!(normalized, "{}", line.trim_end())
            }
            None if line == "..." && snippet_of == Origin::Foreign => continue,
            None if line.starts_with("        ") => {
                let item = line.trim();
                let is_count = item.starts_with("and ") && item.ends_with(" others");
                let item = if is_count { "and $N others" } else { item };
                writeln!(normalized, "            {item}")
            }
            None => writeln!(normalized, "{}", line.trim_end()),
        }
        .expect("a string can be written to");
    }
    normalized.trim_end().to_owned() + "\n"
}

/// Hides the types of the library's internals that a failed constant was evaluated for.
fn without_internals(line: &str) -> String {
    for (before, after) in [
        ("evaluation of `", "` failed"),
        ("encountered while instantiating `", "`"),
    ] {
        if let Some((start, rest)) = line.split_once(before)
            && let Some((_, end)) = rest.split_once(after)
        {
            return format!("{start}{before}..{after}{end}");
        }
    }
    line.to_owned()
}

/// Whether a line says nothing about the error.
fn is_noise(line: &str) -> bool {
    line.starts_with("error: aborting due to")
        || line.starts_with("For more information about")
        || line.starts_with("Some errors have detailed explanations")
        || line.contains("= note: the full name for the type has been written to")
        || line.contains("= note: consider using `--verbose` to print the full type name")
}

/// The file that a snippet is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Program,
    Library,
    /// std or a dependency.
    Foreign,
}

impl Origin {
    /// Returns the origin, and the place as the messages show it: with line and column for the
    /// program only.
    fn of(place: &str, program: &Path) -> (Origin, String) {
        let file = place.split(':').next().unwrap_or(place);
        if Path::new(file) == program {
            (Origin::Program, place.to_owned())
        } else if let Some((_, rest)) = file.split_once("/library/") {
            (Origin::Foreign, format!("$RUST/{rest}"))
        } else if let Some((_, rest)) = file.split_once("/registry/src/") {
            let (_, rest) = rest.split_once('/').unwrap_or(("", rest));
            (Origin::Foreign, format!("$CARGO/{rest}"))
        } else {
            (Origin::Library, file.to_owned())
        }
    }
}

/// The left margin of a line: a line number, if there is one, and a mark.
struct Margin<'a> {
    number: &'a str,
    mark: &'a str,
}

impl<'a> Margin<'a> {
    /// Splits a line that has a margin. Without one, it is a heading or the continuation of a note.
    fn split(line: &'a str) -> Option<(Self, &'a str)> {
        let trimmed = line.trim_start();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let (number, rest) = trimmed.split_at(digits);
        let rest = rest.trim_start();
        let mark = ["-->", ":::", "|", "=", "+", "-", "~"]
            .into_iter()
            .find(|mark| rest == *mark || rest.starts_with(&format!("{mark} ")))?;
        let rest = rest[mark.len()..].strip_prefix(' ').unwrap_or_default();
        Some((Margin { number, mark }, rest))
    }

    fn is_arrow(&self) -> bool {
        matches!(self.mark, "-->" | ":::")
    }
}
