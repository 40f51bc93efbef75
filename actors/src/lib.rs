//! What one node decides: who calls (auth), what they may use (routing), whether tokens are left (quota),
//! which replica answers (probe, epp).
//!
//! Each part is a ractor actor that owns what changes and publishes what requests read: whole values
//! behind an `Arc`, and shared atomics. A request never waits for a mailbox, except when the local
//! allowance is empty. This crate knows nothing of sockets, TLS or HTML: replicas are asked through [`probe::Scrape`].

pub mod auth;
pub mod epp;
pub mod probe;
pub mod quota;
pub mod routing;

mod derived;
mod mailbox;
mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use raft::Cluster;
use raft::doors::Doors;

pub use auth::{Auth, Caller, NotFound, Unauthenticated};
pub use epp::{NoReplica, Pools, PrefixHashes, Ranking, Route};
pub use quota::{Holding, Quota, QuotaRefusal, Reservation};
pub use routing::{Denied, Model, Permit, Routing};

/// What the actors are given.
pub struct Deps {
    /// This node's handle on the cluster.
    pub cluster: Cluster,
    /// The doors.
    pub doors: Doors,
    /// How replicas are asked for their health and metrics.
    pub scrape: Arc<dyn probe::Scrape>,
    /// What may differ between nodes.
    pub settings: Settings,
}

/// What may differ between nodes, with defaults fit for production.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Between two probes of a replica. Default 500 ms.
    pub probe_interval: Duration,
    /// A probe that takes longer has failed. Default 2 s.
    pub probe_timeout: Duration,
    /// How long a call waits for tokens that other nodes hold idle. Default 100 ms.
    pub recall_wait: Duration,
    /// How long a call waits for tokens that calls in progress hold, before it is refused. Default 2 s.
    pub held_wait: Duration,
    /// How long a call waits for the ledger before it is refused: longer than a leader election. Default 10 s.
    pub ledger_wait: Duration,
    /// A grant idle for so long goes back. Default 2 s.
    pub idle_return: Duration,
    /// The public base URL of this gateway, as statuses show it: `https://host:port`. Default `http://localhost`.
    pub gateway_url: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            probe_interval: Duration::from_millis(500),
            probe_timeout: Duration::from_secs(2),
            recall_wait: Duration::from_millis(100),
            held_wait: Duration::from_secs(2),
            ledger_wait: Duration::from_secs(10),
            idle_return: Duration::from_secs(2),
            gateway_url: "http://localhost".to_owned(),
        }
    }
}

/// The handles that requests use. Cloning is cheap.
#[derive(Clone)]
pub struct Actors {
    /// Who calls.
    pub auth: Auth,
    /// What they may use.
    pub routing: Routing,
    /// Whether tokens are left.
    pub quota: Quota,
    /// Which replica answers.
    pub pools: Pools,
    supervisor: supervisor::Handle,
}

impl Actors {
    /// Starts every actor under one supervisor and waits until each has published its first snapshot.
    pub async fn start(deps: Deps) -> Result<Actors, StartError> {
        supervisor::start(deps).await
    }

    /// The supervisor of all actors of this node, for whoever looks at them, or disturbs them on purpose.
    pub fn root(&self) -> ActorCell {
        self.supervisor.root()
    }

    /// Resolves if supervision gives up (an actor keeps failing): the node must then exit cleanly.
    pub async fn failed(&self) -> String {
        self.supervisor.failed().await
    }

    /// Settles what is pending, gives every grant back to the ledger, stops the actors. Call it after the last request has ended.
    pub async fn drain(&self) {
        self.supervisor.drain().await;
    }
}

/// An actor did not start.
#[derive(Debug, thiserror::Error)]
#[error("actor `{actor}` did not start: {reason}")]
pub struct StartError {
    /// Which.
    pub actor: &'static str,
    /// Why.
    pub reason: String,
}
