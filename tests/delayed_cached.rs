//! Jobs whose results are kept for later runs: what is found again, and what never is.

mod common;

use std::fs;
use std::future::pending;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::ThreadId;

use common::log::Log;
use common::renames::Renames;
use common::{poll_with_yields, test};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::sched_getaffinity;
use seedbed::CancelScope;
use seedbed::delayed::{Delayed, JobErrorKind, Jobs, Resources, Setup, open};
use serde::{Deserialize, Serialize, Serializer};
use smol::future::{yield_now, zip};
use tracing::Level;

/// One core that this process may use, and a folder for results.
fn setup(folder: &Path) -> Setup {
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..1024).find(|&cpu| allowed.is_set(cpu));
    let resources = Resources::none().cores(first);
    Setup::from(resources).cache_folder(folder.join("results"))
}

/// Counts its calls in a file.
fn note(folder: &Path) {
    use std::io::Write;
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("calls"));
    file.unwrap().write_all(b".").unwrap();
}

fn calls(folder: &Path) -> usize {
    fs::read(folder.join("calls")).map_or(0, |calls| calls.len())
}

fn square(folder: PathBuf, n: u64) -> u64 {
    note(&folder);
    n * n
}

fn cube(folder: PathBuf, n: u64) -> u64 {
    note(&folder);
    n * n * n
}

fn fail(folder: PathBuf) -> u64 {
    note(&folder);
    panic!("on purpose")
}

/// The files of kept results.
fn files(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder.join("results"));
    listed.map_or_else(
        |_| Vec::new(),
        |files| files.map(|file| file.unwrap().path()).collect(),
    )
}

/// Calls `square(n)` in a block of its own.
async fn squared(folder: &Path, n: u64) -> u64 {
    let path = folder.to_owned();
    open(setup(folder), async move |jobs| {
        let kept = jobs.cached("tests-1");
        kept.call(square, (path, n)).await.unwrap()
    })
    .await
}

#[test]
fn a_value_is_computed_once_and_found_by_later_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for _ in 0..3 {
        test(async {
            assert_eq!(squared(folder, 3).await, 9);
        });
    }
    assert_eq!((calls(folder), files(folder).len()), (1, 1));
    let name = files(folder)[0].file_name().unwrap().to_owned();
    let name = name.to_str().unwrap();
    assert!(
        name.starts_with("tests-1-") && name.ends_with(".cached"),
        "{name}"
    );
}

#[test]
fn arguments_functions_and_keys_have_values_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    test(async {
        for _ in 0..2 {
            let path = folder.to_owned();
            open(setup(folder), async move |jobs| {
                let one = jobs.cached("one");
                let other = jobs.cached("other".to_owned());
                let values = [
                    one.call(square, (path.clone(), 3)),
                    one.call(square, (path.clone(), 4)),
                    one.call(cube, (path.clone(), 3)),
                    other.call(square, (path.clone(), 3)),
                    other.then((path.clone(), 2), cube),
                ];
                let all: Delayed<Vec<u64>> = values.into_iter().collect();
                assert_eq!(all.await.unwrap(), [9, 16, 27, 9, 8]);
            })
            .await;
        }
    });
    assert_eq!((calls(folder), files(folder).len()), (5, 5));
}

#[test]
fn a_value_that_is_found_needs_no_resources_and_is_counted_on_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    test(async {
        assert_eq!(squared(folder, 3).await, 9);
        let nothing = Setup::from(Resources::none()).cache_folder(folder.join("results"));
        let path = folder.to_owned();
        open(nothing, async move |jobs| {
            let kept = jobs.cached("tests-1");
            let value = kept.call(square, (path.clone(), 3));
            assert_eq!((&value).await.unwrap(), 9);
            assert_eq!(value.statistics().unwrap().attempts, 0);
            let missing = [
                kept.call(square, (path.clone(), 4)),
                kept.then((path, 4), square),
            ];
            for missing in missing {
                let error = (&missing).await.unwrap_err();
                assert_eq!(error.kind(), JobErrorKind::Impossible);
                assert_eq!(missing.statistics(), None);
            }
            let statistics = jobs.statistics();
            let counts = (statistics.cached, statistics.succeeded, statistics.failed);
            assert_eq!(counts, (1, 0, 2));
            let table = format!("{statistics:#}");
            assert!(table.contains("from the cache"), "{table}");
        })
        .await;
    });
    assert_eq!(calls(folder), 1);
}

/// An argument that notes the threads in which it is encoded.
#[derive(Deserialize)]
#[serde(transparent)]
struct Noting(u64);

