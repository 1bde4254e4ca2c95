//! How does a server stop without interrupting a line that it is writing?
//!
//! `service::serve` handles SIGTERM and Ctrl-C. When the first one arrives, this happens in order:
//!
//! 1. the server stops accepting and closes its port, so that new clients go elsewhere;
//! 2. it closes idle connections; busy ones may finish their request, within a time limit;
//! 3. requests that exceed the limit are cancelled, but these clients still get a last line that
//!    says so;
//! 4. a second signal ends the time limit at once.
//!
//! `shutdown.until(..)` ends the waiting of those who have nothing to finish. Writes that must not
//! be interrupted are in a shield with a time limit inside:
//!
//! ```text
//! serve: a scope, which gets a deadline when the draining begins
//! └─ clients: a nursery
//!    ├─ accept, until the shutdown begins
//!    ├─ serve a client ── answer ── shield ── write
//!    ├─ serve a client
//!    ┆
//! ```
//!
//! The program contains its own clients, and sends itself the signals.
//!
//! ```text
//! cargo run --example graceful_shutdown
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use seedbed::run::CtrlC;
use seedbed::service::{Shutdown, serve};
use seedbed::signal::{SIGINT, SIGTERM};
use seedbed::time::sleep_forever;
use seedbed::{
    CapacityLimiter, move_on_after, on_cancel, open_nursery, shield, sleep, try_open_nursery,
};
use smol::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use smol::net::{TcpListener, TcpStream};
use smol::stream::StreamExt;

/// The number of clients that are served at a time. Others wait in the kernel's queue.
const MOST_CLIENTS: usize = 1000;

/// The time limit for writing one line. A client that does not read must not delay the shutdown.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// The pause after a failed accept, for example because there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that answers lines with lines. It first reports that it works on the request, then
/// sends the answer.
#[derive(Default)]
struct Server {
    answered: AtomicUsize,
    cut_off: AtomicUsize,
}

impl Server {
    /// Accepts clients until the shutdown begins. Returns when the last client has gone.
    async fn attend_to_all(&self, listener: TcpListener, shutdown: &Shutdown) {
        open_nursery(|clients| async move {
            let places = CapacityLimiter::new(MOST_CLIENTS);
            let next = async || (places.acquire().await, accept(&listener).await);
            while let Some((place, stream)) = shutdown.until(next()).await {
                clients.spawn(async move {
                    self.attend_to(stream, shutdown).await;
                    drop(place);
                });
            }
            // Clients that are still in the kernel's queue are refused too. None of their requests
            // was begun.
            drop(listener);
            println!("Server: the port is closed.");
        })
        .await
    }

    /// Serves one client until either side closes the connection. An error of one client does not
    /// affect the others.
    async fn attend_to(&self, stream: TcpStream, shutdown: &Shutdown) {
        if let Err(error) = self.converse(&stream, shutdown).await {
            println!("Server: a client was lost: {error}.");
        }
    }

