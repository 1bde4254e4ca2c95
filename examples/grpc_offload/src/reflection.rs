//! The reflection service, by which tools such as `grpcurl` learn the methods and messages.
//!
//! The service of `tonic-reflection` calls `tokio::spawn`, so only its messages are used. There are
//! two versions of the protocol, which differ in their package only. Python's client asks for the
//! older one.

use std::collections::HashMap;
use std::sync::Arc;

use prost::{DecodeError, Message};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};
use seedbed::service::Shutdown;

/// The descriptors of a server. Clones are handles on the same ones.
#[derive(Clone)]
pub struct Reflection {
    index: Arc<Index>,
    shutdown: Shutdown,
}

#[derive(Default)]
struct Index {
    services: Vec<String>,
    /// The encoded description of each file.
    files: HashMap<String, Vec<u8>>,
    /// The file of each service, method, message and enumeration.
    symbols: HashMap<String, String>,
}

impl Reflection {
    /// Reads encoded sets of descriptors. The streams of clients end when the shutdown begins: they
    /// have no end of their own, and would delay it.
    ///
    /// # Errors
    ///
    /// If one is not such a set.
    pub fn new(sets: &[&[u8]], shutdown: &Shutdown) -> Result<Self, DecodeError> {
        Ok(Self {
            index: Arc::new(Index::new(sets)?),
            shutdown: shutdown.clone(),
        })
    }
}

impl Index {
    fn new(sets: &[&[u8]]) -> Result<Self, DecodeError> {
        let mut index = Index::default();
        for set in sets {
            for file in FileDescriptorSet::decode(*set)?.file {
                let (name, package) = (file.name(), file.package());
                for service in &file.service {
                    let service_name = format!("{package}.{}", service.name());
                    for method in &service.method {
                        let method = format!("{service_name}.{}", method.name());
                        index.symbols.insert(method, name.to_owned());
                    }
                    index.symbols.insert(service_name.clone(), name.to_owned());
                    index.services.push(service_name);
                }
                index.add_messages(package, name, &file.message_type);
                index.add_enums(package, name, &file.enum_type);
                index.files.insert(name.to_owned(), file.encode_to_vec());
            }
        }
        Ok(index)
    }

    fn add_messages(&mut self, outer: &str, file: &str, messages: &[DescriptorProto]) {
        for message in messages {
            let name = format!("{outer}.{}", message.name());
            self.add_messages(&name, file, &message.nested_type);
            self.add_enums(&name, file, &message.enum_type);
            self.symbols.insert(name, file.to_owned());
        }
    }

    fn add_enums(&mut self, outer: &str, file: &str, enums: &[EnumDescriptorProto]) {
        for enumeration in enums {
            let name = format!("{outer}.{}", enumeration.name());
            self.symbols.insert(name, file.to_owned());
        }
    }

    fn file_of_symbol(&self, symbol: &str) -> Option<&Vec<u8>> {
        self.files.get(self.symbols.get(symbol)?)
    }
}

/// Implements one version of the protocol.
macro_rules! version {
    ($version:ident) => {
        mod $version {
            use std::pin::Pin;

            use smol::stream::{self, Stream, StreamExt};
            use tonic::{Code, Request, Response, Status, Streaming};
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::server_reflection_server::ServerReflection;
            use tonic_reflection::pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse,
                ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
                ServiceResponse,
            };

            use super::{Index, Reflection};
            use crate::adapter::status::server_ends;

            type Responses =
                Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

            #[tonic::async_trait]
            impl ServerReflection for Reflection {
                type ServerReflectionInfoStream = Responses;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Responses>, Status> {
                    let state = (request.into_inner(), self.clone());
                    let responses = stream::try_unfold(state, |(mut requests, reflection)| {
                        async move {
                            let next = reflection.shutdown.until(requests.next()).await;
                            // No good end: the client may have sent a request that was not read.
                            let next = next.ok_or_else(server_ends)?;
                            let answer = next
                                .transpose()?
                                .map(|request| response(&reflection.index, request));
                            Ok(answer.map(|answer| (answer, (requests, reflection))))
                        }
                    });
                    Ok(Response::new(Box::pin(responses)))
                }
            }

            fn response(
                index: &Index,
                request: ServerReflectionRequest,
            ) -> ServerReflectionResponse {
                ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    message_response: Some(message(index, &request.message_request)),
                    original_request: Some(request),
                }
            }

            fn message(index: &Index, request: &Option<MessageRequest>) -> MessageResponse {
                let file = |file: Option<&Vec<u8>>, name: &str| match file {
                    Some(file) => {
                        let file_descriptor_proto = vec![file.clone()];
                        MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                            file_descriptor_proto,
                        })
                    }
                    None => error(Code::NotFound, format!("there is no {name} here")),
                };
                match request {
                    Some(MessageRequest::FileByFilename(name)) => file(index.files.get(name), name),
                    Some(MessageRequest::FileContainingSymbol(name)) => {
                        file(index.file_of_symbol(name), name)
                    }
                    Some(MessageRequest::FileContainingExtension(_)) => {
                        error(Code::NotFound, "there are no extensions".to_owned())
                    }
                    // Some tools ask this of every message, and expect an answer.
                    Some(MessageRequest::AllExtensionNumbersOfType(_)) => {
                        let none = ExtensionNumberResponse::default();
                        MessageResponse::AllExtensionNumbersResponse(none)
                    }
                    Some(MessageRequest::ListServices(_)) => {
                        let services = index.services.iter().cloned();
                        MessageResponse::ListServicesResponse(ListServiceResponse {
                            service: services.map(|name| ServiceResponse { name }).collect(),
                        })
                    }
                    None => error(Code::InvalidArgument, "the request is empty".to_owned()),
                }
            }

            fn error(code: Code, error_message: String) -> MessageResponse {
                MessageResponse::ErrorResponse(ErrorResponse {
                    error_code: code as i32,
                    error_message,
                })
            }
        }
    };
}

version!(v1);
version!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_methods_and_messages_are_found() {
        let index = Index::new(&[crate::DESCRIPTOR]).unwrap();
        assert_eq!(index.services, ["offload.v1.Offload"]);
        for symbol in ["Offload", "Offload.Compute", "Item", "Fault", "Update"] {
            let file = index.file_of_symbol(&format!("offload.v1.{symbol}"));
            assert_eq!(file, index.files.get("offload.proto"), "{symbol}");
            assert!(file.is_some(), "{symbol}");
        }
        assert!(index.file_of_symbol("offload.v1.Nothing").is_none());
    }

    #[test]
    fn bytes_that_are_no_descriptors_are_refused() {
        assert!(Index::new(&[b"no descriptors"]).is_err());
    }
}
