//! How do I try several things, a little apart, and take the first that works?
//!
//! A host with many addresses is dialled as in RFC 8305 ("Happy Eyeballs"): in order, but without a
//! long wait for an address that does not answer. The next attempt begins when the one before has
//! failed or has taken too long. The first connection ends all other attempts.
//!
//! ```text
//! cargo run --example happy_eyeballs
//! ```

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use seedbed::sync::Event;
use seedbed::time::current_time;
use seedbed::{move_on_after, on_cancel, open_nursery};
use smol::net::{TcpListener, TcpStream};

/// The time after which the next attempt begins. RFC 8305 recommends a quarter of a second.
const STAGGER: Duration = Duration::from_millis(50);

/// Connects to the first of the addresses that answers, and prefers those that come early.
///
/// # Errors
///
/// Returns the error of each address, if all have failed.
async fn connect(addresses: &[SocketAddr], stagger: Duration) -> Result<TcpStream, AllFailed> {
    let failures = &Mutex::new(Vec::new());
    open_nursery(|n| async move {
        let mut attempts = Vec::new();
        for &address in addresses {
            let failed = Event::new();
            let (winner, failure) = (n.clone(), failed.clone());
            attempts.push(n.spawn(async move {
                match attempt(address).await {
                    // This ends the block: the other attempts are dropped where they wait.
                    Ok(stream) => winner.terminate(Ok(stream)),
                    Err(error) => {
                        failures.lock().unwrap().push((address, error));
                        failure.set();
                    }
                }
            }));
            // The next one begins when this one has failed or its time is up.
            move_on_after(stagger, failed.wait()).await;
        }
        for attempt in attempts {
            attempt.await;
        }
        // All attempts have failed: a success would have ended the block.
        Err(AllFailed(std::mem::take(&mut failures.lock().unwrap())))
    })
    .await
}

/// One attempt, which prints its result.
async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    println!("Dialling {}.", address.ip());
    let abandoned = async { println!("{} is not needed any more.", address.ip()) };
    let outcome = on_cancel(TcpStream::connect(address), abandoned).await;
    match &outcome {
        Ok(_) => println!("{} has answered.", address.ip()),
        Err(error) => println!("{} has failed: {}.", address.ip(), error.kind()),
    }
    outcome
}

/// The error of each address.
#[derive(Debug)]
struct AllFailed(Vec<(SocketAddr, io::Error)>);

impl fmt::Display for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none of {} addresses can be reached", self.0.len())
    }
}

impl std::error::Error for AllFailed {}

seedbed::main! {
    async fn main() -> io::Result<()> {
        let refusing = refusing()?;
        let black_hole = BlackHole::open()?;
        let listener = TcpListener::bind((ANSWERING, 0)).await?;
        let answering = listener.local_addr()?;

        // The first address refuses, so the second is dialled immediately. That one does not
        // answer, so after a while the third is dialled as well, and answers. The fourth is never
        // dialled.
        let start = current_time();
        let addresses = [refusing, black_hole.address, answering, refusing];
        let stream = connect(&addresses, STAGGER).await.expect("one of them answers");
        assert_eq!(stream.peer_addr()?, answering);
        assert!(current_time() - start >= STAGGER);
        println!("Connected to {}, and nothing else is under way.", answering.ip());

        // If no address answers, the caller gets the error of each.
        let error = connect(&[refusing, refusing], STAGGER).await.unwrap_err();
        assert!(error.0.iter().all(|(_, why)| why.kind() == io::ErrorKind::ConnectionRefused));
        println!("This time, {error}.");
        Ok(())
    }
}

// Three addresses of this machine, so that the output can tell them apart.
const REFUSING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SILENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ANSWERING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// An address without a listener: its listener has just been dropped.
fn refusing() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((REFUSING, 0))?.local_addr()
}

/// An address that neither accepts nor refuses. It listens, but its queue of one is full, so the
/// kernel drops further packets, as a firewall would.
struct BlackHole {
    address: SocketAddr,
    _listener: std::net::TcpListener,
    _queued: std::net::TcpStream,
}

impl BlackHole {
    fn open() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((SILENT, 0))?;
        // Listening again changes the length of the queue.
        rustix::net::listen(&listener, 0)?;
        let address = listener.local_addr()?;
        Ok(BlackHole {
            address,
            _queued: std::net::TcpStream::connect(address)?,
            _listener: listener,
        })
    }
}
