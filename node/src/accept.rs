//! Our own accept loop, for every port: the limits and timeouts an edge needs.

use std::sync::Arc;
use std::time::Duration;

use raft::doors::Listener;

/// Limits of a port, with defaults fit for production.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. Default 10,000.
    pub connections_max: usize,
    /// Until a request's head is complete. Also how long an idle connection stays open between requests. Default 10 s.
    pub header_read_timeout: Duration,
    /// Between two pieces of a request's body. Default 30 s.
    pub body_read_timeout: Duration,
    /// A keep-alive connection without a request in progress closes after so long. Default 75 s.
    pub idle_timeout: Duration,
    /// Request head, in bytes. Default 64 KiB.
    pub header_max: usize,
    /// Request body, in bytes. Default 32 MiB.
    pub body_max: usize,
    /// TLS handshake. Default 10 s.
    pub tls_handshake_timeout: Duration,
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
