//! The client, which is the same for all contenders.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use grpc_offload::generated::offload_client::OffloadClient;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::echo;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The connections of one client, and the calls that it has in flight.
#[derive(Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub connections: usize,
    pub in_flight: usize,
    /// The calls of one sample.
    pub calls: usize,
}

/// The connections to one server.
pub struct Clients {
    shape: Shape,
    clients: Vec<OffloadClient<Channel>>,
}

impl Clients {
    pub async fn connect(address: SocketAddr, shape: Shape) -> Fallible<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let mut clients = Vec::new();
        for _ in 0..shape.connections {
            clients.push(OffloadClient::new(endpoint.connect().await?));
        }
        Ok(Self { shape, clients })
    }

    /// Makes the calls of a sample, at most `in_flight` at a time on each connection. Returns the
    /// time that each took.
    pub async fn call(&self) -> Fallible<Vec<Duration>> {
        let Shape {
            connections,
            in_flight,
            calls,
            ..
        } = self.shape;
        let each = calls / (connections * in_flight);
        let mut callers = JoinSet::new();
        for client in &self.clients {
            for _ in 0..in_flight {
                callers.spawn(call_in_a_row(client.clone(), each));
            }
        }
        let mut latencies = Vec::with_capacity(calls);
        while let Some(of_one) = callers.join_next().await {
            latencies.extend(of_one??);
        }
        Ok(latencies)
    }
}

async fn call_in_a_row(
    mut client: OffloadClient<Channel>,
    calls: usize,
) -> Fallible<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(calls);
    for _ in 0..calls {
        let began = Instant::now();
        client.compute(echo::request()).await?;
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}