static ENCODED_IN: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

impl Serialize for Noting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let thread = std::thread::current().id();
        ENCODED_IN.lock().unwrap().push(thread);
        self.0.serialize(serializer)
    }
}

fn number(noting: Noting) -> u64 {
    noting.0
}

#[test]
fn the_argument_of_a_value_that_is_found_is_encoded_once_and_in_another_thread() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    test(async {
        for _ in 0..2 {
            ENCODED_IN.lock().unwrap().clear();
            open(setup(folder), async |jobs| {
                let kept = jobs.cached("noting");
                assert_eq!(kept.call(number, Noting(3)).await.unwrap(), 3);
            })
            .await;
        }
        let encoded_in = ENCODED_IN.lock().unwrap();
        assert_eq!(encoded_in.len(), 1);
        assert_ne!(encoded_in[0], std::thread::current().id());
    });
}

#[test]
fn errors_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    test(async {
        for _ in 0..2 {
            let path = folder.to_owned();
            open(setup(folder), async move |jobs| {
                let error = jobs.cached("fails").call(fail, path).await.unwrap_err();
                assert_eq!(error.kind(), JobErrorKind::Panicked);
            })
            .await;
        }
    });
    assert_eq!((calls(folder), files(folder).len()), (2, 0));
}

#[test]
fn a_file_that_is_torn_or_foreign_is_replaced_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    test(squared(folder, 3));
    let file = files(folder).remove(0);
    let whole = fs::read(&file).unwrap();
    // The value of another job, under the name of this one.
    test(squared(folder, 4));
    let other = files(folder).into_iter().find(|path| *path != file);
    let other = fs::read(other.unwrap()).unwrap();
    let half = &whole[..whole.len() / 2];
    let broken: [&[u8]; 4] = [b"", b"something else entirely", half, &other];
    for (before, bytes) in (2..).zip(broken) {
        fs::write(&file, bytes).unwrap();
        let log = Log::new("seedbed::delayed", Level::WARN);
        tracing::subscriber::with_default(log.clone(), || {
            test(async {
                assert_eq!(squared(folder, 3).await, 9);
            });
        });
        assert_eq!(calls(folder), before + 1);
        assert_eq!(fs::read(&file).unwrap(), whole);
        let log = log.lines().concat();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(log.contains("the job runs") && log.contains(name), "{log}");
    }
}

#[test]
fn a_result_that_cannot_be_kept_is_returned_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("results"), "a file, and no folder").unwrap();
    let log = Log::new("seedbed::delayed", Level::WARN);
    tracing::subscriber::with_default(log.clone(), || {
        test(async {
            assert_eq!(squared(folder, 3).await, 9);
        });
    });
    let log = log.lines().concat();
    assert!(log.contains("cannot be kept"), "{log}");
}

#[test]
#[should_panic(expected = "two functions of the same name")]
fn two_closures_cannot_share_a_key() {
    let folder = tempfile::tempdir().unwrap();
    test(open(setup(folder.path()), async |jobs| {
        let kept = jobs.cached("closures");
        assert_eq!(kept.call(|n: u64| n + 1, 1).await.unwrap(), 2);
        assert_eq!(kept.call(|n: u64| n * 5, 1).await.unwrap(), 5);
    }));
}

async fn two_jobs(folder: &Path, jobs: Jobs<'_>) {
    let kept = jobs.cached("tests-1");
    drop(kept.call(square, (folder.to_owned(), 3)));
    drop(kept.then((folder.to_owned(), 3), square));
    pending::<()>().await;
}

/// Calls `square(3)`, which is called again only if no file has its value. No file may be refused.
async fn square_again(folder: &Path) {
    let (before, was_kept) = (calls(folder), files(folder).len());
    assert_eq!(squared(folder, 3).await, 9);
    assert_eq!(calls(folder) - before, 1 - was_kept, "{:?}", files(folder));
}