    async fn converse(&self, stream: &TcpStream, shutdown: &Shutdown) -> io::Result<()> {
        let mut requests = BufReader::new(stream.clone()).lines();
        // No request is in progress here, so the conversation ends here when the server stops. Half
        // a request counts as none.
        while let Some(Some(request)) = shutdown.until(requests.next()).await {
            write_line(stream, "working").await?;
            let answer = on_cancel(answer(request?), self.apologise(stream)).await;
            write_line(stream, &answer).await?;
            self.answered.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Sends the last line to a client whose request was cancelled. An error here cannot be
    /// reported to anyone, so it is ignored.
    async fn apologise(&self, stream: &TcpStream) {
        self.cut_off.fetch_add(1, Relaxed);
        if let Err(error) = write_line(stream, "sorry").await {
            println!("Server: a client does not know that it was cut off: {error}.");
        }
    }
}

/// Accepts the next connection. Errors are temporary: they concern one client, or a lack of
/// resources.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                println!("Server: nobody can be accepted at the moment: {error}.");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Writes a whole line or fails; cancellation does not interrupt it. The shield defers
/// cancellation, and the time limit inside it bounds the wait.
async fn write_line(stream: &TcpStream, line: &str) -> io::Result<()> {
    let mut stream = stream.clone(); // another handle on the same socket
    let line = format!("{line}\n");
    let writing = shield(move_on_after(
        WRITE_LIMIT,
        stream.write_all(line.as_bytes()),
    ));
    writing
        .await
        .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// The actual work. It does not know about servers, signals and shutdown.
async fn answer(request: String) -> String {
    match request.as_str() {
        "a long story" => sleep(Duration::from_millis(50)).await,
        "the meaning of life" => sleep_forever().await,
        _ => {}
    }
    format!("You wanted {request}.")
}

// The server handles Ctrl-C itself, so the run must not.
#[seedbed::main(ctrl_c = CtrlC::Leave)]
async fn main() -> io::Result<()> {
    let server = Server::default();
    let limit = Duration::from_millis(200);
    with_clients(&server, limit, the_first_signal_drains).await?;
    assert_eq!(server.answered.into_inner(), 2);
    assert_eq!(server.cut_off.into_inner(), 1);

    let server = Server::default();
    let limit = Duration::from_secs(3600);
    with_clients(&server, limit, the_second_signal_ends).await?;
    assert_eq!(server.cut_off.into_inner(), 1);
    Ok(())
}

/// Runs the server, and next to it a task that plays the clients and stops the server.
async fn with_clients(
    server: &Server,
    limit: Duration,
    play: impl AsyncFnOnce(SocketAddr) -> io::Result<()>,
) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let service = |shutdown: Shutdown| async move {
        server.attend_to_all(listener, &shutdown).await;
    };
    try_open_nursery(async |n| {
        let serving = n.spawn(serve(service).drain_for(limit));
        play(address).await?;
        match serving.await.map_err(io::Error::other)? {
            Some(()) => println!("Server: everybody has been served."),
            None => println!("Server: some had to be cut off."),
        }
        Ok(())
    })
    .await
}

async fn the_first_signal_drains(address: SocketAddr) -> io::Result<()> {
    let mut idle = Client::connect(address).await?;
    idle.ask("a cup of tea").await?;
    assert_eq!(idle.hears().await?, "You wanted a cup of tea.");
    let mut patient = Client::connect(address).await?;
    patient.ask("a long story").await?;
    let mut deep = Client::connect(address).await?;
    deep.ask("the meaning of life").await?;

    signal_hook::low_level::raise(SIGTERM)?;
    assert_eq!(idle.hears().await?, "");
    println!("Client: the line is closed, and nobody was in the middle of something.");
    let late = TcpStream::connect(address).await;
    assert_eq!(late.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    println!("Client: who comes now is refused.");
    assert_eq!(patient.hears().await?, "You wanted a long story.");
    println!("Client: what was begun has been finished.");
    assert_eq!(deep.hears().await?, "sorry");
    assert_eq!(deep.hears().await?, "");
    println!("Client: what took too long was cut off, in good form.");
    Ok(())
}

async fn the_second_signal_ends(address: SocketAddr) -> io::Result<()> {
    let mut idle = Client::connect(address).await?;
    let mut deep = Client::connect(address).await?;
    deep.ask("the meaning of life").await?;

    signal_hook::low_level::raise(SIGTERM)?;
    assert_eq!(idle.hears().await?, ""); // so the first signal has been handled
    signal_hook::low_level::raise(SIGINT)?;
    assert_eq!(deep.hears().await?, "sorry");
    println!("Client: there would have been an hour, but there was no time for it.");
    Ok(())
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = BufReader::new(TcpStream::connect(address).await?);
        Ok(Client { stream })
    }

    /// Sends a request and waits until the server has started it.
    async fn ask(&mut self, request: &str) -> io::Result<()> {
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        assert_eq!(self.hears().await?, "working");
        Ok(())
    }

    /// Receives a line. At the end of the stream, it is empty.
    async fn hears(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        Ok(line.trim_end().to_owned())
    }
}
