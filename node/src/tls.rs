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
use rustls_pki_types::pem::{self, PemObject};
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
        .map_err(|error| unusable(files, &error))?;
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
        .map_err(|error| unusable(files, &error))?;
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::new(&files.certificate, error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.certificate)?, key(&files.key)?)
        .map_err(|error| unusable(files, &error))?;
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
    let wrong = |error: pem::Error| TlsError::new(path, pem_reason(&error, NO_CERTIFICATE));
    let found: Vec<_> = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if found.is_empty() {
        return Err(TlsError::new(path, NO_CERTIFICATE));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::new(path, pem_reason(&error, NO_KEY)))
}

const NO_CERTIFICATE: &str = "has no certificate: it must have a block that begins with -----BEGIN CERTIFICATE-----";
const NO_KEY: &str =
    "has no private key: it must have a block that begins with -----BEGIN PRIVATE KEY-----, which is not encrypted";

/// What is wrong with a PEM file; `missing` if nothing but that the wanted block is not there. The reader's own words are
/// not used: they repeat lines of the file, and a key whose line breaks were lost is one line.
fn pem_reason(error: &pem::Error, missing: &str) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        pem::Error::NoItemsFound => missing.to_owned(),
        pem::Error::MissingSectionEnd { .. } => "is not PEM: a block has no end; were line breaks lost?".to_owned(),
        pem::Error::IllegalSectionStart { .. } => {
            "is not PEM: a line that begins a block has more in it; were line breaks lost?".to_owned()
        }
        pem::Error::Base64Decode(_) => "is not PEM: a block is not base64".to_owned(),
        _ => "is not PEM".to_owned(),
    }
}

/// What `rustls` says of a certificate and its key, in words.
fn unusable(files: &Files, error: &rustls::Error) -> TlsError {
    let reason = match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "does not belong to the private key {}: name two files that were issued together",
            files.key.display()
        ),
        other => other.to_string(),
    };
    TlsError::new(&files.certificate, reason)
}

#[cfg(test)]
mod tests;
