//! Connections with TLS, and clients that do not do their part of it.

use std::fs;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::crypto::ring::default_provider;
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::{ClientConfig, RootCertStore};
use grpc_offload::adapter::serve::{Listener, serve_grpc};
use grpc_offload::adapter::tls::tls_acceptor;
use grpc_offload::generated::{Item, Subscription};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use seedbed::RunBuilder;
use seedbed::nursery::task_tree;
use seedbed::testing::MockClock;
use smol::Async;
use smol::future::{or, yield_now};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::stream;
use tonic::Code;

use crate::client::{Client, origin, with_channel_over};
use crate::harness::{SEEDS, Server, shuffled, with_server};
use crate::probe::{HANG, Kind, Log, Probe};

/// Longer than any test takes, unless something hangs.
const GRACE: Duration = Duration::from_secs(30);

/// A server with TLS, and the certificate that its clients must trust.
struct TlsServer<'test> {
    server: &'test Server,
    certificate: CertificateDer<'static>,
}

fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// Runs a test with a server of probes that reads its certificate from files.
fn with_tls(builder: RunBuilder, kind: Kind, test: impl AsyncFnOnce(&TlsServer<'_>, &Log)) {
    let certified = certificate();
    let folder = tempfile::tempdir().unwrap();
    let (certificates, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    fs::write(&certificates, certified.cert.pem()).unwrap();
    fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let tls = Some(tls_acceptor(&certificates, &key).unwrap());
    let (service, log) = Probe::new(kind);
    with_server(
        builder,
        async |port, shutdown| {
            let listener = Listener { port, tls };
            serve_grpc(listener, service, GRACE, shutdown).await;
        },
        async |server| {
            let certificate = certified.cert.der().clone();
            let server = TlsServer {
                server,
                certificate,
            };
            test(&server, &log).await;
        },
    );
}

impl TlsServer<'_> {
    async fn connect_tcp(&self) -> Async<TcpStream> {
        Async::<TcpStream>::connect(self.server.address)
            .await
            .unwrap()
    }

    /// Connects a client that trusts a certificate, and speaks one of these protocols.
    async fn connect(
        &self,
        trusted: CertificateDer<'static>,
        protocols: &[&[u8]],
    ) -> std::io::Result<TlsStream<Async<TcpStream>>> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.connect_tcp().await;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    async fn connect_h2(&self) -> TlsStream<Async<TcpStream>> {
        let stream = self.connect(self.certificate.clone(), &[b"h2"]).await;
        stream.unwrap()
    }

    async fn with_client(&self, test: impl AsyncFnOnce(Client)) {
        let test = async |channel| test(Client::with_origin(channel, origin())).await;
        with_channel_over(self.connect_h2().await, test).await;
    }
}

fn item(id: u64) -> Item {
    Item {
        id,
        ..Item::default()
    }
}

async fn echo(client: &mut Client) {
    let answer = client.compute(item(7)).await.unwrap();
    assert_eq!(answer.into_inner().id, 7);
}

#[test]
fn calls_and_streams_pass_through_tls() {
    for seed in SEEDS {
        with_tls(shuffled(seed), Kind::Produced, async |server, log| {
            server
                .with_client(async |mut client| {
                    echo(&mut client).await;
                    let large = Item {
                        padding: vec![7; 500_000],
                        ..item(5)
                    };
                    let receipt = client.do_something(stream::iter([large, item(6)])).await;
                    assert_eq!(receipt.unwrap().into_inner().accepted, 2);
                    for entry in ["item", "item", "saw the end"] {
                        log.expect(entry).await;
                    }
                    let updates = client.get_updates(Subscription {}).await;
                    let mut updates = updates.unwrap().into_inner();
                    for id in 1..=2 {
                        let update = updates.message().await.unwrap();
                        assert_eq!(update.map(|update| update.id), Some(id));
                    }
                    log.expect("hangs").await;
                    drop(updates);
                    log.expect("cleaned up").await;
                })
                .await;
        });
    }
}

#[test]
fn a_lost_connection_cancels_its_calls_which_clean_up() {
    for seed in SEEDS {
        with_tls(shuffled(seed), Kind::Produced, async |server, log| {
            server
                .with_client(async |mut client| {
                    let call = async {
                        let answer = client.compute(item(HANG)).await;
                        panic!("{answer:?} instead of hanging");
                    };
                    or(call, log.expect("hangs")).await;
                })
                .await;
            log.expect("cleaned up").await;
        });
    }
}

#[test]
fn the_protocol_is_agreed_on_and_a_client_that_speaks_another_gets_an_error() {
    with_tls(shuffled(0), Kind::Produced, async |server, _| {
        let trusted = &server.certificate;
        let stream = server.connect(trusted.clone(), &[b"http/1.1", b"h2"]).await;
        let stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let other = server.connect(trusted.clone(), &[b"http/1.1"]).await;
        let error = other.unwrap_err().to_string();
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    });
}

#[test]
fn a_client_with_another_root_gets_an_error_and_costs_nothing() {
    with_tls(shuffled(0), Kind::Produced, async |server, _| {
        costs_nothing(server, async || {
            let other = certificate().cert.der().clone();
            let error = server.connect(other, &[b"h2"]).await.unwrap_err();
            let error = error.to_string();
            assert!(error.contains("invalid peer certificate"), "{error}");
        })
        .await;
    });
}

/// In virtual time, which stands still: no time limit ends these connections.
#[test]
fn a_client_without_tls_gets_an_error_and_costs_nothing() {
    for seed in SEEDS {
        let builder = shuffled(seed).clock(MockClock::new());
        with_tls(builder, Kind::Produced, async |server, _| {
            costs_nothing(server, async || {
                server
                    .server
                    .with_client(async |mut client| {
                        let status = client.compute(item(7)).await.unwrap_err();
                        assert_eq!(status.code(), Code::Unknown, "{status}");
                    })
                    .await;
            })
            .await;
        });
    }
}

/// Checks that the server has as many tasks as before when these clients have left, and serves
/// others.
async fn costs_nothing(server: &TlsServer<'_>, client: impl AsyncFn()) {
    let tasks = || task_tree().unwrap().tasks().count();
    server
        .with_client(async |mut other| {
            echo(&mut other).await;
            let before = tasks();
            for _ in 0..20 {
                client().await;
            }
            // The call may end a little later than its client notices.
            echo(&mut other).await;
            while tasks() > before {
                yield_now().await;
            }
            echo(&mut other).await;
        })
        .await;
}

/// In virtual time: it passes when all tasks wait.
#[test]
fn a_handshake_that_never_finishes_is_cut() {
    // Nothing, the beginning of a record, and a record that is not complete.
    for sent in [&b""[..], b"\x16\x03", b"\x16\x03\x01\x02\x00\x01"] {
        let builder = RunBuilder::new().clock(MockClock::autojump());
        with_tls(builder, Kind::Produced, async |server, _| {
            let mut client = server.connect_tcp().await;
            client.write_all(sent).await.unwrap();
            let mut answer = Vec::new();
            // Bytes that the server has not read make this a reset, which is an error.
            _ = client.read_to_end(&mut answer).await;
            assert!(answer.is_empty(), "{}", answer.escape_ascii());
        });
    }
}

/// In virtual time, which begins to pass after the handshake.
#[test]
fn a_client_that_says_nothing_after_the_handshake_loses_its_connection() {
    let clock = MockClock::new();
    let builder = RunBuilder::new().clock(clock.clone());
    with_tls(builder, Kind::Produced, async |server, _| {
        let mut silent = server.connect_h2().await;
        clock.set_autojump_threshold(Some(Duration::ZERO));
        let ended = silent.read(&mut [0]).await;
        // The server sends no regular end of TLS.
        assert!(!ended.is_ok_and(|read| read > 0));
    });
}

/// In virtual time, which stands still.
#[test]
fn a_shutdown_ends_handshakes_and_idle_connections() {
    for seed in SEEDS {
        let builder = shuffled(seed).clock(MockClock::new());
        with_tls(builder, Kind::Produced, async |server, _| {
            let mut silent = server.connect_tcp().await;
            server
                .with_client(async |mut client| {
                    // The server accepts in order, so it has accepted the silent one as well.
                    echo(&mut client).await;
                    server.server.shutdown.begin();
                    while client.compute(item(7)).await.is_ok() {}
                })
                .await;
            assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        });
    }
}

#[test]
fn files_that_cannot_be_used_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (one, two) = (certificate(), certificate());
    let good_certificate = write("good-certificate", &one.cert.pem());
    let good_key = write("good-key", &one.signing_key.serialize_pem());
    let other_key = write("other-key", &two.signing_key.serialize_pem());
    let empty = write("empty", "");
    let missing = folder.path().join("missing");
    assert!(tls_acceptor(&good_certificate, &good_key).is_ok());
    for (certificates, key, named) in [
        (&missing, &good_key, "missing"),
        (&good_certificate, &missing, "missing"),
        (&empty, &good_key, "empty"),
        (&good_key, &good_key, "good-key"),
        (&good_certificate, &empty, "empty"),
        (&good_certificate, &good_certificate, "good-certificate"),
        (&good_certificate, &other_key, "other-key"),
    ] {
        let error = tls_acceptor(certificates, key).err().unwrap().to_string();
        assert!(error.contains(named), "{error}");
    }
}
