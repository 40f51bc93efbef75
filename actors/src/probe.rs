//! Probe: one actor per replica. Asks for its health and its metrics on a timer and tells the pool.

use std::time::Duration;

use bytes::Bytes;
use raft::doors::BoxFuture;

/// How a replica is asked, without naming sockets: GET, with a deadline.
pub trait Scrape: Send + Sync + 'static {
    /// GET `base` + `path` (`http://host:port`, `/metrics`). Errors: one line why there was no answer. Bodies are bounded by the implementation (4 MiB).
    fn get<'a>(&'a self, base: &'a str, path: &'a str, deadline: Duration) -> BoxFuture<'a, Result<Scraped, String>>;
}

/// A replica's answer.
#[derive(Clone, Debug)]
pub struct Scraped {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}
