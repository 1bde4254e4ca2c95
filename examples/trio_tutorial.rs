//! What do the programs of Trio's tutorial look like here?
//!
//! The programs of <https://trio.readthedocs.io/en/stable/tutorial.html>: two children that sleep
//! in one nursery, the same with a trace of their turns, and an echo server with a client that
//! sends and receives at the same time.
//!
//! ```text
//! cargo run --example trio_tutorial
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seedbed::instrument::{Instrument, TaskExit};
use seedbed::nursery::TaskInfo;
use seedbed::testing::MockClock;
use seedbed::time::current_time;
use seedbed::{RunBuilder, open_nursery, sleep, try_open_nursery};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};

const SECOND: Duration = Duration::from_secs(1);

fn main() {
    // The children sleep for a second each. On a virtual clock, that takes no time.
    RunBuilder::new().clock(MockClock::autojump()).run(parent());
    println!("The same again, and an instrument takes notes:\n");
    traced_parent();
    seedbed::run(echo()).unwrap();
}

/// Two children in one nursery. Both sleep for a second, at the same time, so the block ends after
/// one second.
async fn parent() {
    println!("The parent has begun.");
    let start = current_time();
    open_nursery(async |n| {
        n.spawn(child("The first child"));
        n.spawn(child("The second child"));
        println!("The parent waits at the end of its block.");
    })
    .await;
    // The children get their first turns in the order of spawning. (In Trio, the order is random.)
    assert_eq!(current_time() - start, SECOND);
    println!("All are gone, and so is the nursery.\n");
}

async fn child(name: &str) {
    println!("  {name} has begun to sleep.");
    sleep(SECOND).await;
    println!("  {name} is awake, and ends.");
}

/// The first program with a trace. It shows that a task runs until it waits, and that no other task
/// runs at that time.
fn traced_parent() {
    let notes = Arc::new(Notes::default());
    let run = RunBuilder::new().clock(MockClock::autojump());
    run.instrument(notes.clone()).run(open_nursery(async |n| {
        n.named("child 1").spawn(child("The first child"));
        n.named("child 2").spawn(child("The second child"));
    }));
    let notes = notes.0.lock().unwrap();
    assert_eq!(
        *notes,
        [
            "child 1 is spawned",
            "child 2 is spawned",
            "child 1 has its turn",
            "child 1 has had it",
            "child 2 has its turn",
            "child 2 has had it",
            "child 1 has its turn",
            "child 1 has had it",
            "child 1 is gone",
            "child 2 has its turn",
            "child 2 has had it",
            "child 2 is gone",
        ]
    );
    println!("The notes: {}.\n", notes.join(", "));
}

/// Records the events of the children that the run reports to its instruments.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, task: &TaskInfo, what: &str) {
        // The root task is the parent itself, and its turns contain those of all others.
        if task.parent().is_some() {
            self.0
                .lock()
                .unwrap()
                .push(format!("{} {what}", task.name()));
        }
    }
}

impl Instrument for Notes {
    fn task_spawned(&self, task: &TaskInfo) {
        self.note(task, "is spawned");
    }

    fn before_task_step(&self, task: &TaskInfo) {
        self.note(task, "has its turn");
    }

    fn after_task_step(&self, task: &TaskInfo) {
        self.note(task, "has had it");
    }

    fn task_exited(&self, task: &TaskInfo, _: TaskExit) {
        self.note(task, "is gone");
    }
}

/// An echo server, and a client of it.
async fn echo() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let heard = open_nursery(async |n| {
        let serving = n.spawn(serve(listener));
        let heard = echo_client(address).await;
        // Without this, the server would run forever, and so would the block.
        serving.cancel().await;
        heard
    })
    .await?;
    assert_eq!(heard, "async can be comfortable");
    println!("The client has heard: {heard}.");
    Ok(())
}

/// Accepts connections, and starts a task for each.
async fn serve(listener: TcpListener) {
    open_nursery(async |n| {
        for number in 1.. {
            match listener.accept().await {
                Ok((stream, _)) => drop(n.spawn(echo_server(number, stream))),
                Err(error) => println!("Server: somebody could not be let in: {error}."),
            }
        }
    })
    .await;
}

/// Sends back the bytes that it receives. An error here concerns one client, so it is printed and
/// not returned: in a nursery, an unhandled error would end all other connections.
async fn echo_server(number: u32, mut stream: TcpStream) {
    println!("Server: connection {number} has begun.");
    let sink = stream.clone();
    match smol::io::copy(&mut stream, sink).await {
        Ok(bytes) => println!("Server: connection {number} is closed after {bytes} bytes."),
        Err(error) => println!("Server: connection {number} has failed: {error}."),
    }
}

/// Sends and receives at the same time, in two tasks. The sender closes its direction when it has
/// sent everything. The server sees that and closes the other direction, so the receiver knows that
/// it has everything.
async fn echo_client(address: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    try_open_nursery(|n| async move {
        let (mut sending, mut receiving) = (stream.clone(), stream);
        n.try_spawn(async move {
            for word in ["async ", "can ", "be ", "comfortable"] {
                sending.write_all(word.as_bytes()).await?;
                println!("Client: sent {word:?}.");
                // This pause is not needed. It shows that answers arrive during it.
                sleep(Duration::from_millis(5)).await;
            }
            sending.shutdown(std::net::Shutdown::Write)
        });
        let mut heard = String::new();
        receiving.read_to_string(&mut heard).await?;
        Ok(heard)
    })
    .await
}
