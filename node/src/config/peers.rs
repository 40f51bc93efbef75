//! `[peers]`: how nodes reach and know each other.

use std::path::PathBuf;

use super::section::{Reader, Section, is_loopback};

/// Where this node listens for the others, and its certificate.
#[derive(Clone, Debug)]
pub struct Peers {
    /// `listen`; default `127.0.0.1:7443`. Another address than loopback needs certificates.
    pub listen: String,
    /// `ca`, `certificate`, `key`: mutual TLS. Only a node that is alone may leave them out.
    pub files: Option<(PathBuf, Files)>,
}

/// A certificate chain and its private key, both PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Peers {
    pub(super) fn read(reader: &Reader<'_>) -> Peers {
        let section = reader.section("peers");
        let listen = section.address("listen", "127.0.0.1:7443");
        let (ca, files) = (section.path("ca"), Files::read(section));
        if ca.is_none() && files.is_some() {
            section.mistake("ca", "is missing: it says whose certificates other nodes must show");
        }
        if ca.is_some() && files.is_none() && !section.has("certificate") && !section.has("key") {
            section.mistake("certificate", "is missing: nodes show each other certificates of peers.ca");
        }
        if ca.is_none() && files.is_none() && !section.has("certificate") && !is_loopback(&listen) {
            section.mistake(
                "certificate",
                format!("is missing: without one anybody could speak as a node, and peers.listen is {listen}"),
            );
        }
        Peers { listen, files: ca.zip(files) }
    }
}

impl Files {
    /// Reads `certificate` and `key`: both or neither.
    pub(super) fn read(section: Section<'_>) -> Option<Files> {
        let (certificate, key) = (section.path("certificate"), section.path("key"));
        match (&certificate, &key) {
            (Some(_), None) => section.mistake("key", "is missing: a certificate needs its private key"),
            (None, Some(_)) => section.mistake("certificate", "is missing: a private key needs its certificate"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        Some(Files { certificate: certificate?, key: key? })
    }
}
