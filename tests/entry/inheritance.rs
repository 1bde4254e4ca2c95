//! Changes that a program makes after its hook (credentials, environment, directory, a sandbox),
//! and their effect on its workers.

use std::future::IntoFuture;
use std::io::Write;
use std::path::{Path, PathBuf};

use seedbed::worker::WorkerErrorKind;
use seedbed::{
    CapacityLimiter, WorkerConfig, WorkerContext, open_nursery, open_worker_context, run,
};
use smol::future::yield_now;

use crate::common::{children, is_worker as is_named_worker, pid, stage};
use crate::{ALL_TYPES, Play, config, played, player};

pub const PLAYS: &[Play] = &[
    (
        "workers_have_the_credentials_that_the_program_has_when_they_are_started",
        || for_all_types("workers_have_the_credentials_that_the_program_has_when_they_are_started"),
        change_the_user,
    ),
    (
        "workers_of_the_former_user_exit_when_another_one_is_started",
        || for_all_types("workers_of_the_former_user_exit_when_another_one_is_started"),
        change_the_user_while_a_worker_is_idle,
    ),
    (
        "workers_have_no_new_privileges_once_the_program_has_none",
        || for_all_types("workers_have_no_new_privileges_once_the_program_has_none"),
        give_up_new_privileges,
    ),
    (
        "new_workers_have_the_environment_and_the_directory_of_the_moment",
        || for_all_types("new_workers_have_the_environment_and_the_directory_of_the_moment"),
        change_the_environment_and_the_directory,
    ),
    (
        "calls_before_and_after_a_change_do_not_replace_each_others_fork_server",
        || {
            for_all_types("calls_before_and_after_a_change_do_not_replace_each_others_fork_server");
        },
        change_the_directory_while_the_fork_server_starts,
    ),
    (
        "exit_handlers_run_in_no_process_that_has_had_no_job",
        || for_all_types("exit_handlers_run_in_no_process_that_has_had_no_job"),
        change_the_directory_before_each_worker,
    ),
    (
        "a_program_that_may_not_make_files_in_memory_has_spawned_workers",
        || for_all_types("a_program_that_may_not_make_files_in_memory_has_spawned_workers"),
        be_refused_files_in_memory,
    ),
];

fn for_all_types(part: &str) {
    for &worker_type in ALL_TYPES {
        played(player(part, worker_type));
    }
}

fn with_workers<F>(config: WorkerConfig, body: impl FnOnce(WorkerContext) -> F)
where
    F: Future<Output = ()>,
{
    seedbed::init();
    run(open_worker_context(config, body));
}

const NOBODY: u32 = 65534;

/// Gives up the rights of root. Returns whether there were any.
fn become_nobody() -> bool {
    // SAFETY: changes what this process may do and nothing in its memory.
    let changed = unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) } == 0;
    if !changed {
        println!("skipped: the user can be changed by root only");
    }
    changed
}

/// A fork server once kept the credentials of its start, and passed them on to workers that it
/// forked after the program had given them up.
fn change_the_user() {
    fn user(_: ()) -> u32 {
        rustix::process::geteuid().as_raw()
    }
    with_workers(config().single_use(), |workers| async move {
        let before = workers.run_sync(user, ()).await.unwrap();
        assert_eq!(before, user(()));
        if become_nobody() {
            for _ in 0..3 {
                assert_eq!(workers.run_sync(user, ()).await.unwrap(), NOBODY);
            }
        }
    });
}

/// The kernel would not kill such a worker with the program, which has no right to.
fn change_the_user_while_a_worker_is_idle() {
    with_workers(config(), |workers| async move {
        let mut stage = stage::Stage::new();
        stage.open_to_all_users();
        let first = workers.run_sync(pid, ()).await.unwrap();
        if !become_nobody_for_now() {
            return;
        }
        let held = workers.run_sync(stage::halting_pid, stage.path());
        let many = CapacityLimiter::unlimited();
        let other = async {
            assert_eq!(stage.reached().await, first);
            let other = workers.run_sync(pid, ()).limiter(&many).await.unwrap();
            stage.release();
            other
        };
        let (held, other) = smol::future::zip(held.limiter(&many).into_future(), other).await;
        assert_eq!(held.unwrap(), first);
        assert_ne!(other, first);
        assert_eq!(workers.run_sync(pid, ()).await.unwrap(), other);
        while Path::new(&format!("/proc/{first}")).exists() {
            seedbed::checkpoint().await; // it exits by itself
        }
        // SAFETY: changes what this process may do and nothing in its memory.
        assert_eq!(unsafe { libc::setresuid(0, 0, 0) }, 0);
    });
}

/// Gives up the rights of root, and keeps the right to take them back.
fn become_nobody_for_now() -> bool {
    // SAFETY: changes what this process may do and nothing in its memory.
    unsafe { libc::setresuid(NOBODY, NOBODY, 0) == 0 && libc::prctl(libc::PR_SET_DUMPABLE, 1) == 0 }
}

