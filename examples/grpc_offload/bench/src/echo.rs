//! The service that all contenders serve.

use std::pin::Pin;

use grpc_offload::generated::offload_server::{Offload, OffloadServer};
use grpc_offload::generated::update::Outcome;
use grpc_offload::generated::{Item, Receipt, Subscription, Update};
use smol::stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// The padding with which the encoded request and the encoded response take 100 bytes each.
const PADDING: usize = 96;

/// Returns the request of each call.
pub fn request() -> Item {
    Item {
        id: 1,
        padding: vec![b'x'; PADDING],
        ..Item::default()
    }
}

/// Returns the service. Its `compute` sends the padding back, and starts no job.
pub fn service() -> OffloadServer<Echo> {
    OffloadServer::new(Echo)
}

/// The handlers of the service. `compute` is the only one that is measured.
pub struct Echo;

#[tonic::async_trait]
impl Offload for Echo {
    async fn compute(&self, request: Request<Item>) -> Result<Response<Update>, Status> {
        let item = request.into_inner();
        let text = String::from_utf8(item.padding);
        let text = text.map_err(|_| Status::invalid_argument("the padding is not UTF-8"))?;
        Ok(Response::new(Update {
            id: item.id,
            outcome: Some(Outcome::Error(text)),
            ..Update::default()
        }))
    }

    async fn do_something(
        &self,
        _request: Request<Streaming<Item>>,
    ) -> Result<Response<Receipt>, Status> {
        Err(Status::unimplemented("the benchmark calls `Compute` only"))
    }

    type GetUpdatesStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn get_updates(
        &self,
        _request: Request<Subscription>,
    ) -> Result<Response<Self::GetUpdatesStream>, Status> {
        Err(Status::unimplemented("the benchmark calls `Compute` only"))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn both_messages_take_a_hundred_bytes() {
        let request = request();
        assert_eq!(request.encoded_len(), 100);
        let response = smol::block_on(Echo.compute(Request::new(request))).unwrap();
        assert_eq!(response.get_ref().encoded_len(), 100);
    }
}