#[test]
fn a_block_that_is_dropped_or_cancelled_at_any_moment_leaves_whole_files_or_none() {
    let log = Log::new("seedbed::delayed", Level::WARN);
    let logged = log.clone();
    tracing::subscriber::with_default(logged, || {
        for polls in [0, 1, 2, 3, 5, 10, 30, 100, 1000] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let block = || open(setup(folder), |jobs| two_jobs(folder, jobs));
            test(async {
                let renames = Renames::watch(&folder.join("results"));
                assert!(!poll_with_yields(block(), polls).await);
                // A thread that writes a file is not stopped, and a worker may take a moment to
                // die.
                seedbed::thread::wait_all_threads_completed().await;
                while !common::children().is_empty() {
                    yield_now().await;
                }
                square_again(folder).await;
                assert_eq!(files(folder).len(), 1, "{:?}", files(folder));
                assert!(renames.only_whole_files(".cached") >= 1);
                fs::remove_file(files(folder).remove(0)).unwrap();
            });
            test(async {
                let renames = Renames::watch(&folder.join("results"));
                let scope = CancelScope::new();
                let cancelling = async {
                    for _ in 0..polls {
                        yield_now().await;
                    }
                    scope.cancel();
                };
                zip(scope.run(block()), cancelling).await;
                square_again(folder).await;
                assert_eq!(files(folder).len(), 1, "{:?}", files(folder));
                assert!(renames.only_whole_files(".cached") >= 1);
            });
        }
    });
    assert!(log.lines().is_empty(), "{:?}", log.lines());
}

/// The folder of programs that other tests start.
const FOLDER: &str = "SEEDBED_TEST_FOLDER";

/// Starts one test of this program in a program of its own.
fn start(test: &str, folder: &Path) -> Child {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder);
    program.spawn().unwrap()
}

/// Does nothing unless [`programs_that_run_at_once_find_or_replace_whole_files`] runs it.
#[test]
fn one_of_several_programs() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let log = Log::new("seedbed::delayed", Level::WARN);
    tracing::subscriber::with_default(log.clone(), || {
        test(async {
            for n in 0..10 {
                assert_eq!(squared(&folder, n).await, n * n);
            }
        });
    });
    assert!(log.lines().is_empty(), "{:?}", log.lines());
}

#[test]
fn programs_that_run_at_once_find_or_replace_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    seedbed::init();
    let _alone = common::alone();
    let renames = Renames::watch(&folder.join("results"));
    let programs: [Child; 4] = std::array::from_fn(|_| start("one_of_several_programs", folder));
    for mut program in programs {
        assert!(program.wait().unwrap().success());
    }
    assert!((10..=40).contains(&calls(folder)));
    assert_eq!(files(folder).len(), 10);
    // The kernel may count two renames to one name as one.
    assert!((10..=calls(folder)).contains(&renames.only_whole_files(".cached")));
}

/// A value that lets its program write no more than the beginning of a file, from the moment at
/// which the program encodes it.
#[derive(Deserialize, Clone)]
#[serde(transparent)]
struct Fatal(String);

/// The program that is to be killed, and not its workers.
static TO_BE_KILLED: AtomicU32 = AtomicU32::new(0);

/// The number of bytes of a file that the program can write. One byte more kills it, by SIGXFSZ.
const WRITABLE: u64 = 500;

impl Serialize for Fatal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if TO_BE_KILLED.load(Ordering::Relaxed) == std::process::id() {
            let limit = |resource, bytes| {
                let limit = Rlimit {
                    current: Some(bytes),
                    ..getrlimit(resource)
                };
                setrlimit(resource, limit).unwrap();
            };
            limit(Resource::Core, 0);
            limit(Resource::Fsize, WRITABLE);
        }
        self.0.serialize(serializer)
    }
}

fn fatal(length: u64) -> Fatal {
    Fatal("x".repeat(length as usize))
}

async fn call_fatal(folder: &Path) -> usize {
    open(setup(folder), async |jobs| {
        let kept = jobs.cached("fatal");
        kept.call(fatal, 10 * WRITABLE).await.unwrap().0.len()
    })
    .await
}

/// Does nothing unless [`a_program_that_is_killed_while_it_writes_leaves_no_torn_value`] runs it.
#[test]
fn one_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    seedbed::init();
    TO_BE_KILLED.store(std::process::id(), Ordering::Relaxed);
    smol::block_on(call_fatal(&folder));
}

#[test]
fn a_program_that_is_killed_while_it_writes_leaves_no_torn_value() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    seedbed::init();
    let alone = common::alone();
    let status = start("one_that_is_killed", folder).wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::XFSZ.as_raw()), "{status}");
    drop(alone);
    let left = files(folder);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].to_str().unwrap().ends_with(".new"), "{left:?}");
    assert_eq!(fs::metadata(&left[0]).unwrap().len(), WRITABLE);

    let log = Log::new("seedbed::delayed", Level::WARN);
    tracing::subscriber::with_default(log.clone(), || {
        test(async {
            assert_eq!(call_fatal(folder).await as u64, 10 * WRITABLE);
        });
    });
    assert!(log.lines().is_empty(), "{:?}", log.lines());
    assert_eq!(files(folder).len(), 2);
}
