//! Our own accept loop, for every port: the limits and timeouts an edge needs.
//!
//! A connection is one task. Beside it runs one watchdog timer, which looks at what the connection is doing
//! ([`activity`]) and ends it when a head, a body piece, a write or an idle pause takes too long: a client that
//! sends a byte a minute is gone after `header_read_timeout`. What a request says is judged elsewhere; here is only
//! what a byte stream may cost.

mod activity;
mod body;
mod connection;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use raft::doors::{Accepted, Listener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower::Service;
use tracing::{debug, warn};

pub use body::{Body, BodyError};

/// Limits of a port, with defaults fit for production.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue. Default 10,000.
    pub connections_max: usize,
    /// Until a request's head is complete, counted from the connection's start or the head's first byte. Default 10 s.
    pub header_read_timeout: Duration,
    /// Between two pieces of a request's body. Default 30 s.
    pub body_read_timeout: Duration,
    /// A write that the client does not take for so long ends the connection. Default 60 s.
    pub write_timeout: Duration,
    /// A keep-alive connection without a request in progress closes after so long. Default 75 s.
    pub idle_timeout: Duration,
    /// Request head, in bytes; at least 8 KiB. Default 64 KiB.
    pub header_max: usize,
    /// Request body, in bytes. Default 32 MiB.
    pub body_max: usize,
    /// TLS handshake. Default 10 s.
    pub tls_handshake_timeout: Duration,
    /// How long calls in progress may take to end after the drain began. Default 60 s.
    pub drain_timeout: Duration,
    /// Whether answers carry a `date` header, which is read from the system's clock. Off in simulations. Default on.
    pub date_header: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 10_000,
            header_read_timeout: Duration::from_secs(10),
            body_read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            header_max: 64 * 1024,
            body_max: 32 * 1024 * 1024,
            tls_handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(60),
            date_header: true,
        }
    }
}

/// TLS of a port; `None` for plain HTTP.
pub type PortTls = Option<Arc<rustls::ServerConfig>>;

/// A port that is open but does not serve yet.
pub struct Port {
    /// The socket.
    pub listener: Box<dyn Listener>,
    /// TLS.
    pub tls: PortTls,
    /// Limits.
    pub limits: Limits,
}

/// After an accept failed for want of file descriptors or memory, until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTP/1.1 and HTTP/2 on `port` with `service` (an `axum::Router` is one) until `drain` resolves. Then accepts
/// nothing more, lets requests in progress end for `drain_timeout`, cuts what is left and returns.
pub async fn serve<S, B>(port: Port, service: S, drain: impl Future<Output = ()>)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Unpin + 'static,
{
    let Port { mut listener, tls, limits } = port;
    let limits = Arc::new(limits);
    let tls = tls.map(connection::acceptor);
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let (draining, seen_by_connections) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(drain);
    loop {
        tokio::select! {
            biased;
            () = &mut drain => break,
            Some(ended) = connections.join_next() => note_panic(ended),
            (place, accepted) = next(&places, &mut *listener) => match accepted {
                Ok((stream, from)) => {
                    let service = service.clone();
                    let (tls, limits, draining) = (tls.clone(), limits.clone(), seen_by_connections.clone());
                    connections.spawn(async move {
                        let _place = place;
                        connection::run(stream, from, tls, &limits, service, draining).await;
                    });
                }
                // The error concerns one connection, or resources that others will give back: the loop goes on.
                Err(error) => {
                    warn!(%error, "accept failed");
                    drop(place);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    draining.send_replace(true);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            note_panic(ended)
        }
    };
    if tokio::time::timeout(limits.drain_timeout, all_ended).await.is_err() {
        warn!(connections = connections.len(), "drain deadline passed: cutting the connections that are left");
        connections.shutdown().await;
    }
}

async fn next(places: &Arc<Semaphore>, listener: &mut dyn Listener) -> (OwnedSemaphorePermit, io::Result<Accepted>) {
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    (place, listener.accept().await)
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    match ended {
        Err(error) if error.is_panic() => tracing::error!(%error, "a connection's task panicked"),
        Ok(()) | Err(_) => debug!("connection closed"),
    }
}
