//! The network door on the simulated network. Every byte goes into the trace, and some reads bring less than there is, so that
//! whoever takes a piece for a message is found out.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use raft::doors::{Accepted, BoxFuture, BoxStream, Destination, DestinationCheck, Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::gateway::PEER_PORT;
use crate::chance::Chance;
use crate::trace;

/// So many reads in a hundred are cut, to so many bytes at most.
const CUT_PERCENT: u64 = 10;
const CUT_BYTES: usize = 48;

thread_local! {
    /// Bytes that went into streams between nodes, and that came out.
    static WRITTEN: Cell<u64> = const { Cell::new(0) };
    static READ: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that nodes wrote to each other and that nobody read, of a whole run.
pub(crate) fn bytes_lost() -> u64 {
    WRITTEN.get().saturating_sub(READ.get())
}

/// The simulated network as one host sees it.
pub(crate) struct SimNet {
    host: Arc<Host>,
}

/// What the streams of a host share.
struct Host {
    name: String,
    chance: Mutex<Chance>,
    open: AtomicUsize,
}

impl SimNet {
    pub(crate) fn of(host: &str, seed: u64) -> SimNet {
        let chance = Mutex::new(Chance::of(seed, &format!("network of {host}")));
        SimNet { host: Arc::new(Host { name: host.to_owned(), chance, open: AtomicUsize::new(0) }) }
    }

    /// Connections of this host that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.host.open.load(Ordering::Relaxed)
    }

    /// Connects to a host of the simulated network.
    pub(crate) async fn connect_to(&self, host: &str, port: u16) -> io::Result<Traced> {
        let stream = TcpStream::connect((host, port)).await?;
        Ok(Traced::new(stream, &self.host, port == PEER_PORT))
    }
}

impl Net for SimNet {
    /// Only the port counts: a host of the simulated network has one address.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let port = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
            let port = port.ok_or_else(|| io::Error::other(format!("`{address}` has no port")))?;
            let listener = TcpListener::bind(("0.0.0.0", port)).await?;
            let is_between_peers = port == PEER_PORT;
            Ok(Box::new(SimListener { listener, host: self.host.clone(), is_between_peers }) as Box<dyn Listener>)
        })
    }

    fn connect_checked<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        check: &'a DestinationCheck<'a>,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let address = SocketAddr::new(turmoil::lookup(host), port);
            Destination { address, is_this_machine: host == self.host.name }.pass(check)?;
            Ok(Box::new(self.connect_to(host, port).await?) as BoxStream)
        })
    }
}

struct SimListener {
    listener: TcpListener,
    host: Arc<Host>,
    is_between_peers: bool,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            let stream = Traced::new(stream, &self.host, self.is_between_peers);
            Ok((Box::new(stream) as BoxStream, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A stream whose bytes are part of the trace.
pub(crate) struct Traced {
    stream: TcpStream,
    host: Arc<Host>,
    is_between_peers: bool,
}

impl Traced {
    fn new(stream: TcpStream, host: &Arc<Host>, is_between_peers: bool) -> Traced {
        host.open.fetch_add(1, Ordering::Relaxed);
        Traced { stream, host: host.clone(), is_between_peers }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.host.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Host {
    /// To how many bytes the next read is cut, if it is.
    fn cut(&self) -> Option<usize> {
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        chance.percent(CUT_PERCENT).then(|| chance.between(1, CUT_BYTES as u64) as usize)
    }
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let cut = self.host.cut().filter(|cut| *cut < buffer.remaining());
        let polled = match cut {
            None => Pin::new(&mut self.stream).poll_read(cx, buffer),
            Some(cut) => {
                let mut bytes = [0; CUT_BYTES];
                let mut piece = ReadBuf::new(&mut bytes[..cut]);
                let polled = Pin::new(&mut self.stream).poll_read(cx, &mut piece);
                buffer.put_slice(piece.filled());
                polled
            }
        };
        if let Poll::Ready(Ok(())) = &polled {
            trace::bytes(&self.host.name, "read", &buffer.filled()[before..]);
            if self.is_between_peers {
                READ.set(READ.get() + (buffer.filled().len() - before) as u64);
            }
        }
        polled
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            trace::bytes(&self.host.name, "write", &bytes[..*written]);
            if self.is_between_peers {
                WRITTEN.set(WRITTEN.get() + *written as u64);
            }
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