fn give_up_new_privileges() {
    fn has_none(_: ()) -> bool {
        rustix::thread::no_new_privs().unwrap()
    }
    with_workers(config().single_use(), |workers| async move {
        assert!(!workers.run_sync(has_none, ()).await.unwrap());
        rustix::thread::set_no_new_privs(true).unwrap();
        // Threads that exist by now keep theirs, the one that starts processes included. So this is
        // about forked workers, which musl does not have.
        if std::env::var(crate::TYPE).unwrap() != "spawn" && !cfg!(target_env = "musl") {
            let server = fork_server();
            workers.run_sync(has_none, ()).await.unwrap();
            assert_ne!(fork_server(), server);
        }
    });
}

/// Returns the child of this process that is no worker.
fn fork_server() -> u32 {
    let mut children = children();
    children.retain(|&child| !is_named_worker(child) && stage::state_of(child) != Some('Z'));
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

/// A fork server once passed on the environment and the directory of its start, also variables that
/// the program had removed since.
fn change_the_environment_and_the_directory() {
    const VARIABLE: &str = "SEEDBED_TEST_VARIABLE";
    fn here(_: ()) -> (Option<String>, PathBuf) {
        let directory = std::env::current_dir().unwrap();
        (std::env::var(VARIABLE).ok(), directory)
    }
    let set = |value: Option<&str>| {
        // SAFETY: no thread of this program reads the environment through the C library.
        unsafe {
            match value {
                Some(value) => std::env::set_var(VARIABLE, value),
                None => std::env::remove_var(VARIABLE),
            }
        }
    };
    with_workers(config().single_use(), |workers| async move {
        for (value, directory) in [
            (Some("one"), "/"),
            (Some("two"), "/proc"),
            (Some("two"), "/"),
            (None, "/"),
        ] {
            set(value);
            std::env::set_current_dir(directory).unwrap();
            let seen = workers.run_sync(here, ()).await.unwrap();
            assert_eq!(seen, (value.map(str::to_owned), directory.into()));
        }
    });
}

/// Each call once found the fork server of the other, threw it away, and started another one.
fn change_the_directory_while_the_fork_server_starts() {
    with_workers(config(), |workers| async move {
        for turn in 0..5 {
            let directory = |after| {
                if (turn % 2 == 0) == after {
                    "/"
                } else {
                    "/proc"
                }
            };
            std::env::set_current_dir(directory(false)).unwrap();
            open_nursery(async |n| {
                n.spawn(workers.run_sync(pid, ()).into_future());
                yield_now().await;
                std::env::set_current_dir(directory(true)).unwrap();
                n.spawn(workers.run_sync(pid, ()).into_future());
            })
            .await;
            assert_eq!(workers.statistics().failed_starts, 0);
        }
    });
}

/// Writes the id of this process into a file, if it is a worker.
extern "C" fn note_exit() {
    let process = std::process::id();
    if is_named_worker(process) {
        let file = std::env::var_os("SEEDBED_TEST_EXITS").unwrap();
        let file = std::fs::File::options().append(true).open(file);
        file.unwrap()
            .write_all(format!("{process}\n").as_bytes())
            .unwrap();
    }
}

/// A fork that was requested before the change was noticed, and has inherited the former directory,
/// once ran the program's exit handlers there.
fn change_the_directory_before_each_worker() {
    seedbed::init(); // the rest is not for fork servers
    let exits = tempfile::NamedTempFile::new().unwrap();
    // SAFETY: no thread of this program reads the environment through the C library.
    unsafe { std::env::set_var("SEEDBED_TEST_EXITS", exits.path()) };
    let config = config().single_use().preload(|| {
        // SAFETY: the handler may run at any exit: it uses no memory of the program's.
        assert_eq!(unsafe { libc::atexit(note_exit) }, 0);
    });
    let mut with_job = Vec::new();
    with_workers(config, |workers| {
        let with_job = &mut with_job;
        async move {
            for call in 0..20 {
                std::env::set_current_dir(if call % 2 == 0 { "/" } else { "/proc" }).unwrap();
                with_job.push(workers.run_sync(pid, ()).await.unwrap());
            }
        }
    });
    let exits = std::fs::read_to_string(exits.path()).unwrap();
    let mut exits: Vec<u32> = exits.lines().map(|line| line.parse().unwrap()).collect();
    exits.sort_unstable();
    with_job.sort_unstable();
    assert_eq!(exits, with_job);
}

/// Makes the kernel refuse `memfd_create` to this process and those that it starts.
fn refuse_memfd() {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog};
    let step = |code: u32, jf: u8, k: u32| sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let mut filter = [
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 1, libc::SYS_memfd_create as u32),
        step(
            BPF_RET | BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    rustix::thread::set_no_new_privs(true).unwrap();
    // SAFETY: the program and its four steps live until the call returns.
    let refused = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(refused, 0);
}

/// With the default type, all calls once failed in such a sandbox, though spawned workers do
/// everything there.
fn be_refused_files_in_memory() {
    let is_fork_server = std::env::var(crate::TYPE).unwrap() == "fork";
    seedbed::init();
    refuse_memfd();
    with_workers(config(), |workers| async move {
        if is_fork_server {
            let error = workers.run_sync(pid, ()).await.unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Start);
            assert!(error.to_string().contains("memfd_create"), "{error}");
            assert_eq!(children(), []);
            return;
        }
        let louder = |text: String| text + "!";
        for length in [0, 1 << 10, 1 << 17, 8 << 20] {
            let answer = workers.run_sync(louder, "x".repeat(length)).await.unwrap();
            assert_eq!(answer.len(), length + 1);
        }
    });
}
