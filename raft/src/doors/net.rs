//! The network: listen and connect, as byte streams. Framing, TLS, HTTP and deadlines are on our side
//! of the door, so they run in a simulation too.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A future as the doors return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connected byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A connected byte stream of some network.
pub type BoxStream = Box<dyn Stream>;

/// A connection that was accepted, and where it comes from.
pub type Accepted = (BoxStream, SocketAddr);

/// Where connections come in and go out.
pub trait Net: Send + Sync + 'static {
    /// Listens on `address` (`host:port`; port 0 picks a free one). Errors: the address is taken or not ours.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// Connects to `host:port`, resolving a name anew each time, at the first of its addresses that `check` accepts and that answers.
    /// It has no deadline of its own: callers bound it. Errors: the name has no address; none is accepted
    /// (`PermissionDenied`, with the reason of `check`); none answers.
    fn connect_checked<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        check: &'a DestinationCheck<'a>,
    ) -> BoxFuture<'a, io::Result<BoxStream>>;

    /// The same, wherever the name leads.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        self.connect_checked(host, port, &|_| Ok(()))
    }
}

/// One resolved address, before it is connected to.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// The address and port. An IPv4 address that was written as an IPv6 one is an IPv4 address here.
    pub address: SocketAddr,
    /// The address is one of this machine's own, loopback included.
    pub is_this_machine: bool,
}

/// Whether a connection may be made. Errors: why not.
pub type DestinationCheck<'a> = dyn Fn(Destination) -> Result<(), String> + Send + Sync + 'a;

impl Destination {
    /// `PermissionDenied` unless `check` accepts it.
    pub fn pass(self, check: &DestinationCheck<'_>) -> io::Result<()> {
        check(self).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))
    }
}

/// A socket that accepts connections.
pub trait Listener: Send + 'static {
    /// The next connection. An error concerns that connection only; the listener goes on.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>>;

    /// The address it listens on, with the real port.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// TCP through tokio, with Nagle's delay off (token streams are many small writes).
#[derive(Debug, Clone, Copy)]
pub struct TokioNet;

impl Net for TokioNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            #[expect(clippy::disallowed_methods, reason = "the door for the network")]
            let listener = tokio::net::TcpListener::bind(address).await?;
            Ok(Box::new(TokioListener(listener)) as Box<dyn Listener>)
        })
    }

    fn connect_checked<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        check: &'a DestinationCheck<'a>,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
            for address in tokio::net::lookup_host((host, port)).await? {
                match connect(address, check).await {
                    Ok(stream) => return Ok(Box::new(stream) as BoxStream),
                    Err(error) => failed = error,
                }
            }
            Err(failed)
        })
    }
}

async fn connect(address: SocketAddr, check: &DestinationCheck<'_>) -> io::Result<tokio::net::TcpStream> {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    Destination { address, is_this_machine: is_this_machine(address.ip()) }.pass(check)?;
    #[expect(clippy::disallowed_methods, reason = "the door for the network")]
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Only a machine's own addresses can be bound.
fn is_this_machine(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

struct TokioListener(tokio::net::TcpListener);

impl Listener for TokioListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxStream, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
