//! The services of the server, found by their names.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;
use tonic_reflection::pb::{v1, v1alpha};

use crate::adapter::upload::Upload;
use crate::generated::offload_server::{Offload, OffloadServer};
use crate::reflection::Reflection;

/// Passes a call on to its service. tonic's router would bring a web framework.
pub struct Routes<S> {
    pub offload: OffloadServer<S>,
    pub health: HealthServer<HealthService>,
    pub reflection: v1::server_reflection_server::ServerReflectionServer<Reflection>,
    pub reflection_alpha: v1alpha::server_reflection_server::ServerReflectionServer<Reflection>,
}

impl<S> Clone for Routes<S> {
    fn clone(&self) -> Self {
        Self {
            offload: self.offload.clone(),
            health: self.health.clone(),
            reflection: self.reflection.clone(),
            reflection_alpha: self.reflection_alpha.clone(),
        }
    }
}

impl<S: Offload> tower_service::Service<Request<Upload>> for Routes<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The generated services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Upload>) -> Self::Future {
        let service = request.uri().path().split('/').nth(1);
        match service.unwrap_or_default() {
            name if name == name_of(&self.offload) => self.offload.call(request),
            name if name == name_of(&self.health) => self.health.call(request),
            name if name == name_of(&self.reflection) => self.reflection.call(request),
            name if name == name_of(&self.reflection_alpha) => self.reflection_alpha.call(request),
            name => {
                let status = Status::unimplemented(format!("there is no service {name:?} here"));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}
