//! How a connection comes about: TCP, TLS, greeting, each with a deadline.

use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::PEER_NAME;
use super::client::Shared;
use super::frame::{self, invalid};
use super::greeting::{Hello, Lane, PROTOCOL, Welcome};
use crate::doors::BoxStream;
use crate::ids::NodeId;

/// For all of it. A peer on a busy core needs tens of milliseconds for TLS.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);
/// A greeting is short.
const GREETING_MAX: usize = 4096;

/// Dials `node` at `address` and introduces this one. Errors: it is not reachable, or one refuses the other (the
/// message says why).
pub(super) async fn dial(shared: &Shared, node: NodeId, address: &str, lane: Lane) -> io::Result<BoxStream> {
    let dialled = async {
        let (host, port) = split(address)?;
        let mut stream = shared.doors.net.connect(host, port).await?;
        if let Some(tls) = &shared.tls {
            let name = ServerName::try_from(PEER_NAME).expect("it is a DNS name");
            let connector = tokio_rustls::TlsConnector::from(tls.client.clone());
            stream = Box::new(connector.connect(name, stream).await?);
        }
        let hello = Hello {
            protocol: PROTOCOL,
            cluster: shared.cluster.clone(),
            from: shared.node.0,
            disk: shared.acquaintances.own(),
            to: node.0,
            lane,
        };
        stream.write_all(&hello.to_bytes()).await?;
        stream.flush().await?;
        let answer = frame::read(&mut stream, GREETING_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match Welcome::from_bytes(&answer).map_err(invalid)? {
            Welcome::Accepted { disk } => shared.acquaintances.meet(node.0, disk).await.map(|()| stream),
            Welcome::Refused(reason) => Err(io::Error::new(io::ErrorKind::PermissionDenied, reason)),
        }
    };
    timeout(DEADLINE, dialled).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Answers a connection that came in: who it is from and what it is for. Errors: it was refused or is no peer.
pub(super) async fn answer(shared: &Shared, mut stream: BoxStream) -> io::Result<(BoxStream, NodeId, Lane)> {
    let answered = async {
        if let Some(tls) = &shared.tls {
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.server.clone());
            stream = Box::new(acceptor.accept(stream).await?);
        }
        let hello = frame::read(&mut stream, GREETING_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let hello = Hello::from_bytes(&hello).map_err(invalid)?;
        let refusal = match hello.refusal(&shared.cluster, shared.node.0) {
            Some(reason) => Some(reason),
            None => shared.acquaintances.meet(hello.from, hello.disk).await.err().map(|error| error.to_string()),
        };
        let Some(reason) = refusal else {
            let welcome = Welcome::Accepted { disk: shared.acquaintances.own() };
            stream.write_all(&welcome.to_bytes()).await?;
            stream.flush().await?;
            return Ok((stream, NodeId(hello.from), hello.lane));
        };
        let refused = format!("refused node {}: {reason}", hello.from);
        stream.write_all(&Welcome::Refused(reason).to_bytes()).await?;
        stream.shutdown().await?;
        Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
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
