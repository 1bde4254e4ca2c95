//! A fork server that stands still, and more callers than it can be told of.

use std::process::Command;

use futures_lite::future::block_on;

use super::*;
use crate::worker::child::Stdout;
use crate::worker::spawn::pids::Fate;

/// One that reads nothing.
fn idler(recipe: Arc<Recipe>) -> Server {
    let launched = Launched::instead(Command::new("sleep").arg("infinity"));
    let process = Worker::new(launched).unwrap();
    let (table, _memory) = shared_table().unwrap();
    let births = Births::new(table, process.descriptor().unwrap());
    Server {
        process,
        recipe,
        number: 0,
        births,
    }
}

/// This program, which lists its tests and ends, and so is no fork server.
fn in_vain() -> Arc<Recipe> {
    Arc::new(Recipe::new(vec!["--list".into()], Stdout::Deferred))
}

#[test]
fn a_caller_who_cannot_tell_a_fork_server_that_it_is_there_has_another_one_started() {
    let fork_server = ForkServer::with_patience(WorkerConfig::new(), Duration::ZERO);
    let recipe = in_vain();
    let server = idler(recipe.clone());
    let pidfd = server.process.descriptor().unwrap();
    *fork_server.state() = State::Ready(Box::new(server));
    let (_ours, _, theirs) = fork_server.line().unwrap();
    let mut asked = Vec::new();
    while let Next::Asked(place, _) = fork_server.next(&recipe, &theirs) {
        asked.push(place);
    }
    assert!(!asked.is_empty());
    let error = block_on(fork_server.clone().request(recipe)).unwrap_err();
    assert_eq!(error.kind(), WorkerErrorKind::Start);
    assert!(error.to_string().contains("hook"), "of the other: {error}");
    assert!(matches!(*fork_server.state(), State::None));
    // It is reaped in the background.
    while !pidfd.has_ended() {
        std::thread::yield_now();
    }
    assert!(asked.iter().all(|place| place.fate() == Fate::Never));
}
