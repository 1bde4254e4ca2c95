//! How does a server stop without cutting anybody off in the middle of a word?
//!
//! When it is told to, by SIGTERM, by Ctrl-C, or by an event, it goes in this order:
//!
//! 1. it accepts nobody any more and closes its port, so that new clients go elsewhere;
//! 2. connections on which nothing happens are closed; those that are at work may finish it, within a time limit;
//! 3. what is not done by then is cut off, but its client still gets a last line that says so;
//! 4. a second signal means that nobody has the time for that: the limit is over at once.
//!
//! Most of this is the tree of tasks. What has to end together is in one scope, what has to be over before something else
//! happens is in a nursery, and what must not be torn apart is in a shield with a time limit inside:
//!
//! ```text
//! serve
//! ├─ heed signals
//! └─ work: a scope, which gets a deadline when the draining begins
//!    └─ clients: a nursery
//!       ├─ accept, until told to stop
//!       ├─ attend to a client ── answer ── shield ── write
//!       ├─ attend to a client
//!       ┆
//! ```
//!
//! The program plays its own clients, and sends itself the signals.
//!
//! ```text
//! cargo run --example graceful_shutdown
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use seedbed::run::CtrlC;
use seedbed::signal::{SIGINT, SIGTERM, SignalError, SignalReceiver, open_signal_receiver};
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, CapacityLimiter, RunBuilder, move_on_after, on_cancel, open_nursery, shield, sleep,
};
use smol::future::or;
use smol::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use smol::net::{TcpListener, TcpStream};
use smol::stream::StreamExt;

/// How many clients are attended to at a time. Others wait in the kernel's queue.
const MOST_CLIENTS: usize = 1000;

/// How long one line may take to be written. A client that does not read must not hold up the end.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// How long to wait when a connection cannot be accepted, because there are no descriptors left, for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that answers lines with lines. First it says that it is working on it, then comes the answer.
struct Server {
    /// How long clients are attended to after the server was told to stop.
    grace: Duration,
    /// Tells the server to stop. The signals set it, and anybody else may.
    stop: Event,
    /// Says that the port is closed.
    draining: Event,
    /// What everything that is done for clients is in.
    work: CancelScope,
    answered: AtomicUsize,
    cut_off: AtomicUsize,
}

impl Server {
    fn new(grace: Duration) -> Self {
        Server {
            grace,
            stop: Event::new(),
            draining: Event::new(),
            work: CancelScope::new(),
            answered: AtomicUsize::new(0),
            cut_off: AtomicUsize::new(0),
        }
    }

    /// Serves until it is told to stop, and until nothing is left of what it has begun.
    async fn serve(&self, listener: TcpListener) -> Result<(), SignalError> {
        let signals = open_signal_receiver(&[SIGTERM, SIGINT])?;
        open_nursery(|n| async move {
            n.spawn(self.heed(signals));
            match self.work.run(self.attend_to_all(listener)).await {
                Some(()) => println!("Server: everybody has been served."),
                None => println!("Server: some had to be cut off."),
            }
            n.cancel(); // no more signals are waited for
        })
        .await;
        Ok(())
    }

    /// The first signal asks the server to stop. The second one does not ask.
    async fn heed(&self, mut signals: SignalReceiver) {
        signals.next().await;
        println!("Server: a signal. We stop.");
        self.stop.set();
        signals.next().await;
        println!("Server: another signal. We stop now.");
        self.work.cancel();
    }

    /// Accepts clients until it is told to stop; ends when the last of them has gone.
    async fn attend_to_all(&self, listener: TcpListener) {
        open_nursery(|clients| async move {
            let places = CapacityLimiter::new(MOST_CLIENTS);
            or(self.stop.wait(), async {
                loop {
                    let place = places.acquire().await;
                    let stream = accept(&listener).await;
                    clients.spawn(async move {
                        self.attend_to(stream).await;
                        drop(place);
                    });
                }
            })
            .await;
            // Who is still in the kernel's queue is refused, too: nothing of theirs was begun.
            drop(listener);
            println!("Server: the port is closed.");
            self.draining.set();
            self.work.set_timeout(self.grace);
        })
        .await
    }

    /// Attends to one client until either side has enough. What goes wrong with one is no concern of the others.
    async fn attend_to(&self, stream: TcpStream) {
        if let Err(error) = self.converse(&stream).await {
            println!("Server: a client was lost: {error}.");
        }
    }

    async fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        let mut requests = BufReader::new(stream.clone()).lines();
        loop {
            // Here nothing is under way, so this is where a conversation ends when the server does. Half a request counts
            // as none.
            let no_more = async {
                self.draining.wait().await;
                None
            };
            let Some(request) = or(requests.next(), no_more).await else {
                return Ok(());
            };
            write_line(stream, "working").await?;
            let answer = on_cancel(answer(request?), self.apologise(stream)).await;
            write_line(stream, &answer).await?;
            self.answered.fetch_add(1, Relaxed);
        }
    }

    /// The last thing that a client hears whose answer was cut off. There is nobody left to tell if it fails.
    async fn apologise(&self, stream: &TcpStream) {
        self.cut_off.fetch_add(1, Relaxed);
        if let Err(error) = write_line(stream, "sorry").await {
            println!("Server: a client does not know that it was cut off: {error}.");
        }
    }
}

/// Accepts the next connection. Errors pass: they concern one client, or the machine as it is at the moment.
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

/// Writes a whole line or fails; cancellation does not cut it in two. The shield keeps cancellation out, and the limit
/// inside of it keeps the shield from being for ever.
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

/// The actual work, which knows nothing of servers, signals and ends.
async fn answer(request: String) -> String {
    match request.as_str() {
        "a long story" => sleep(Duration::from_millis(50)).await,
        "the meaning of life" => sleep_forever().await,
        _ => {}
    }
    format!("You wanted {request}.")
}

fn main() {
    // Ctrl-C is one of the server's own signals, so the run leaves it alone.
    RunBuilder::new().ctrl_c(CtrlC::Leave).run(async {
        let server = Server::new(Duration::from_millis(200));
        with_clients(&server, the_first_signal_drains)
            .await
            .unwrap();
        assert_eq!(server.answered.into_inner(), 2);
        assert_eq!(server.cut_off.into_inner(), 1);

        let server = Server::new(Duration::from_secs(3600));
        with_clients(&server, the_second_signal_ends).await.unwrap();
        assert_eq!(server.cut_off.into_inner(), 1);
    });
}

/// Runs the server, and beside it somebody who plays its clients and brings it to its end.
async fn with_clients(
    server: &Server,
    play: impl AsyncFnOnce(SocketAddr) -> io::Result<()>,
) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    open_nursery(async |n| {
        let serving = n.spawn(server.serve(listener));
        play(address).await?;
        serving.await.map_err(io::Error::other)
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
    assert_eq!(idle.hears().await?, ""); // so the first one has been heard
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

    /// Sends a request, and waits until the server works on it.
    async fn ask(&mut self, request: &str) -> io::Result<()> {
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        assert_eq!(self.hears().await?, "working");
        Ok(())
    }

    /// Receives a line; an empty one at the end.
    async fn hears(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        Ok(line.trim_end().to_owned())
    }
}
