//! Runs the small examples. They check their own results.

mod built_example;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use built_example::example;

fn run(name: &str) -> Output {
    let mut command = example(name);
    command
        .stdin(Stdio::null())
        .output()
        .expect("it can be started")
}

/// Runs an example, expects success, and returns its output.
fn said(name: &str) -> String {
    let output = run(name);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    assert_eq!(err, "", "a successful example prints no errors");
    out
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn hello() {
    assert!(said("hello").ends_with("Nobody sleeps for ever.\n"));
}

#[test]
fn cancellation() {
    assert!(said("cancellation").contains("The endless loop was stopped after"));
}

#[test]
fn polite_stop() {
    assert!(said("polite_stop").ends_with("The deaf job was killed.\n"));
}

#[test]
fn progress() {
    let said = said("progress");
    for line in [
        "INFO progress message=the job has begun pages=40\n",
        "WARN progress message=an empty page page=3\n",
        "40 of 40 pages are done\n",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    assert!(said.ends_with("60 words\n"), "{said}");
}

#[test]
fn crawler() {
    assert!(said("crawler").contains("/slow: the time limit was reached"));
}

#[test]
fn map() {
    let said = said("map");
    assert!(
        said.contains("26623 is the first with more than 300 steps"),
        "{said}"
    );
    assert!(
        said.contains("item 1 of job `map::fragile_length`: the worker was killed by SIGABRT"),
        "{said}"
    );
}

#[test]
fn sweep() {
    let said = said("sweep");
    let failed =
        "The simulation of 27 failed: item 26 of job `sweep::collatz_steps`: the job panicked";
    assert!(said.contains(failed), "{said}");
    assert!(
        said.contains("The longest of 10000 sequences begins at 6171"),
        "{said}"
    );
}

#[test]
fn weighted_sum() {
    let said = said("weighted_sum");
    assert!(said.contains("waits for 1 core"), "{said}");
    assert!(said.contains("The weighted sum is"), "{said}");
}

#[test]
fn parameter_sweep() {
    let said = said("parameter_sweep");
    assert!(said.contains("`awk` waits for 1 core and 64 MiB"), "{said}");
    assert!(said.contains("r = 3.55: period 8\n"), "{said}");
}

#[test]
fn cached_study() {
    let said = said("cached_study");
    assert!(
        said.contains("10 exponents: 831 steps; 8 results were there."),
        "{said}"
    );
}

#[test]
fn cached_study_finds_the_results_of_an_earlier_program() {
    let folder = tempfile::tempdir().unwrap();
    for (number, end) in [
        ("6", "; 0 results were there.\n"),
        ("8", "; 6 results were there.\n"),
    ] {
        let mut study = example("cached_study");
        study.arg(folder.path().join("results")).arg(number);
        let output = study.stdin(Stdio::null()).output().unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success() && out.ends_with(end), "{out}{err}");
    }
}

#[test]
fn cached_study_says_which_number_it_expects() {
    let folder = tempfile::tempdir().unwrap();
    for number in ["abc", "0", "41", "-1"] {
        let mut study = example("cached_study");
        study.arg(folder.path()).arg(number);
        let output = study.stdin(Stdio::null()).output().unwrap();
        let (out, err) = texts(&output);
        assert!(!output.status.success(), "{out}");
        assert!(err.contains("a number from 1 to 40"), "{err}");
        assert!(err.contains(number), "{err}");
    }
}

/// Each of its studies reads the configuration. The last one finds a faulty one, and has work to
/// do.
#[test]
fn cached_study_removes_its_folder_also_if_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("configuration");
    let made = Command::new("mkfifo").arg(&configuration).status();
    assert!(made.unwrap().success());
    let temporary = folder.path().join("temporary");
    fs::create_dir(&temporary).unwrap();

    let mut study = example("cached_study");
    study.env("SEEDBED_CONFIG", &configuration);
    study.env("TMPDIR", &temporary).stdin(Stdio::null());
    study.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut study = study.spawn().unwrap();
    let (next, configurations) = mpsc::channel();
    // A thread, because a write waits until the example reads, which it may fail to do.
    thread::spawn(move || {
        for text in configurations {
            fs::write(&configuration, text).unwrap();
        }
    });
    next.send("[resources]\ncores = 1\n").unwrap();
    let lines = BufReader::new(study.stdout.take().unwrap()).lines();
    let following = ["[resources]\ncores = 1\n", "no configuration"].into_iter();
    // A study that has printed its line has read its configuration.
    for (line, text) in lines.map(Result::unwrap).zip(following) {
        assert!(line.starts_with("8 exponents: "), "{line}");
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 1);
        next.send(text).unwrap();
    }
    let output = study.wait_with_output().unwrap();
    let (_, err) = texts(&output);
    assert!(!output.status.success());
    assert!(err.contains("configuration"), "{err}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "{err}");
}

