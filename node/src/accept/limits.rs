//! What a port takes from its clients, with defaults fit for production.

use std::time::Duration;

use super::address::Network;

/// Limits of a port.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. Beyond it the connection that is quiet for the longest makes room: first those that have shown no valid
    /// credential, then idle ones, then ones whose request's body is still coming. Default 10,000.
    pub connections_max: usize,
    /// The same for one address; for IPv6 that is a /64. Default 5,000.
    pub connections_per_address_max: usize,
    /// Connections at once that have shown no valid credential. An idle one costs 30 KB. Default 2,000.
    pub connections_unauthenticated_max: usize,
    /// Connections beyond those, when none can make room: only health checks are answered on them. Default 64.
    pub connections_reserved: usize,
    /// Proxies whose callers are told apart by `x-forwarded-for`, and which have no limit of connections per address. Default none.
    pub trusted_proxies: Vec<Network>,
    /// Until a request's head is complete, counted from the connection's start or the head's first byte. Default 10 s.
    pub header_read_timeout: Duration,
    /// Between two pieces of a request's body. Default 30 s.
    pub body_read_timeout: Duration,
    /// What the client may take for a whole body. Default 10 min.
    pub body_timeout: Duration,
    /// Bytes a second that a body brings on average, after the first `body_read_timeout`. Default 1 KiB.
    pub body_rate_min: usize,
    /// A write that the client does not take for so long ends the connection; on HTTP/2, a piece of an answer ends its stream.
    /// Default 60 s.
    pub write_timeout: Duration,
    /// A keep-alive connection without a request in progress closes after so long. Default 75 s.
    pub idle_timeout: Duration,
    /// Request head, in bytes; at least 8 KiB. Default 64 KiB.
    pub header_max: usize,
    /// Request body, in bytes. Default 32 MiB.
    pub body_max: usize,
    /// TLS handshake. Default 10 s.
    pub tls_handshake_timeout: Duration,
    /// HTTP/2 frames that carry nothing, on one connection: so many at once. Default 1,000.
    pub frames_burst: u64,
    /// And so many a second in the long run; each frame of an answer allows ten more. Default 100.
    pub frames_per_second: u64,
    /// Invalid credentials from one address before the next ones are answered 429. Default 100.
    pub auth_failures_burst: u64,
    /// And so many a second in the long run. Default 10.
    pub auth_failures_per_second: u64,
    /// Addresses whose failures are remembered; beyond it the one that failed the longest ago is forgotten. Default 10,000.
    pub auth_failures_addresses: usize,
    /// How long calls in progress may take to end after the drain began. Default 60 s.
    pub drain_timeout: Duration,
    /// Whether answers carry a `date` header, which is read from the system's clock. Off in simulations. Default on.
    pub date_header: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 10_000,
            connections_per_address_max: 5_000,
            connections_unauthenticated_max: 2_000,
            connections_reserved: 64,
            trusted_proxies: Vec::new(),
            header_read_timeout: Duration::from_secs(10),
            body_read_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(600),
            body_rate_min: 1024,
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            header_max: 64 * 1024,
            body_max: 32 * 1024 * 1024,
            tls_handshake_timeout: Duration::from_secs(10),
            frames_burst: 1_000,
            frames_per_second: 100,
            auth_failures_burst: 100,
            auth_failures_per_second: 10,
            auth_failures_addresses: 10_000,
            drain_timeout: Duration::from_secs(60),
            date_header: true,
        }
    }
}
