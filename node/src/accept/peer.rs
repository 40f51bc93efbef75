//! One open connection: its other end, what it shares with the port's others, and what requests may say of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use tokio::time::Instant;

use super::activity::{Activity, Claim};
use super::address::{Address, forwarded_for};
use super::attempts::{Attempts, TooManyAttempts};
use super::cut::Cut;
use super::limits::Limits;
use crate::observability::PortMetrics;

/// What the connections of a port share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) metrics: PortMetrics,
    attempts: Attempts,
    /// Open connections that have shown a valid credential.
    authenticated: AtomicUsize,
}

impl Shared {
    pub(super) fn new(limits: Limits, metrics: PortMetrics) -> Shared {
        Shared { attempts: Attempts::new(&limits), limits, metrics, authenticated: AtomicUsize::new(0) }
    }

    pub(super) fn authenticated(&self) -> usize {
        self.authenticated.load(Ordering::Relaxed)
    }

    pub(super) fn is_trusted(&self, from: SocketAddr) -> bool {
        self.limits.trusted_proxies.iter().any(|network| network.contains(from.ip()))
    }
}

/// One connection.
pub(super) struct Connected {
    pub(super) from: SocketAddr,
    pub(super) activity: Activity,
    pub(super) shared: Arc<Shared>,
    /// There was no place left: only health checks are answered.
    pub(super) is_spare: bool,
}

impl Connected {
    pub(super) fn new(from: SocketAddr, shared: Arc<Shared>, is_spare: bool) -> Connected {
        Connected { from, activity: Activity::new(), shared, is_spare }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(super) fn cut(&self, why: Cut) {
        self.shared.metrics.cut(why.label());
    }

    /// Takes the connection for closing if it still is what `claim` says. From then on it begins no request.
    pub(super) fn claim(&self, claim: Claim) -> bool {
        let closed = self.activity.claim(claim);
        if closed {
            self.note_closed();
        }
        closed
    }

    /// The connection has ended by itself.
    pub(super) fn ended(&self) {
        if self.activity.close() {
            self.note_closed();
        }
    }

    fn note_closed(&self) {
        if self.activity.is_authenticated() {
            self.shared.authenticated.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Since when nothing has begun or ended on it.
    pub(super) fn quiet_since(&self) -> Instant {
        self.activity.quiet_since()
    }
}

/// The other end of the connection that a request came on. Cloning is cheap.
#[derive(Clone)]
pub struct Peer(pub(super) Arc<Connected>);

impl Peer {
    /// Notes that a request on this connection has shown a valid credential: others make room before it does.
    pub fn authenticated(&self) {
        if self.0.activity.authenticate() {
            self.0.shared.authenticated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an invalid credential in a request with these headers. Errors: too many came from its address; the answer is 429.
    pub fn failed(&self, headers: &HeaderMap) -> Result<(), TooManyAttempts> {
        let Connected { from, shared, .. } = &*self.0;
        let named =
            if shared.is_trusted(*from) { forwarded_for(headers, &shared.limits.trusted_proxies) } else { None };
        let address = Address::of(named.unwrap_or(from.ip()));
        let judged = shared.attempts.failed(address, shared.metrics.port());
        if judged.is_err() {
            shared.metrics.attempt_refused();
        }
        judged
    }
}
