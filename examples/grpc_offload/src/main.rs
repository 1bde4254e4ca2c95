//! Runs the service until SIGTERM or Ctrl-C. A second signal ends it at once, with what is in the
//! queue. [`USAGE`] lists the arguments.

use std::error::Error;
use std::net::{TcpListener, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grpc_offload::adapter::serve::Listener;
use grpc_offload::adapter::tls::tls_acceptor;
use grpc_offload::service::{Settings, Statistics, serve_offload};
use seedbed::run::CtrlC;
use seedbed::service::{Shutdown, serve};
use smol::Async;

const USAGE: &str = "usage: grpc_offload [--dispatchers N] [--grace SECONDS] \
    [--job-limit SECONDS] [--certificate FILE --key FILE] [ADDRESS]";

struct Arguments {
    address: String,
    settings: Settings,
    /// The files of the certificate and of its key.
    tls: Option<(PathBuf, PathBuf)>,
}

impl Arguments {
    fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut address = None;
        let mut settings = Settings {
            dispatchers: NonZeroUsize::new(2).expect("two is not zero"),
            grace: Duration::from_secs(20),
            job_limit: Duration::from_secs(2),
        };
        let (mut certificate, mut key) = (None, None);
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("dispatchers") => {
                    settings.dispatchers = parser.value()?.parse_with(dispatchers)?;
                }
                Long("grace") => settings.grace = parser.value()?.parse_with(seconds)?,
                Long("job-limit") => settings.job_limit = parser.value()?.parse_with(seconds)?,
                Long("certificate") => certificate = Some(parser.value()?.into()),
                Long("key") => key = Some(parser.value()?.into()),
                Value(value) if address.is_none() => address = Some(value.string()?),
                _ => return Err(argument.unexpected()),
            }
        }
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("a certificate needs a key, and a key a certificate".into()),
        };
        Ok(Self {
            address: address.unwrap_or("127.0.0.1:50051".to_owned()),
            settings,
            tls,
        })
    }
}

fn dispatchers(text: &str) -> Result<NonZeroUsize, &'static str> {
    text.parse()
        .map_err(|_| "the number of dispatchers is to be 1 or more")
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or("it is to be a number of seconds, such as 0.5")
}

// `serve` handles Ctrl-C, so the run must not.
#[seedbed::main(ctrl_c = CtrlC::Leave)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse().map_err(|error| format!("{error}\n{USAGE}"))?;
    let settings = arguments.settings;
    let tls = match arguments.tls {
        Some((certificate, key)) => Some(tls_acceptor(&certificate, &key)?),
        None => None,
    };
    let address = arguments.address.to_socket_addrs()?.next();
    let address = address.ok_or("the address stands for none")?;
    let port = TcpListener::bind(address)?;
    println!("listening at {}", port.local_addr()?);
    let port = Async::new(port)?;

    let statistics = Statistics::default();
    let service = async |shutdown: Shutdown| {
        serve_offload(Listener { port, tls }, settings, &statistics, &shutdown).await;
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
