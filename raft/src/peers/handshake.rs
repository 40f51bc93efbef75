//! How a connection comes about: TCP, TLS, greeting, each with a deadline.

use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::frame::{self, invalid};
use super::greeting::{Hello, Lane, Welcome};
use super::{PEER_NAME, PeerTls};
use crate::doors::{BoxStream, Net};
use crate::ids::NodeId;

/// For all of it. A peer on a busy core needs tens of milliseconds for TLS.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);
/// A greeting is short.
const GREETING_MAX: usize = 4096;

/// Dials `address` and introduces itself. Errors: it is not reachable, or refuses (the message says why).
pub(super) async fn dial(net: &dyn Net, tls: Option<&PeerTls>, address: &str, hello: &Hello) -> io::Result<BoxStream> {
    let dialled = async {
        let (host, port) = split(address)?;
        let mut stream = net.connect(host, port).await?;
        if let Some(tls) = tls {
            let name = ServerName::try_from(PEER_NAME).expect("it is a DNS name");
            let connector = tokio_rustls::TlsConnector::from(tls.client.clone());
            stream = Box::new(connector.connect(name, stream).await?);
        }
        stream.write_all(&hello.to_bytes()).await?;
        stream.flush().await?;
        let answer = frame::read(&mut stream, GREETING_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match Welcome::from_bytes(&answer).map_err(invalid)? {
            Welcome::Accepted => Ok(stream),
            Welcome::Refused(reason) => Err(io::Error::new(io::ErrorKind::PermissionDenied, reason)),
        }
    };
    timeout(DEADLINE, dialled).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Answers a connection that came in: who it is from and what it is for. Errors: it was refused or is no peer.
pub(super) async fn answer(
    mut stream: BoxStream,
    tls: Option<&PeerTls>,
    cluster: &str,
    node: NodeId,
) -> io::Result<(BoxStream, NodeId, Lane)> {
    let answered = async {
        if let Some(tls) = tls {
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.server.clone());
            stream = Box::new(acceptor.accept(stream).await?);
        }
        let hello = frame::read(&mut stream, GREETING_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let hello = Hello::from_bytes(&hello).map_err(invalid)?;
        let welcome = hello.answer(cluster, node.0);
        stream.write_all(&welcome.to_bytes()).await?;
        stream.flush().await?;
        match welcome {
            Welcome::Accepted => Ok((stream, NodeId(hello.from), hello.lane)),
            Welcome::Refused(reason) => {
                stream.shutdown().await?;
                Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("refused node {}: {reason}", hello.from)))
            }
        }
    };
    timeout(DEADLINE, answered).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// `host:port`, with an IPv6 host in brackets.
fn split(address: &str) -> io::Result<(&str, u16)> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("peer address `{address}` is not host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host, port.parse().map_err(|_| wrong())?))
}
