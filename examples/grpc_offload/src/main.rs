//! Runs the service until SIGTERM or Ctrl-C: `grpc_offload [ADDRESS [DISPATCHERS [GRACE
//! [JOB_LIMIT]]]]`, with the grace period and the longest time of a job in seconds. A second signal
//! ends it at once, with what is in the queue.

use std::error::Error;
use std::net::{TcpListener, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grpc_offload::service::{Settings, Statistics, serve_offload};
use seedbed::run::CtrlC;
use seedbed::service::serve;
use smol::Async;

// `serve` handles Ctrl-C, so the run must not.
#[seedbed::main(ctrl_c = CtrlC::Leave)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:50051".to_owned());
    let dispatchers = arguments.next().unwrap_or("2".to_owned());
    let grace = arguments.next().unwrap_or("20".to_owned());
    let job_limit = arguments.next().unwrap_or("2".to_owned());
    let settings = Settings {
        dispatchers: number_of_dispatchers(&dispatchers)?,
        grace: seconds("the grace period", &grace)?,
        job_limit: seconds("the longest time of a job", &job_limit)?,
    };
    if let Some(more) = arguments.next() {
        return Err(format!("there are at most four arguments, and {more:?} is the fifth").into());
    }

    let address = address.to_socket_addrs()?.next();
    let address = address.ok_or("the address stands for none")?;
    let listener = TcpListener::bind(address)?;
    println!("listening at {}", listener.local_addr()?);
    let listener = Async::new(listener)?;

    let statistics = Statistics::default();
    let service = async |shutdown: seedbed::service::Shutdown| {
        serve_offload(listener, settings, &statistics, &shutdown).await;
    };
    let ended = serve(service).drain_for(settings.drain_limit()).await?;
    println!(
        "ended{}: {} items accepted, {} processed",
        if ended.is_none() { " too late" } else { "" },
        statistics.accepted.load(Relaxed),
        statistics.processed.load(Relaxed)
    );
    Ok(())
}

fn number_of_dispatchers(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| format!("the number of dispatchers is to be 1 or more, not {text:?}"))
}

fn seconds(what: &str, text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration
        .ok_or_else(|| format!("{what} is to be a number of seconds, such as 0.5, not {text:?}"))
}
