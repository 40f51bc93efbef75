//! The counters of a port's connections.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{Metrics, register};

/// What is counted of every port.
pub(super) struct PortCounters {
    open: IntGaugeVec,
    cut: IntCounterVec,
    attempts: IntCounterVec,
}

impl PortCounters {
    pub(super) fn new(registry: &Registry) -> PortCounters {
        let open = Opts::new("tollgate_connections", "open connections, by whether they have shown a valid credential");
        let cut = Opts::new(
            "tollgate_connections_cut_total",
            "connections, streams and bodies that the port ended by itself",
        );
        let attempts = Opts::new(
            "tollgate_auth_attempts_refused_total",
            "invalid credentials answered 429: too many came from their address",
        );
        PortCounters {
            open: register(registry, IntGaugeVec::new(open, &["port", "authenticated"])),
            cut: register(registry, IntCounterVec::new(cut, &["port", "reason"])),
            attempts: register(registry, IntCounterVec::new(attempts, &["port"])),
        }
    }
}

/// The counters of one port. Cloning is cheap.
#[derive(Clone)]
pub struct PortMetrics {
    metrics: Metrics,
    port: &'static str,
}

impl Metrics {
    /// The counters of a port that is called `port` in the configuration.
    pub fn port(&self, port: &'static str) -> PortMetrics {
        PortMetrics { metrics: self.clone(), port }
    }
}

impl PortMetrics {
    /// As it is called in the configuration.
    pub(crate) fn port(&self) -> &'static str {
        self.port
    }

    /// Notes how many connections are open, and how many of them have shown a valid credential.
    pub(crate) fn open(&self, all: usize, authenticated: usize) {
        let open = &self.metrics.0.ports.open;
        for (label, count) in [("true", authenticated), ("false", all.saturating_sub(authenticated))] {
            open.with_label_values(&[self.port, label]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts a connection, stream or body that the port ended by itself.
    pub(crate) fn cut(&self, reason: &str) {
        self.metrics.0.ports.cut.with_label_values(&[self.port, reason]).inc();
    }

    /// Counts an invalid credential that was answered 429.
    pub(crate) fn attempt_refused(&self) {
        self.metrics.0.ports.attempts.with_label_values(&[self.port]).inc();
    }
}
