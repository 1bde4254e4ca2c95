//! The environment variables, working directory, process group and signals of workers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::environment::Change;
use super::worker_config::WorkerConfig;
use crate::transport::traced::TracingLevel;

impl WorkerConfig {
    /// Sets an environment variable in the workers, as [`Command::env`](std::process::Command::env)
    /// does. They inherit all other variables from this process as they are when a worker is
    /// started; a worker that runs keeps what it has.
    ///
    /// A library that makes a pool of threads makes one in each worker, with a thread for each CPU:
    /// `.env("RAYON_NUM_THREADS", "1")` prevents that for rayon, `OMP_NUM_THREADS` for OpenMP.
    ///
    /// The variable is set when the program is executed again, so the dynamic linker and the code
    /// before the hook see it. If a variable is set twice, the last value counts.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn mode(_: ()) -> Option<String> {
    ///     std::env::var("MODE").ok()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().env("MODE", "careful");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(mode, ()).await.unwrap().as_deref(), Some("careful"));
    ///     }));
    ///     assert_eq!(std::env::var_os("MODE"), None, "not here");
    /// }
    /// ```
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let (key, value) = (key.as_ref(), value.as_ref());
        let words = match (fault_of_key(key), value.as_bytes().contains(&0)) {
            (Some(words), _) => Some(words),
            (None, true) => Some("a value cannot contain a zero byte"),
            (None, false) => None,
        };
        if let Some(words) = words {
            self.refuse(format!("env({key:?}, ..)"), words); // the value may be a secret
        }
        self.environment
            .changes
            .push(Change::Set(key.into(), value.into()));
        self
    }

    /// Removes an environment variable in the workers, as
    /// [`Command::env_remove`](std::process::Command::env_remove) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn has_path(_: ()) -> bool {
    ///     std::env::var_os("PATH").is_some()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().env_remove("PATH");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert!(!workers.run_sync(has_path, ()).await.unwrap());
    ///     }));
    /// }
    /// ```
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        let key = key.as_ref();
        if let Some(words) = fault_of_key(key) {
            self.refuse(format!("env_remove({key:?})"), words);
        }
        self.environment.changes.push(Change::Remove(key.into()));
        self
    }

    /// Clears the environment of the workers, as
    /// [`Command::env_clear`](std::process::Command::env_clear) does, including variables that were
    /// set before.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn count(_: ()) -> usize {
    ///     std::env::vars_os().count()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().env_clear().env("LANG", "C");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(count, ()).await.unwrap(), 1);
    ///     }));
    /// }
    /// ```
    pub fn env_clear(mut self) -> Self {
        self.environment.changes.clear();
        self.environment.changes.push(Change::Clear);
        self
    }

    /// Sets the working directory of the workers. A relative path is resolved against the directory
    /// of this process at the time when the worker or the fork server is started, which is also the
    /// directory of workers without this setting.
    ///
    /// The directory changes at the hook, before [`preload`](Self::preload). Code in `main` before
    /// the hook runs in the directory that this process had at its hook, so relative paths in the
    /// program's arguments keep their meaning there, even if this process has changed its directory
    /// since then. (That needs glibc 2.29 or musl, the same root directory, and the right to enter
    /// it. Otherwise `main` runs in the present directory.)
    ///
    /// # Examples
    ///
    /// ```
    /// use std::path::PathBuf;
    /// use seedbed::worker::WorkerErrorKind;
    /// use seedbed::{WorkerConfig, open_worker_context, run_sync};
    ///
    /// fn here(_: ()) -> PathBuf {
    ///     std::env::current_dir().unwrap()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().current_dir("/");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(here, ()).await.unwrap(), PathBuf::from("/"));
    ///     }));
    ///     let config = WorkerConfig::new().current_dir("/no/such/place");
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let error = workers.run_sync(here, ()).await.unwrap_err();
    ///         assert_eq!(error.kind(), WorkerErrorKind::Start);
    ///         assert!(error.to_string().contains(r#"current_dir("/no/such/place")"#));
    ///     }));
    /// }
    /// ```
    pub fn current_dir(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if path.as_os_str().as_bytes().contains(&0) {
            let words = "a path cannot contain a zero byte";
            self.refuse(format!("current_dir({path:?})"), words);
        }
        self.current_dir = Some(path);
        self
    }

    /// Sets whether the processes that jobs start end with their worker: false, unless this is set.
    ///
    /// If so, each worker leads a process group of its own, and is a *child subreaper*: a
    /// descendant whose parent has exited becomes the worker's child, so `setsid` and a double fork
    /// do not lead out of its tree. A worker that exits by itself (retired, idle for too long, told
    /// to) kills its descendants first. A worker that is killed is stopped, its descendants are
    /// stopped and killed, and then the worker is. Descendants that do not end within a second,
    /// because they wait for the kernel, are left alone, as are those that may not be signalled. On
    /// a kernel without the lists `/proc/PID/task/TID/children`, only the group is killed.
    ///
    /// When this process ends without unwinding (by a second Ctrl-C, SIGTERM without a receiver,
    /// `exit`, a crash, SIGKILL), each worker kills its group at once, while its job runs too. The
    /// worker learns of that end by a signal, `SIGRTMAX` - 1, which a job must not handle or
    /// ignore. A job that blocks all signals delays this until it unblocks them or returns.
    ///
    /// There are two limits. When a worker *crashes*, or another process kills it, or this process
    /// ends without unwinding, the group is killed, but descendants that have left the group
    /// (`setsid`) live on. A job that is *done* does not end its worker, so its processes run until
    /// the worker ends, which is at once with [`single_use`](Self::single_use); until then, adopted
    /// descendants that have exited stay zombies.
    ///
    /// Killed descendants become children of process 1, or of a child subreaper above this program.
    /// If that is this program, as in a container without an init, it reaps those that it has
    /// killed. Other orphans of jobs stay zombies then: let the container have an init (`docker run
    /// --init`).
    ///
    /// A process group of its own also detaches the worker from the terminal. Ctrl-C and Ctrl-Z do
    /// not reach it. SIGTTIN and SIGTTOU are ignored in the worker and in what it starts, so a job
    /// or its program may write to the terminal and change its settings, but cannot read it: a
    /// password prompt fails with `EIO` instead of being stopped forever. On the other hand, a job
    /// that signals its process group does not signal this program.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    /// use std::process::{Command, Stdio};
    ///
    /// fn leave_a_process(_: ()) -> u32 {
    ///     Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap().id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().kill_tree(true).single_use();
    ///     let sleeper = smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(leave_a_process, ()).await.unwrap()
    ///     }));
    ///     let stat = format!("/proc/{sleeper}/stat");
    ///     let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    ///     while lives() {} // the kill may take a moment
    ///     assert!(!lives());
    /// }
    /// ```
    pub fn kill_tree(mut self, kill: bool) -> Self {
        self.limits.own_group = kill;
        self
    }

    /// Sets whether workers close the descriptors that they inherit from this process, except the
    /// standard ones: false, unless this is set.
    ///
    /// A worker inherits each descriptor of this process that is not close-on-exec, and keeps it
    /// open until it exits. So a file stays locked after this process has closed it, an address
    /// stays in use, a pipe does not end. Descriptors that Rust opens are close-on-exec.
    /// Descriptors of C code or from an init system often are not.
    ///
    /// The descriptors are closed at the hook, before [`preload`](Self::preload). Code in `main`
    /// before the hook must not have opened any that is not close-on-exec and is used later in the
    /// worker, because that is closed as well.
    ///
    /// # Examples
    ///
    /// ```
    /// use rustix::io::{FdFlags, fcntl_setfd};
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let (mut reader, writer) = std::io::pipe().unwrap();
    ///     fcntl_setfd(&writer, FdFlags::empty()).unwrap();
    ///     let config = WorkerConfig::new().close_inherited_descriptors(true);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(i32::abs, -3).await.unwrap();
    ///         drop(writer);
    ///         // No worker has the other end open, so this does not wait.
    ///         assert_eq!(std::io::Read::read(&mut reader, &mut [0]).unwrap(), 0);
    ///     }));
    /// }
    /// ```
    pub fn close_inherited_descriptors(mut self, close: bool) -> Self {
        self.close_inherited_descriptors = close;
        self
    }

    /// Sets whether SIGINT, SIGTERM, SIGHUP and SIGQUIT have their default actions in workers:
    /// false, unless this is set.
    ///
    /// These signals often go to a whole process group: from the terminal, an init system, or
    /// `timeout`. By default they do nothing in a worker, so that this process alone decides what
    /// happens to a job. If this process does not handle such a signal, it ends, and its workers
    /// end with it. With `true`, such a signal ends each worker that it reaches, and the call ends
    /// with [`Broken`](crate::worker::WorkerErrorKind::Broken). SIGKILL ends a worker in any case.
    ///
    /// A worker does not *ignore* the signals: it has a handler that does nothing. So the programs
    /// that a job executes have the default actions. A handler may interrupt a sleep or a `poll` of
    /// the job (`EINTR`); the standard library repeats those. A signal that this process ignores,
    /// because `nohup` started it, for example, is ignored by workers and by what they start. A job
    /// and an [`init`](Self::init) closure may install handlers of their own.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn terminate(_: ()) {
    ///     signal_hook::low_level::raise(15).unwrap() // SIGTERM
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     smol::block_on(async {
    ///         open_worker_context(WorkerConfig::new(), |workers| async move {
    ///             workers.run_sync(terminate, ()).await.unwrap();
    ///         })
    ///         .await;
    ///         let config = WorkerConfig::new().default_signals(true);
    ///         open_worker_context(config, |workers| async move {
    ///             let error = workers.run_sync(terminate, ()).await.unwrap_err();
    ///             assert_eq!(error.exit().unwrap().signal_name(), Some("SIGTERM"));
    ///         })
    ///         .await;
    ///     });
    /// }
    /// ```
    pub fn default_signals(mut self, default: bool) -> Self {
        self.default_signals = default;
        self
    }

    /// Forwards the `tracing` events of jobs to the subscriber of this process: those of this level
    /// and of more important ones. Without this, they reach only a subscriber that the program sets
    /// in the worker.
    ///
    /// An event arrives with its level, target, name, place in the source and fields, so filters
    /// treat it as one of this process. Its parent is the span in which the worker got the job:
    /// that of the call, if the subscriber records [calls](crate::worker#observing-workers). Spans
    /// of the job are not forwarded.
    ///
    /// Events are sent at once, so they also tell how far a long job is, and what happened before a
    /// crash. The call emits them when it is polled, and all of them before it returns. A job does
    /// not wait if this process does not read them: about 400 KiB are kept. Then the oldest are
    /// dropped, and an event of the target `seedbed::worker` at WARN says how many were. Texts in
    /// an event are cut after 8 KiB.
    ///
    /// Events of threads that a job starts are included, while a job runs. Events of processes that
    /// a job forks, and of closures that run outside of jobs, are not included. A subscriber that
    /// the program sets in the worker (before the hook, or in [`preload`](Self::preload) or
    /// [`init`](Self::init)) is preferred to this.
    ///
    /// This crate does not depend on `log`. Records of `log` are forwarded if they become events in
    /// the worker: `.init(|| tracing_log::LogTracer::init().unwrap())` does that.
    ///
    /// # Cost
    ///
    /// An event costs some microseconds in each of the two processes. The workers of the context
    /// have no [mailbox](crate::worker#what-a-call-costs), which could overtake events, so a call
    /// takes tens of microseconds. Without this setting, nothing costs anything.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::TracingLevel;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn would_be_seen(_: ()) -> (bool, bool) {
    ///     tracing::info!(files = 3, "the job has begun");
    ///     (tracing::enabled!(tracing::Level::INFO), tracing::enabled!(tracing::Level::DEBUG))
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     // Here, a program sets its subscriber.
    ///     let config = WorkerConfig::new().forward_tracing(TracingLevel::Info);
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let seen = workers.run_sync(would_be_seen, ()).await.unwrap();
    ///         assert_eq!(seen, (true, false));
    ///     }));
    /// }
    /// ```
    pub fn forward_tracing(mut self, level: TracingLevel) -> Self {
        self.forward_tracing = Some(level);
        self
    }
}

fn fault_of_key(key: &OsStr) -> Option<&'static str> {
    match key.as_bytes() {
        [] => Some("a variable needs a name"),
        name if name.contains(&b'=') || name.contains(&0) => {
            Some("the name of a variable cannot contain `=` or a zero byte")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::error::WorkerErrorKind;

    #[test]
    fn an_invalid_variable_or_path_is_refused() {
        let refused = |config: WorkerConfig, setting: &str| {
            let error = config.check().unwrap_err();
            assert_eq!(error.kind(), WorkerErrorKind::Config);
            assert!(error.to_string().contains(setting), "{error}");
        };
        refused(WorkerConfig::new().env("", "x"), r#"env("", ..)"#);
        refused(WorkerConfig::new().env("A=B", "x"), r#"env("A=B", ..)"#);
        refused(WorkerConfig::new().env("A", "x\0"), "zero byte");
        refused(
            WorkerConfig::new().env_remove("A\0"),
            r#"env_remove("A\0")"#,
        );
        refused(
            WorkerConfig::new().current_dir("a\0b"),
            r#"current_dir("a\0b")"#,
        );
        assert!(
            WorkerConfig::new()
                .env("A", "")
                .env_remove("B")
                .env_clear()
                .check()
                .is_ok()
        );
    }

    #[test]
    fn debug_output_shows_names_and_no_values() {
        let config = WorkerConfig::new()
            .env_clear()
            .env("TOKEN", "swordfish")
            .env_remove("HOME");
        let shown = format!("{config:?}");
        assert!(
            shown.contains(r#"[nothing inherited, "TOKEN" = .., no "HOME"]"#),
            "{shown}"
        );
        assert!(!shown.contains("swordfish"));
    }
}
