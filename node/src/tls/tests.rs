use std::path::PathBuf;
use std::sync::Arc;

use raft::Timestamp;
use raft::peers::PEER_NAME;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Authority, client, peers, server};
use crate::config::Files;

/// 2026-11-22.
const NOW: Timestamp = Timestamp(1_795_305_600_000);

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("tollgate-tls-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a byte gets from one side to the other and back.
async fn talk(server: Arc<rustls::ServerConfig>, client: Arc<rustls::ClientConfig>, name: &str) -> Result<(), String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accepting = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await
    });
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let talking = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let outcome = talking.await.map(|_| ()).map_err(|error| error.to_string());
    outcome.and(accepting.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn whoever_trusts_the_authority_reaches_a_port_by_its_names_only() {
    let directory = Directory::new("port");
    let authority = Authority::open(&directory.0, NOW).unwrap();
    let files = authority.issue("server", &["localhost", "127.0.0.1"], NOW).unwrap();
    let (port, trusting) = (server(&files).unwrap(), client(authority.certificate()).unwrap());
    talk(port.clone(), trusting.clone(), "localhost").await.unwrap();
    talk(port.clone(), trusting.clone(), "127.0.0.1").await.unwrap();
    talk(port, trusting, "elsewhere.example").await.unwrap_err();
}

#[tokio::test]
async fn a_certificate_issued_anew_is_trusted_by_who_trusted_the_one_before() {
    let directory = Directory::new("anew");
    let trusting = client(Authority::open(&directory.0, NOW).unwrap().certificate()).unwrap();
    let later = Authority::open(&directory.0, Timestamp(NOW.0 + 86_400_000)).unwrap();
    let files = later.issue("server", &["localhost"], Timestamp(NOW.0 + 86_400_000)).unwrap();
    talk(server(&files).unwrap(), trusting, "localhost").await.unwrap();
}

#[tokio::test]
async fn peers_show_each_other_certificates_of_the_same_authority() {
    let (directory, foreign) = (Directory::new("peers"), Directory::new("foreign"));
    let authority = Authority::open(&directory.0, NOW).unwrap();
    let ours = peers(authority.certificate(), &authority.issue("peer", &[PEER_NAME], NOW).unwrap()).unwrap();
    talk(ours.server.clone(), ours.client.clone(), PEER_NAME).await.unwrap();

    // Without a certificate, or with one of somebody else, there is no conversation.
    let nobody = client(authority.certificate()).unwrap();
    talk(ours.server.clone(), nobody, PEER_NAME).await.unwrap_err();
    let stranger = Authority::open(&foreign.0, NOW).unwrap();
    let theirs = peers(authority.certificate(), &stranger.issue("peer", &[PEER_NAME], NOW).unwrap()).unwrap();
    talk(ours.server, theirs.client, PEER_NAME).await.unwrap_err();
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_reason() {
    let directory = Directory::new("wrong");
    let authority = Authority::open(&directory.0, NOW).unwrap();
    let one = authority.issue("one", &["localhost"], NOW).unwrap();
    let two = authority.issue("two", &["localhost"], NOW).unwrap();
    let empty = directory.0.join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let missing = directory.0.join("missing.pem");
    let said = |certificate: &PathBuf, key: &PathBuf| {
        let files = Files { certificate: certificate.clone(), key: key.clone() };
        server(&files).unwrap_err().to_string().replace(&directory.0.display().to_string(), "")
    };
    assert_eq!(
        said(&one.certificate, &two.key),
        "/one.crt: does not belong to the private key /two.key: name two files that were issued together"
    );
    assert_eq!(said(&empty, &one.key), format!("/empty.pem: {}", super::NO_CERTIFICATE));
    assert!(said(&missing, &one.key).starts_with("/missing.pem: cannot be read: "));
    assert_eq!(said(&one.certificate, &empty), format!("/empty.pem: {}", super::NO_KEY));
}
