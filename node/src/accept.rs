//! Our own accept loop, for every port: the limits and timeouts an edge needs.
//!
//! A connection is one task. It gets a place at once ([`places`]): if there is none, the connection that is quiet for the longest gives
//! its own up. Beside the connection runs one watchdog timer, which looks at what it is doing ([`activity`]) and ends it when a head, a
//! write or an idle pause takes too long: a client that sends a byte a minute is gone after `header_read_timeout`. Bodies have their own
//! deadlines ([`body`]), and so have the streams ([`streams`]) and the frames ([`frames`]) of HTTP/2. What a request says is judged
//! elsewhere; here is only what a byte stream may cost, and how often an address may guess a credential ([`attempts`]).

mod activity;
mod address;
mod answer;
mod attempts;
mod body;
mod connection;
mod cut;
mod frames;
mod head;
mod limits;
mod peer;
mod places;
mod streams;
mod watched;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use raft::doors::Listener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::Service;
use tracing::warn;

use crate::observability::PortMetrics;
use peer::Shared;
use places::Places;

pub use address::{Network, NotANetwork};
pub use attempts::TooManyAttempts;
pub use body::{Body, BodyError};
pub use head::{BadHead, check_head, is_health_check};
pub use limits::Limits;
pub use peer::Peer;

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
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves HTTP/1.1 and HTTP/2 on `port` with `service` (an `axum::Router` is one) until `drain` resolves. Then accepts
/// nothing more, lets requests in progress end for `drain_timeout`, cuts what is left and returns.
pub async fn serve<S, B>(port: Port, metrics: PortMetrics, service: S, drain: impl Future<Output = ()>)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Unpin + 'static,
{
    let Port { mut listener, tls, limits } = port;
    let drain_timeout = limits.drain_timeout;
    let tls = tls.map(connection::acceptor);
    let mut places = Places::new(Arc::new(Shared::new(limits, metrics)));
    let (draining, seen_by_connections) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(drain);
    loop {
        tokio::select! {
            biased;
            () = &mut drain => break,
            Some(ended) = connections.join_next_with_id() => places.ended(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let connected = places.admit(from);
                    let (tls, service, draining) = (tls.clone(), service.clone(), seen_by_connections.clone());
                    let task = connections.spawn(connection::run(stream, connected.clone(), tls, service, draining));
                    places.seat(connected, task);
                }
                // The error concerns one connection, or resources that others will give back: the loop goes on.
                Err(error) => {
                    if places.accept_failed(&error) {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            },
        }
    }
    drop(listener);
    draining.send_replace(true);
    let all_ended = async {
        while let Some(ended) = connections.join_next_with_id().await {
            places.ended(ended);
        }
    };
    if tokio::time::timeout(drain_timeout, all_ended).await.is_err() {
        warn!(connections = connections.len(), "drain deadline passed: cutting the connections that are left");
        connections.shutdown().await;
    }
}
