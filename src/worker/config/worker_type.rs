//! The type of workers: forked or spawned.

/// How worker processes are created.
///
/// A worker executes `main` up to the hook. Threads that `main` has started by then would run on in
/// the worker. So with [`Auto`](Self::Auto) and [`ForkServer`](Self::ForkServer), a program that
/// has other threads when `main` reaches the hook gets an error in place of workers. (Under
/// libtest, whose main thread only waits for the test, `Auto` spawns.) With all types, `main`
/// itself must be the first to reach a hook.
///
/// # Examples
///
/// ```
/// use seedbed::worker::WorkerType;
/// assert_eq!(WorkerType::default(), WorkerType::Auto);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerType {
    /// Forks as [`ForkServer`](Self::ForkServer) does, where that is possible, and spawns
    /// otherwise: in a test under libtest, if a [`preload`](crate::WorkerConfig::preload) closure
    /// leaves a thread, with musl, and where files in memory are forbidden (`memfd_create`, `ulimit
    /// -f`).
    ///
    /// So usually, workers are copies of one process: they draw the same random numbers, if a
    /// generator was seeded in `main` or in `preload`, and their hash maps have the same keys.
    #[default]
    Auto,
    /// Executes this program again for each worker. That takes most of a millisecond, and the
    /// worker starts from scratch.
    ///
    /// Threads that the program starts before the hook are allowed, and run in each worker too.
    /// Choose this if they only wait, or belong to a profiler. A worker exits if one of them starts
    /// a thread that calls into workers.
    Spawn,
    /// Executes this program again once, as a *fork server*, which forks a worker for each request.
    /// That takes less than half the time of executing, and workers share all memory until they
    /// write to it.
    ///
    /// A worker starts as a copy of the fork server at the hook, after
    /// [`preload`](crate::WorkerConfig::preload). So it shares values that were drawn at random or
    /// looked up before: the seeds of hash maps, the state of a random number generator, a process
    /// id that a library keeps, and all addresses. Handlers of `pthread_atfork` are not called.
    /// Exit handlers (`atexit`) that were registered before the fork run in each worker that exits
    /// after a job: one that removes a temporary file removes it for all workers. The data of
    /// [`retire_with`](crate::WorkerConfig::retire_with) is decoded once for all workers. If the
    /// fork server has more than one thread, or with musl, calls fail with
    /// [`WorkerErrorKind::UnsafeFork`](crate::worker::WorkerErrorKind::UnsafeFork). If the fork
    /// server dies, another one is started for the next worker, and existing workers live on.
    ///
    /// The fork server stays as long as its context, whatever the
    /// [`idle_timeout`](crate::WorkerConfig::idle_timeout), and is not counted in the
    /// [statistics](crate::worker::WorkerStatistics). If the program has changed its environment,
    /// its working directory or its credentials (users, groups, capabilities, `no_new_privs`,
    /// seccomp mode, umask, root directory) since the fork server was started, the next new worker
    /// comes from another one. So a new worker has those of the moment, as with
    /// [`Spawn`](Self::Spawn). Its standard output is that of the fork server.
    ForkServer,
}
