//! TLS, with a certificate and a key in files.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::ring::default_provider;
use futures_rustls::rustls::pki_types::pem::{self, PemObject};
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The protocol that clients are told to speak. Clients of gRPC refuse a server that names none.
const HTTP2: &[u8] = b"h2";

/// Reads the certificate of a server, with those that signed it, and its private key. Both files
/// have the format PEM.
///
/// # Errors
///
/// If a file cannot be read or has no such content, or if the key is not that of the certificate.
pub fn tls_acceptor(
    certificates: &Path,
    key: &Path,
) -> Result<TlsAcceptor, Box<dyn Error + Send + Sync>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect)
        .map_err(|error| cannot_read(certificates, error))?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| cannot_read(key, error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private_key)
        .map_err(|error| {
            let (certificates, key) = (certificates.display(), key.display());
            format!("{certificates} and {key} cannot be used: {error}")
        })?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(config).into())
}

fn cannot_read(file: &Path, error: pem::Error) -> String {
    format!("cannot read {}: {error}", file.display())
}
