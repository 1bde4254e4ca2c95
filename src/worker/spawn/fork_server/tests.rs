//! A fork server that does not answer, and more requests than it can hold.

use std::process::Command;

use futures_lite::future::block_on;

use super::*;
use crate::worker::child::Stdout;
use crate::worker::conn::pending_fork::ForkOutcome;

/// A fork server that reads nothing, and is given up after this time.
fn silent_server(spec: Arc<ExecSpec>, answer_timeout: Duration) -> Server {
    let launched = Launched::instead(Command::new("sleep").arg("infinity"));
    let process = Worker::new(launched).unwrap();
    let (table, _memory) = Mapping::make("test").unwrap();
    let pid_table = PidTable::new(table, process.descriptor().unwrap(), answer_timeout);
    Server {
        process,
        spec,
        inherited: inherited(),
        number: 0,
        pid_table,
    }
}

fn inherited() -> Inheritance {
    Inheritance::present(0, &WorkerConfig::new().environment())
}

/// This program, which lists its tests and exits, and so becomes no fork server.
fn useless_spec() -> Arc<ExecSpec> {
    Arc::new(ExecSpec::new(
        vec!["--list".into()],
        Stdout::Deferred,
        None,
        0,
    ))
}

#[test]
#[cfg_attr(target_env = "musl", ignore = "with musl, forking is not safe")]
fn a_fork_server_that_takes_no_more_requests_is_replaced() {
    let fork_server = ForkServer::with_answer_timeout(WorkerConfig::new(), Duration::ZERO);
    let spec = useless_spec();
    let server = silent_server(spec.clone(), Duration::ZERO);
    let pidfd = server.process.descriptor().unwrap();
    *fork_server.state() = State::Ready(Box::new(server));
    let (_ours, _, ends) = fork_server.worker_ends().unwrap();
    let mut requested = Vec::new();
    while let Step::Requested(fork) = fork_server.next_step(&spec, &inherited(), &ends) {
        requested.push(fork);
    }
    assert!(!requested.is_empty());
    let error = block_on(fork_server.clone().request(spec, inherited())).unwrap_err();
    assert_eq!(error.kind(), WorkerErrorKind::Start);
    assert!(
        error.to_string().contains("hook"),
        "of the new one: {error}"
    );
    assert!(matches!(*fork_server.state(), State::None));
    // It is reaped in the background.
    while !pidfd.has_ended() {
        std::thread::yield_now();
    }
    assert!(
        requested
            .iter()
            .all(|fork| fork.outcome() == ForkOutcome::ServerEnded)
    );
}

#[test]
fn an_early_fork_is_used_only_if_its_process_inherits_what_it_should() {
    let spec = useless_spec();
    let with_server = |config| {
        let fork_server = ForkServer::new(config);
        assert!(fork_server.request_early(&spec).is_none(), "from none");
        let server = silent_server(spec.clone(), FORK_ANSWER_TIMEOUT);
        *fork_server.state() = State::Ready(Box::new(server));
        fork_server
    };
    let fork_server = with_server(WorkerConfig::new());
    let early = fork_server.request_early(&spec).unwrap();
    assert!(early.with(&inherited()).is_some());
    let changed = Inheritance::present(1, &WorkerConfig::new().environment());
    let early = fork_server.request_early(&spec).unwrap();
    assert!(early.with(&changed).is_none());
    assert!(
        fork_server.request_early(&useless_spec()).is_none(),
        "at another hook"
    );
    let with_init = with_server(WorkerConfig::new().init(|| ()));
    assert!(
        with_init.request_early(&spec).is_none(),
        "the closure would run first"
    );
}
