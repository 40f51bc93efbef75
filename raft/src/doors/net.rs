//! The network: listen and connect, as byte streams. Framing, TLS, HTTP and deadlines are on our side
//! of the door, so they run in a simulation too.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
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

    /// Connects to `host:port`, resolving a name anew each time. It has no deadline of its own: callers bound it.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>>;
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

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            #[expect(clippy::disallowed_methods, reason = "the door for the network")]
            let stream = tokio::net::TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }
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
