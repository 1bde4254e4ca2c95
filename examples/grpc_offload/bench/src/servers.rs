//! The contenders, each in a process of its own.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use grpc_offload::adapter::serve::serve_grpc;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use seedbed::service::{Shutdown, serve};
use smol::{Async, Executor};
use smol_hyper::rt::{FuturesIo, SmolExecutor};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tower_service::Service as _;

use crate::echo;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The implementations of the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contender {
    /// The example's adapter, under `seedbed::run`.
    Adapter,
    /// hyper on smol's executor, in one thread. hyper polls the handlers: there are no nurseries,
    /// scopes, deadlines or clean-up. This is the limit for the adapter.
    Hyper,
    /// tonic's own server, on tokio's runtime with one thread.
    Tonic,
}

impl Contender {
    pub const ALL: [Self; 3] = [Self::Adapter, Self::Hyper, Self::Tonic];

    /// The first word of the name.
    pub fn word(self) -> &'static str {
        self.name().split(' ').next().unwrap_or_default()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Hyper => "hyper on smol",
            Self::Tonic => "tonic on tokio",
        }
    }

    /// Serves until the process that reads the other end of the standard streams has ended.
    pub fn serve(self) -> Outcome {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        println!("{}", listener.local_addr()?);
        io::stdout().flush()?;
        thread::spawn(|| {
            // The end of the input, or an error, means that the parent process has ended.
            _ = io::stdin().read(&mut [0]);
            std::process::exit(0);
        });
        match self {
            Self::Adapter => adapter(listener),
            Self::Hyper => hyper_on_smol(listener),
            Self::Tonic => tonic_on_tokio(listener),
        }
    }
}

fn adapter(listener: TcpListener) -> Outcome {
    seedbed::run(async {
        let listener = Async::new(listener)?;
        let service = async |shutdown: Shutdown| {
            serve_grpc(listener, echo::service(), Duration::ZERO, &shutdown).await;
        };
        serve(service).await?;
        Ok(())
    })
}

fn hyper_on_smol(listener: TcpListener) -> Outcome {
    let executor = Arc::new(Executor::new());
    let service = echo::service();
    let connections = async {
        let listener = Async::new(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.get_ref().set_nodelay(true)?;
            let service = service.clone();
            let service = service_fn(move |request| service.clone().call(request));
            let connection = http2::Builder::new(SmolExecutor::new(executor.clone()))
                .serve_connection(FuturesIo::new(stream), service);
            executor.spawn(connection).detach();
        }
    };
    smol::block_on(executor.run(connections))
}

fn tonic_on_tokio(listener: TcpListener) -> Outcome {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        // tonic sets this on sockets that it accepts itself.
        let streams = TcpListenerStream::new(listener);
        let streams = tokio_stream::StreamExt::map(streams, |stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            io::Result::Ok(stream)
        });
        let server = Server::builder().add_service(echo::service());
        Ok(server.serve_with_incoming(streams).await?)
    })
}

/// A contender's process. Dropping the value kills it.
pub struct Running {
    process: Child,
    pub address: SocketAddr,
}

impl Running {
    /// Starts this program again, as a server.
    pub fn start(contender: Contender) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--serve", contender.word()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        let output = process.stdout.take().expect("the output is a pipe");
        BufReader::new(output).read_line(&mut address)?;
        let address = address.trim().parse()?;
        Ok(Self { process, address })
    }

    /// Returns the CPU time that the threads of the server have used, in nanoseconds.
    pub fn cpu_time(&self) -> io::Result<f64> {
        let mut sum = 0.0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let statistics = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let nanoseconds = statistics.split(' ').next().map(str::parse::<f64>);
            sum += nanoseconds
                .and_then(Result::ok)
                .ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(sum)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that the server has ended by itself.
        _ = self.process.kill();
        _ = self.process.wait(); // Nothing is left to do about an error.
    }
}
