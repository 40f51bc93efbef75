//! TLS of every edge: reading PEM files, and a local certificate authority for `tollgate dev`.
//!
//! The cryptography is passed along (`ring`), never installed for the whole process. Keys are never logged.

mod authority;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::peers::PeerTls;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use authority::{Authority, Issued};

use crate::config::Files;

/// A file that TLS needs cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsError {
    /// Which file.
    pub path: PathBuf,
    /// Why, in one line; never its contents.
    pub reason: String,
}

impl TlsError {
    fn new(path: &Path, reason: impl ToString) -> TlsError {
        TlsError { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// TLS of a port for clients: HTTP/2 and HTTP/1.1, no client certificates.
pub fn server(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new(&files.certificate, error))?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(certificates(&files.certificate)?, key(&files.key)?)
        .map_err(|error| TlsError::new(&files.certificate, mismatch(&error)))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS between nodes: both sides show a certificate of `ca`.
pub fn peers(ca: &Path, files: &Files) -> Result<PeerTls, TlsError> {
    let roots = Arc::new(roots(ca)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|error| TlsError::new(ca, error))?;
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::new(&files.certificate, error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, key(&files.key)?)
        .map_err(|error| TlsError::new(&files.certificate, mismatch(&error)))?;
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::new(&files.certificate, error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.certificate)?, key(&files.key)?)
        .map_err(|error| TlsError::new(&files.certificate, mismatch(&error)))?;
    Ok(PeerTls { server: Arc::new(server), client: Arc::new(client) })
}

/// TLS of a client that trusts `ca` and nobody else.
pub fn client(ca: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new(ca, error))?
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold a certificate or two that cannot be used.
    match roots.add_parsable_certificates(certificates(path)?) {
        (0, _) => Err(TlsError::new(path, "has no certificate that can be used")),
        _ => Ok(roots),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| TlsError::new(path, format!("cannot be read: {error}")))?
        .collect();
    let found = found.map_err(|error| TlsError::new(path, format!("is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(TlsError::new(path, "has no certificate (a block that begins with -----BEGIN CERTIFICATE-----)"));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| TlsError::new(path, format!("has no private key in PEM: {error}")))
}

/// What `rustls` says when a key is not the certificate's, in words.
fn mismatch(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "the private key does not belong to this certificate".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