#[test]
fn thumbnails() {
    assert!(
        said("thumbnails").contains("torn.ppm: job `thumbnails::thumbnail`: the job had not ended")
    );
}

#[test]
fn single_use_workers() {
    assert!(said("single_use_workers").contains("has nothing to remember"));
}

#[test]
fn memory_capped_workers() {
    assert!(said("memory_capped_workers").contains("was refused its memory and died.\n"));
}

#[test]
fn workers_that_talk() {
    assert!(said("workers_that_talk").contains("pages were written, and all of them counted.\n"));
}

#[test]
fn shared_bytes() {
    assert!(said("shared_bytes").ends_with("From 27 it takes 111 steps.\n"));
}

#[test]
fn hostile_input() {
    let said = said("hostile_input");
    assert!(said.contains("The curious one: Too many open files"));
    for end in [
        "The large one: out of memory.\n",
        "The endless one: CPU time used up.\n",
        "The deep one: stack overflow.\n",
        "The next honest one has 4.\n",
    ] {
        assert!(said.contains(end), "{said}");
    }
}

#[test]
fn cache_scope() {
    assert_eq!(
        said("cache_scope")
            .matches("A worker of the scope starts.")
            .count(),
        1
    );
}

#[test]
fn happy_eyeballs() {
    let said = said("happy_eyeballs");
    assert!(said.contains("127.0.0.2 is not needed any more.\nConnected to 127.0.0.3"));
    assert!(said.ends_with("none of 2 addresses can be reached.\n"));
}

#[test]
fn timeouts() {
    assert!(said("timeouts").ends_with("those behind it had their own time.\n"));
}

#[test]
fn producer_consumer() {
    assert!(said("producer_consumer").ends_with("Parcel 2 goes back to Ghent.\n"));
}

#[test]
fn supervisor() {
    let said = said("supervisor");
    assert!(said.contains("The thumbnail is drawn, after a crash.\n"));
    assert!(said.contains("The archive ends the block: it failed 4 times in a row"));
}

#[test]
fn graceful_shutdown() {
    let said = said("graceful_shutdown");
    assert!(said.contains("Client: what took too long was cut off, in good form.\n"));
    assert!(said.contains("but there was no time for it.\n"));
    assert!(said.ends_with("Server: some had to be cut off.\n"));
}

#[test]
fn virtual_clock() {
    assert!(said("virtual_clock").contains("Two hours and more were tested in"));
}

#[test]
fn trio_tutorial() {
    assert!(said("trio_tutorial").ends_with("The client has heard: async can be comfortable.\n"));
}

#[test]
fn ctrl_c_dies_by_the_signal_after_it_has_cleaned_up() {
    let output = run("ctrl_c");
    let (out, err) = texts(&output);
    assert_eq!(
        output.status.signal(),
        Some(2),
        "{}\n{out}{err}",
        output.status
    );
    assert_eq!(
        out,
        "Ctrl-C!\nThe notes are put away.\nThe worker is gone, and this is the last line.\n"
    );
    assert_eq!(err, "");
}
