//! The standard input, descriptors and time that a worker has for `main`, and for its jobs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use seedbed::worker::WorkerErrorKind;
use seedbed::{WorkerContext, open_worker_context, run};

use crate::common::{children, pid};
use crate::{Play, TYPES, config, is_worker, played, player};

pub const PLAYS: &[Play] = &[
    (
        "a_main_that_reads_standard_input_before_the_hook_has_workers",
        stdin_is_read_before_the_hook,
        read_stdin_before_the_hook,
    ),
    (
        "a_worker_that_waits_before_the_hook_for_its_parent_is_an_error_and_is_killed",
        the_worker_waits_for_a_lock,
        wait_for_a_lock_before_the_hook,
    ),
    (
        "a_main_that_closes_descriptors_before_the_hook_is_told_so",
        descriptors_are_closed_before_the_hook,
        close_descriptors_before_the_hook,
    ),
    (
        "what_a_job_starts_does_not_inherit_the_workers_handshake",
        no_handshake_is_inherited,
        look_for_the_handshake,
    ),
    (
        "a_seedbed_program_that_a_job_leaves_to_its_parent_runs",
        an_orphan_runs,
        leave_an_orphan,
    ),
    ("orphan", || (), run_as_an_orphan),
    (
        "workers_execute_main_where_the_program_did_and_run_jobs_where_it_is_now",
        the_directory_is_changed_after_the_hook,
        change_the_directory_after_the_hook,
    ),
    (
        "a_program_without_its_dynamic_loader_is_told_so",
        the_loader_is_missing,
        leave_the_loader_behind,
    ),
    (
        "a_program_without_dev_null_has_workers_and_runs_programs",
        there_is_no_dev_null,
        hide_dev_null,
    ),
];

/// Plays a part with each type of workers.
fn play_with_both_types(part: &str) {
    for &worker_type in TYPES {
        played(player(part, worker_type));
    }
}

/// Runs `body` with a worker context of the type that this part is played with.
fn with_workers<F>(body: impl FnOnce(WorkerContext) -> F)
where
    F: Future<Output = ()>,
{
    run(open_worker_context(config(), body));
}

/// A worker's standard input was once its connection to the parent. A `main` that read it waited
/// forever, or ate the parent's first message.
fn stdin_is_read_before_the_hook() {
    for &worker_type in TYPES {
        let part = "a_main_that_reads_standard_input_before_the_hook_has_workers";
        let mut player = player(part, worker_type)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        player.stdin.take().unwrap().write_all(b"seed").unwrap();
        let mut said = String::new();
        player
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(player.wait().unwrap().success());
        let mut lines: Vec<_> = said.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["program read 4", "worker read 0"]);
    }
}

fn read_stdin_before_the_hook() {
    let read = |_: ()| std::io::stdin().read_to_string(&mut String::new()).unwrap();
    let role = if is_worker() { "worker" } else { "program" };
    println!("{role} read {}", read(()));
    with_workers(async |workers| {
        assert_eq!(workers.run_sync(read, ()).await.unwrap(), 0);
    });
}

/// Such a worker was once waited for for a minute, and the error named standard input only.
fn the_worker_waits_for_a_lock() {
    play_with_both_types(
        "a_worker_that_waits_before_the_hook_for_its_parent_is_an_error_and_is_killed",
    );
}

fn wait_for_a_lock_before_the_hook() {
    const LOCK: &str = "SEEDBED_TEST_LOCK";
    if is_worker() {
        let lock = File::open(std::env::var(LOCK).unwrap()).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        unreachable!("the program keeps the lock");
    }
    let lock = tempfile::NamedTempFile::new().unwrap();
    flock(lock.as_file(), FlockOperation::LockExclusive).unwrap();
    let config = config()
        .env(LOCK, lock.path())
        .start_timeout(Duration::from_millis(200));
    run(open_worker_context(config, async |workers| {
        let error = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        let text = error.to_string();
        assert!(
            text.contains("200ms") && text.contains("for a lock"),
            "{text}"
        );
        assert_eq!(error.exit().unwrap().signal_name(), Some("SIGKILL"));
        assert_eq!(children(), []);
    }));
}

fn descriptors_are_closed_before_the_hook() {
    for &worker_type in TYPES {
        let said = played(player(
            "a_main_that_closes_descriptors_before_the_hook_is_told_so",
            worker_type,
        ));
        assert!(
            said.contains("was closed or replaced before the hook"),
            "{said}"
        );
    }
}

fn close_descriptors_before_the_hook() {
    if is_worker() {
        // SAFETY: the program uses no descriptor that it has opened so far.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    }
    with_workers(async |workers| {
        let error = workers.run_sync(pid, ()).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        assert!(error.to_string().contains("closefrom"), "{error}");
        assert_eq!(error.exit().unwrap().code(), Some(70));
        assert_eq!(children(), []);
    });
}

fn no_handshake_is_inherited() {
    play_with_both_types("what_a_job_starts_does_not_inherit_the_workers_handshake");
}

fn look_for_the_handshake() {
    fn environments(_: ()) -> String {
        let own = std::fs::read("/proc/self/environ").unwrap();
        let library = std::env::vars_os()
            .map(|(name, _)| name)
            .collect::<Vec<_>>();
        let child = Command::new("env").arg("-0").output().unwrap().stdout;
        let grandchild = Command::new("sh")
            .args(["-c", "env"])
            .output()
            .unwrap()
            .stdout;
        format!(
            "{}{library:?}{}{}",
            String::from_utf8_lossy(&own),
            String::from_utf8_lossy(&child),
            String::from_utf8_lossy(&grandchild)
        )
    }
    // With another thread, the list of the C library cannot be changed.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    if std::env::var(crate::TYPE).unwrap() == "spawn" && is_worker() {
        std::thread::spawn(move || ended.recv());
    }
    with_workers(async |workers| {
        let seen = workers.run_sync(environments, ()).await.unwrap();
        assert!(!seen.contains("SEEDBED_WORKER"), "{seen}");
        assert_eq!(
            seen.matches(crate::PART).count(),
            4,
            "all else is there: {seen}"
        );
    });
    drop(end);
}

