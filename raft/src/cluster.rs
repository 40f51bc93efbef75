//! The handle others use: propose, read, watch, who leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::command::{Command, Reply};
use crate::doors::Doors;
use crate::ids::NodeId;
use crate::peers::PeerTls;
use crate::state::View;
use crate::storage::Disk;

/// How to run this node's part of the cluster.
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// Distinguishes clusters: peers of another name are refused.
    pub cluster: String,
    /// Where this node listens for its peers: `host:port`.
    pub peer_listen: String,
    /// Every member of a new cluster, this node included: where its peers reach it (`host:port`). Only read when the disk is empty.
    pub members: BTreeMap<NodeId, String>,
    /// TLS between peers. `None` only on loopback with a single node or in a simulation.
    pub tls: Option<PeerTls>,
    /// A node that has not heard from a leader for so long stops admitting. Default 5 s.
    pub serving_lease: Duration,
}

/// A proposal that took effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Its log index.
    pub index: u64,
    /// What it was answered: [`Reply::Refused`] included.
    pub reply: Reply,
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It may or may not have taken effect. There is no `Failed`: a proposal that timed out may still commit.
    #[error("no answer from the leader within {0:?}: the change may or may not have been made")]
    Unknown(Duration),
    /// This node is stopping.
    #[error("the node is shutting down")]
    Stopping,
    /// The proposal is larger than the log takes.
    #[error("the change is {bytes} bytes large, at most {max} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
}

/// Where this node stands in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Standing {
    /// Who leads, if anybody is known to.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// The last log index known to be on a quorum.
    pub committed: u64,
    /// The last log index applied here.
    pub applied: u64,
    /// The members and their peer addresses.
    pub members: BTreeMap<NodeId, String>,
}

/// This node's handle on the cluster. Cloning is cheap.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner;

impl Cluster {
    /// Opens the disk, joins or founds the cluster, and serves peers.
    /// Errors: the disk cannot be read, the peer address is taken, TLS files are wrong.
    pub async fn start(settings: Settings, disk: Arc<dyn Disk>, doors: Doors) -> Result<Cluster, StartError> {
        let _ = (settings, disk, doors);
        todo!()
    }

    /// Proposes a change, wherever the leader is, and waits until this node has applied it. Retries under one
    /// request id until `DEADLINE` (10 s), so it takes effect at most once.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        todo!("{command:?}")
    }

    /// The newest view this node has.
    pub fn view(&self) -> Arc<View> {
        todo!()
    }

    /// Sees every newer view (intermediate ones may be skipped).
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        todo!()
    }

    /// Waits until this node's view contains everything that was acknowledged anywhere before the call (ReadIndex).
    pub async fn read_barrier(&self) -> Result<Arc<View>, ProposeError> {
        todo!()
    }

    /// Waits until every member has applied `index`, or has not heard from a leader for so long that it admits nobody.
    pub async fn fence(&self, index: u64) {
        todo!("{index}")
    }

    /// Whether this node has heard from a leader within the serving lease, and so may admit calls.
    pub fn may_serve(&self) -> bool {
        todo!()
    }

    /// Where this node stands.
    pub fn standing(&self) -> Standing {
        todo!()
    }

    /// How often this disk was started, from 1: the incarnation of quota batches.
    pub fn incarnation(&self) -> u64 {
        todo!()
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        todo!()
    }

    /// Hands leadership over if this node has it, stops, and syncs the disk.
    pub async fn shutdown(&self) {
        todo!()
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk.
    #[error("storage: {0}")]
    Storage(std::io::Error),
    /// The peer listener.
    #[error("cannot listen for peers on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Consensus refused to start.
    #[error("consensus: {0}")]
    Consensus(String),
}
