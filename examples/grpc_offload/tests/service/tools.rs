//! The services that tools and load balancers ask.

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::client::origin;
use crate::harness::SEEDS;
use crate::offload::with_offload;

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[test]
fn the_health_of_the_service_is_known() {
    with_offload(0, async |server, _| {
        server
            .with_channel(async |channel| {
                let mut health = HealthClient::with_origin(channel, origin());
                for service in ["", "offload.v1.Offload"] {
                    let answer = health.check(about(service)).await.unwrap();
                    assert_eq!(answer.get_ref().status(), ServingStatus::Serving);
                }
                let status = health.check(about("nothing")).await.unwrap_err();
                assert_eq!(status.code(), Code::NotFound, "{status}");
            })
            .await;
    });
}

#[test]
fn a_client_that_watches_the_health_does_not_delay_the_shutdown() {
    for seed in SEEDS {
        with_offload(seed, async |server, _| {
            server
                .with_channel(async |channel| {
                    let mut health = HealthClient::with_origin(channel, origin());
                    let answers = health.watch(about("offload.v1.Offload")).await;
                    let mut answers = answers.unwrap().into_inner();
                    let first = answers.message().await.unwrap().unwrap();
                    assert_eq!(first.status(), ServingStatus::Serving);
                    server.shutdown.begin();
                    while let Some(answer) = answers.message().await.unwrap() {
                        assert_ne!(answer.status(), ServingStatus::Serving);
                    }
                })
                .await;
        });
    }
}

/// Tests one version of the protocol of reflection.
macro_rules! reflection {
    ($version:ident) => {
        mod $version {
            use smol::stream::{self, StreamExt};
            use tonic::Code;
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            use crate::client::origin;
            use crate::harness::SEEDS;
            use crate::offload::with_offload;

            #[test]
            fn services_and_messages_are_described() {
                let requests = [
                    MessageRequest::ListServices(String::new()),
                    MessageRequest::FileContainingSymbol("offload.v1.Item".to_owned()),
                    MessageRequest::FileByFilename("offload.proto".to_owned()),
                    MessageRequest::FileContainingSymbol("offload.v1.Nothing".to_owned()),
                ];
                with_offload(0, async |server, _| {
                    let requests = requests.map(|message| ServerReflectionRequest {
                        host: String::new(),
                        message_request: Some(message),
                    });
                    server
                        .with_channel(async |channel| {
                            let mut client = ServerReflectionClient::with_origin(channel, origin());
                            let requests = stream::iter(requests);
                            let answers = client.server_reflection_info(requests).await;
                            let mut answers = answers.unwrap().into_inner();
                            let mut next = async || {
                                let answer = answers.message().await.unwrap();
                                answer.and_then(|answer| answer.message_response)
                            };
                            let Some(MessageResponse::ListServicesResponse(list)) = next().await
                            else {
                                panic!("no list of services");
                            };
                            let mut names = list.service.into_iter().map(|service| service.name);
                            assert!(names.any(|name| name == "offload.v1.Offload"));
                            for _ in 0..2 {
                                let answer = next().await;
                                assert!(
                                    matches!(
                                        answer,
                                        Some(MessageResponse::FileDescriptorResponse(_))
                                    ),
                                    "{answer:?}"
                                );
                            }
                            let answer = next().await;
                            assert!(
                                matches!(answer, Some(MessageResponse::ErrorResponse(_))),
                                "{answer:?}"
                            );
                            assert_eq!(next().await, None);
                        })
                        .await;
                });
            }

            /// The grace period is longer than the test may take.
            #[test]
            fn a_client_that_may_ask_more_does_not_delay_the_shutdown() {
                for seed in SEEDS {
                    with_offload(seed, async |server, _| {
                        let request = ServerReflectionRequest {
                            host: String::new(),
                            message_request: Some(MessageRequest::ListServices(String::new())),
                        };
                        server
                            .with_channel(async |channel| {
                                let mut client =
                                    ServerReflectionClient::with_origin(channel, origin());
                                let requests = stream::once(request).chain(stream::pending());
                                let answers = client.server_reflection_info(requests).await;
                                let mut answers = answers.unwrap().into_inner();
                                assert!(answers.message().await.unwrap().is_some());
                                server.shutdown.begin();
                                let status = answers.message().await.unwrap_err();
                                assert_eq!(status.code(), Code::Unavailable, "{status}");
                            })
                            .await;
                    });
                }
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);