/// Such a program once took itself for a worker, because its parent was the process that the
/// inherited variable named, and exited with code 70. In a container, the program that has workers
/// often is process 1, which adopts all orphans.
fn an_orphan_runs() {
    play_with_both_types("a_seedbed_program_that_a_job_leaves_to_its_parent_runs");
}

const FOSTER_PARENT: &str = "SEEDBED_TEST_FOSTER_PARENT";

fn leave_an_orphan() {
    fn start(foster_parent: u32) -> i32 {
        // The shell ends at once, and its child becomes the child of a subreaper.
        let output = Command::new("sh")
            .args(["-c", "\"$0\" >&2 & echo $!"])
            .arg(std::env::current_exe().unwrap())
            .env(crate::PART, "orphan")
            .env(FOSTER_PARENT, foster_parent.to_string())
            .stderr(Stdio::inherit())
            .output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
    seedbed::init(); // workers are no subreapers
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    with_workers(async |workers| {
        let orphan = workers.run_sync(start, std::process::id()).await.unwrap();
        let status = seedbed::thread::run_sync(move || {
            let mut status = 0;
            // SAFETY: writes to `status`.
            assert_eq!(unsafe { libc::waitpid(orphan, &raw mut status, 0) }, orphan);
            status
        });
        assert_eq!(status.await, 0);
    });
}

fn run_as_an_orphan() {
    let foster_parent = std::env::var(FOSTER_PARENT).unwrap();
    while !is_worker() && parent_id().to_string() != foster_parent {
        std::thread::yield_now();
    }
    with_workers(async |workers| {
        assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    });
}

/// `main` once ran in the directory of the moment, and did not find what its arguments name.
fn the_directory_is_changed_after_the_hook() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("conf"), "yes").unwrap();
    for &worker_type in TYPES {
        let mut player = player(
            "workers_execute_main_where_the_program_did_and_run_jobs_where_it_is_now",
            worker_type,
        );
        player.current_dir(folder.path());
        played(player);
    }
}

fn change_the_directory_after_the_hook() {
    fn here(_: ()) -> PathBuf {
        std::env::current_dir().unwrap()
    }
    assert_eq!(std::fs::read("conf").unwrap(), b"yes");
    seedbed::init();
    std::env::set_current_dir("/").unwrap();
    with_workers(async |workers| {
        assert_eq!(
            workers.run_sync(here, ()).await.unwrap(),
            PathBuf::from("/")
        );
    });
    run(open_worker_context(
        config().current_dir("proc"),
        async |workers| {
            assert_eq!(
                workers.run_sync(here, ()).await.unwrap(),
                PathBuf::from("/proc")
            );
        },
    ));
}

/// The error once said that `/proc` is not mounted.
fn the_loader_is_missing() {
    if cfg!(target_feature = "crt-static") {
        return; // such a program has no loader
    }
    play_with_both_types("a_program_without_its_dynamic_loader_is_told_so");
}

fn leave_the_loader_behind() {
    seedbed::init();
    let root = tempfile::tempdir().unwrap();
    let change_root = || -> rustix::io::Result<()> {
        // SAFETY: only the file system's view changes; no descriptor or memory is affected.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        let proc = root.path().join("proc");
        std::fs::create_dir(&proc).unwrap();
        mount("proc", &proc, "proc", MountFlags::empty(), None)?;
        rustix::process::chroot(root.path())
    };
    if let Err(error) = change_root() {
        println!("skipped: this environment does not let us change the root directory ({error})");
        return;
    }
    with_workers(async |workers| {
        let error = workers.run_sync(i32::abs, -1).await.unwrap_err();
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        assert!(error.to_string().contains("the dynamic loader"), "{error}");
    });
    std::mem::forget(root); // outside of the new root
}

/// The error once said that a worker could not move its socket away, and a program that was to be
/// run was not found.
fn there_is_no_dev_null() {
    play_with_both_types("a_program_without_dev_null_has_workers_and_runs_programs");
}

fn hide_dev_null() {
    seedbed::init();
    let hide = || -> rustix::io::Result<()> {
        // SAFETY: only the file system's view changes; no descriptor or memory is affected.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        mount("none", "/dev", "tmpfs", MountFlags::empty(), None)
    };
    if let Err(error) = hide() {
        println!("skipped: this environment does not let us hide /dev ({error})");
        return;
    }
    assert!(!std::fs::exists("/dev/null").unwrap());
    with_workers(async |workers| {
        assert_eq!(workers.run_sync(i32::abs, -1).await.unwrap(), 1);
        let output = seedbed::process::run_process(Command::new("cat"))
            .await
            .unwrap();
        assert!(output.stdout.is_empty());
    });
}
