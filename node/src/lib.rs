//! How a node meets the world: the data plane, the admin API, the command line, configuration, TLS.
//!
//! Two sentences to learn. A request: `gateway` (accept, authenticate, authorize, reserve, pick, proxy, stream, settle).
//! A command: `admin` (authenticate, validate, propose, answer). The gateway never imports the admin code.

pub mod accept;
pub mod admin;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod node;
pub mod observability;
pub mod tls;

mod anthropic;
mod credentials;
mod files;
mod model_id;
mod pace;

use actors::Actors;
use raft::Cluster;
use raft::doors::Doors;

use observability::Metrics;
pub use pace::Pace;

/// What both the gateway and the admin API are given. Cloning is cheap.
#[derive(Clone)]
pub struct Context {
    /// This node's handle on the cluster.
    pub cluster: Cluster,
    /// The decisions.
    pub actors: Actors,
    /// The doors.
    pub doors: Doors,
    /// The counters.
    pub metrics: Metrics,
    /// How fast each user makes API keys on this node.
    pub new_keys: Pace,
}
