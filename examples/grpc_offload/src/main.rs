//! Runs the service until SIGTERM or Ctrl-C: `grpc_offload [ADDRESS [DISPATCHERS [GRACE]]]`, with the
//! grace period in seconds.

use std::error::Error;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grpc_offload::service::{Statistics, serve_offload};
use seedbed::run::CtrlC;
use seedbed::service::serve;
use smol::Async;

/// How long answers may take to be written when all calls have been cancelled.
const FAREWELL: Duration = Duration::from_secs(5);

// `serve` handles Ctrl-C, so the run must not.
#[seedbed::main(ctrl_c = CtrlC::Leave)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:50051".to_owned());
    let dispatchers = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let grace = arguments.next().map_or(Ok(20.0), |text| text.parse())?;
    let grace = Duration::try_from_secs_f64(grace)?;

    let address = address.to_socket_addrs()?.next();
    let address = address.ok_or("the address stands for none")?;
    let listener = TcpListener::bind(address)?;
    println!("listening at {}", listener.local_addr()?);
    let listener = Async::new(listener)?;

    let statistics = Statistics::default();
    let service = async |shutdown: seedbed::service::Shutdown| {
        serve_offload(listener, dispatchers, grace, &statistics, &shutdown).await;
    };
    let ended = serve(service).drain_for(grace + FAREWELL).await?;
    println!(
        "ended{}: {} items accepted, {} processed",
        if ended.is_none() { " too late" } else { "" },
        statistics.accepted.load(Relaxed),
        statistics.processed.load(Relaxed)
    );
    Ok(())
}
