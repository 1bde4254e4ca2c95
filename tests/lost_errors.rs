//! An `Err` of a child whose `Task` was dropped is reported by an event at WARN. Such errors used
//! to vanish: the block ended as if all was well.

#[path = "common/log.rs"]
mod log;

use std::future::IntoFuture;

use log::Log;
use seedbed::nursery::{StartError, open_local_nursery};
use seedbed::time::sleep_forever;
use seedbed::{checkpoint, open_nursery, run, try_open_nursery};
use tracing::Level;

/// Runs a future, and returns its value and the warnings.
fn recorded<F: IntoFuture>(future: F) -> (F::Output, Vec<String>) {
    let log = Log::new("seedbed::nursery", Level::WARN);
    let value = tracing::subscriber::with_default(log.clone(), || run(future.into_future()));
    (value, log.lines())
}

async fn fails() -> Result<(), String> {
    checkpoint().await;
    Err("the disk is full".to_string())
}

/// Checks that there is one warning, about this task and a result of this type.
fn check(warnings: &[String], task: &str, result_type: &str) {
    let [warning] = warnings else {
        panic!("there is one warning: {warnings:?}");
    };
    assert!(
        warning.contains(&format!("child, `{task}`, returned an `Err`")),
        "{warning}"
    );
    assert!(warning.contains(result_type), "{warning}");
}

const RESULT: &str = "core::result::Result<(), alloc::string::String>";

#[test]
fn an_error_of_a_child_without_a_task_is_reported_with_the_child_s_name() {
    let ((), warnings) = recorded(open_nursery(async |n| {
        n.spawn(fails());
    }));
    check(&warnings, "lost_errors::fails", RESULT);
    let ((), warnings) = recorded(open_local_nursery(async |n| {
        n.named("save").spawn(fails());
    }));
    check(&warnings, "save", RESULT);
}

#[test]
fn an_error_that_is_there_when_the_task_is_dropped_is_reported() {
    let ((), warnings) = recorded(open_nursery(async |n| {
        let task = n.spawn(fails());
        while !task.is_finished() {
            checkpoint().await;
        }
        drop(task);
    }));
    check(&warnings, "lost_errors::fails", RESULT);
}

#[test]
fn an_error_of_a_child_that_has_started_or_runs_on_an_executor_is_reported() {
    let ((), warnings) = recorded(open_nursery(async |n| {
        let n = n.named("serve");
        let port = n.start(|started| async move {
            started.send(8080);
            fails().await
        });
        assert_eq!(port.await.unwrap(), 8080);
    }));
    check(&warnings, "serve", RESULT);
    let ((), warnings) = recorded(open_nursery(async |n| {
        let executor = |child| smol::spawn(child).detach();
        n.named("remote").spawn_on(&executor, fails());
    }));
    check(&warnings, "remote", RESULT);
}

#[test]
fn an_error_that_reaches_the_program_is_not_reported() {
    let (results, warnings) = recorded(open_nursery(async |n| {
        let awaited = n.spawn(fails()).await;
        let outcome = n.spawn(fails()).outcome().await;
        let task = n.spawn(async { fails().await });
        checkpoint().await;
        checkpoint().await;
        let cancelled = task.cancel().await;
        let exited = n.start::<(), _, _>(async |_| fails().await).await;
        assert!(matches!(exited, Err(StartError::Exited(Err(_)))));
        [Some(awaited), outcome, cancelled]
    }));
    let error = fails();
    let error = Some(smol::block_on(error));
    assert_eq!(results, [error.clone(), error.clone(), error]);
    assert_eq!(warnings, [""; 0]);
    let (result, warnings) = recorded(try_open_nursery(async |n| {
        n.try_spawn(fails());
        sleep_forever().await;
        Ok(())
    }));
    assert_eq!(result.unwrap_err(), "the disk is full");
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn a_result_that_is_no_error_and_a_cancelled_child_are_not_reported() {
    let ((), warnings) = recorded(open_nursery(async |n| {
        n.spawn(async { Ok::<_, String>(Err::<(), _>("inner")) });
        n.spawn(async { Some(Err::<(), _>("inner")) });
        n.spawn(async {
            sleep_forever().await;
            fails().await
        });
        n.spawn(async { _ = fails().await });
        checkpoint().await;
        checkpoint().await;
        checkpoint().await;
        n.cancel();
    }));
    assert_eq!(warnings, [""; 0]);
}
