//! The glue to the consensus library: how its log, state machine and network are ours. No other module, and
//! nothing outside this crate, names one of its types.

mod convert;
mod log;
mod machine;
mod members;
mod network;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{BasicNode, Config, ServerState, SnapshotPolicy};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use serde::{Deserialize, Serialize};

use crate::cluster::Standing;
use crate::command::Reply;
use crate::doors::Chance;
use crate::ids::NodeId;
use crate::peers::Peers;
use crate::storage::records::Sealed;

pub(crate) use log::LogStore;
pub(crate) use machine::Machine;
pub(crate) use serve::{Member, NotTaken, stopped};

/// Between heartbeats of a leader.
const HEARTBEAT_MS: u64 = 100;
/// A follower stands for election when it has not heard from a leader for the lease (the longer of the two) plus a
/// random time between the two: at 1.2 to 1.6 s. That is a dozen missed heartbeats, so a node whose cores are
/// busy does not lose its leadership, and a dead leader is replaced within 3 s even when one round of votes splits.
/// Without a leader to wait for (at the start of a cluster) only the random part counts.
const ELECTION_MS: (u64, u64) = (400, 800);
/// Of the entries between two snapshots, one in so many is kept behind the newest, for followers that are a little late.
const KEPT_PART: u64 = 5;
/// Entries are forgotten so many at a time at most.
const PURGED_AT_ONCE: u64 = 256;
/// How long one snapshot may travel. Its chunks have their own, shorter deadline.
const SNAPSHOT_TRANSFER_MS: u64 = 300_000;

/// What a state machine answers to an entry: nothing to those that are not proposals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Option<Reply>);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "reply" } else { "nothing" })
    }
}

openraft::declare_raft_types!(
    /// The types the consensus library works with.
    pub(crate) TypeConfig:
        D = Sealed,
        R = Answer,
        Node = BasicNode,
        AsyncRuntime = DeterministicRng<TokioRuntime>,
);

/// The consensus core of this node.
pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// Starts the consensus core. Errors: what it says.
pub(crate) async fn start(
    node: NodeId,
    cluster: &str,
    snapshot_every: u64,
    store: (LogStore, Machine),
    peers: Arc<Peers>,
    chance: &dyn Chance,
) -> Result<Raft, String> {
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        install_snapshot_timeout: SNAPSHOT_TRANSFER_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: snapshot_every / KEPT_PART,
        purge_batch_size: (snapshot_every / KEPT_PART).clamp(1, PURGED_AT_ONCE),
        // Queues of the core: their length is bounded by the proposals in flight, which the cluster handle bounds.
        api_channel_size: Some(4096),
        notification_channel_size: Some(4096),
        enable_pre_vote: Some(true),
        // A leader that crashed must be elected again: with an unsynced tail lost it would give one log id to two
        // commands, and an acknowledged write would be gone.
        enable_leader_restore: Some(false),
        backoff: "100ms".to_owned(),
        ..Config::default()
    };
    let config = Arc::new(config.validate().map_err(|error| error.to_string())?);
    let (log, machine) = store;
    let network = network::Network::new(node, peers);
    // Every task of the core draws its chance from here, so that a simulation can repeat it.
    let started = Raft::new(node.0, config, network, log, machine);
    DeterministicRng::<TokioRuntime>::scope(chance.u64(), started).await.map_err(|error| error.to_string())
}

/// Whether this node is part of a cluster already.
pub(crate) async fn founded(raft: &Raft) -> Result<bool, String> {
    raft.is_initialized().await.map_err(|error| error.to_string())
}

/// Founds a new cluster of `members`; false if somebody was quicker. This node must not be part of one.
///
/// Every member with an empty disk may do so with the same members. The entries they write differ in nothing but who wrote
/// them; the first leader's replaces the others' as any entry that was not committed. Nothing is decided without a quorum
/// of those members, so it does not matter who is first, and no member must be up for the others to begin.
pub(crate) async fn found(raft: &Raft, members: &BTreeMap<NodeId, String>) -> Result<bool, String> {
    let nodes: BTreeMap<u64, BasicNode> =
        members.iter().map(|(node, address)| (node.0, BasicNode::new(address.clone()))).collect();
    match raft.initialize(nodes).await {
        Ok(()) => Ok(true),
        // A leader reached this node in between: it is part of the cluster now.
        Err(error) if matches!(error.api_error(), Some(openraft::errors::InitializeError::NotAllowed(_))) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// Who leads, as far as this node knows.
pub(crate) fn leader(raft: &Raft) -> Option<NodeId> {
    raft.metrics().borrow_watched().current_leader.map(NodeId)
}

/// Where `node` listens, as the cluster agreed.
pub(crate) fn address(raft: &Raft, node: NodeId) -> Option<String> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.get_node(&node.0).map(|node| node.addr.clone())
}

/// Where this node stands; `applied` as the core saw it last.
pub(crate) fn standing(raft: &Raft) -> Standing {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let committed = metrics.cluster_committed.max(metrics.local_committed);
    Standing {
        leader: metrics.current_leader.map(NodeId),
        term: metrics.current_term,
        committed: committed.map_or(0, |committed| committed.index),
        applied: metrics.last_applied.map_or(0, |applied| applied.index),
        members: metrics.membership_config.nodes().map(|(node, basic)| (NodeId(*node), basic.addr.clone())).collect(),
    }
}

/// If this node leads: hands leadership to the voter that has most of the log, and waits at most `within`.
pub(crate) async fn hand_over(raft: &Raft, node: NodeId, within: Duration) {
    let successor = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return;
        }
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let replication = metrics.replication.iter().flatten();
        let others = replication.filter(|(other, _)| **other != node.0 && voters.contains(other));
        others.max_by_key(|(_, matched)| **matched).map(|(other, _)| *other)
    };
    let Some(successor) = successor else { return };
    if let Err(error) = raft.trigger().transfer_leader(successor).await {
        tracing::warn!(%error, "cannot hand leadership over");
        return;
    }
    let another_leads =
        |metrics: &openraft::RaftMetrics<TypeConfig>| metrics.current_leader.is_some_and(|leader| leader != node.0);
    match raft.wait(Some(within)).metrics(another_leads, "another node leads").await {
        Ok(_) => tracing::info!(successor, "handed leadership over"),
        Err(_) => tracing::warn!(successor, ?within, "leadership was not taken over in time"),
    }
}
