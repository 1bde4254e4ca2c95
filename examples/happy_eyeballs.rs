//! How do I start several attempts one after the other, and take the first that succeeds?
//!
//! A host with many addresses is dialled as in RFC 8305 ("Happy Eyeballs"): in order, but without a
//! long wait for an address that does not answer. The next attempt begins when the previous one has
//! failed, or has taken too long. The first connection ends all other attempts.
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

/// The time before the next attempt begins. RFC 8305 recommends a quarter of a second.
const STAGGER: Duration = Duration::from_millis(50);

/// Connects to the first address that answers, with a preference for those that come early.
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
            // The next attempt begins when this one has failed, or has taken too long.
            move_on_after(stagger, failed.wait()).await;
        }
        for attempt in attempts {
            attempt.await;
        }
        // All attempts have ended, and none has terminated the block.
        Err(AllFailed(std::mem::take(&mut failures.lock().unwrap())))
    })
    .await
}

/// Makes one attempt and prints its outcome.
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

/// The errors of all addresses.
#[derive(Debug)]
struct AllFailed(Vec<(SocketAddr, io::Error)>);

impl fmt::Display for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none of {} addresses can be reached", self.0.len())
    }
}

impl std::error::Error for AllFailed {}

#[seedbed::main]
async fn main() -> io::Result<()> {
    let refusing = refusing()?;
    let black_hole = BlackHole::open()?;
    let listener = TcpListener::bind((ANSWERING, 0)).await?;
    let answering = listener.local_addr()?;

    // The first address refuses, so the second is dialled at once. It does not answer, so after
    // a while the third is dialled as well, and answers. The fourth is never dialled.
    let start = current_time();
    let addresses = [refusing, black_hole.address, answering, refusing];
    let stream = connect(&addresses, STAGGER)
        .await
        .expect("one of them answers");
    assert_eq!(stream.peer_addr()?, answering);
    assert!(current_time() - start >= STAGGER);
    println!(
        "Connected to {}, and nothing else is under way.",
        answering.ip()
    );

    // If no address answers, the caller gets the error of each.
    let error = connect(&[refusing, refusing], STAGGER).await.unwrap_err();
    assert!(
        error
            .0
            .iter()
            .all(|(_, why)| why.kind() == io::ErrorKind::ConnectionRefused)
    );
    println!("This time, {error}.");
    Ok(())
}

// Three addresses of this machine, which differ in the output.
const REFUSING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SILENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ANSWERING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Returns an address without a listener: its listener was just closed.
fn refusing() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((REFUSING, 0))?.local_addr()
}

/// Returns an address that neither accepts nor refuses. It has a listener whose queue of one is
/// full, so the kernel drops new connections, as a firewall would.
struct BlackHole {
    address: SocketAddr,
    _listener: std::net::TcpListener,
    _queued: std::net::TcpStream,
}

impl BlackHole {
    fn open() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((SILENT, 0))?;
        // Calling `listen` again changes the length of the queue.
        rustix::net::listen(&listener, 0)?;
        let address = listener.local_addr()?;
        Ok(BlackHole {
            address,
            _queued: std::net::TcpStream::connect(address)?,
            _listener: listener,
        })
    }
}
