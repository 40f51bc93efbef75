//! Changing who is in the cluster, while this node leads. Each function makes it so, and may be repeated until it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ChangeMembers};

use super::TypeConfig;
use super::hand_over;
use super::serve::{Member, NotTaken};
use crate::ids::NodeId;

/// A newcomer gets a vote when it is so close behind: counting it earlier would make the others wait for it.
const CLOSE: u64 = 200;
/// How long a leader that is to be removed waits for another to take over. Shorter than one attempt of whoever asks.
const HANDOVER: Duration = Duration::from_secs(1);

type Written = Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

impl Member {
    /// Makes `node`, reachable at `address`, a voter: first it catches up without a vote.
    pub(crate) async fn add(&self, node: NodeId, address: String) -> Result<(), NotTaken> {
        self.leading_term()?;
        let Known { address: known_at, votes, is_settled, behind } = self.known(node);
        if known_at.as_ref() != Some(&address) {
            let at = BTreeMap::from([(node.0, BasicNode::new(address))]);
            let change = if known_at.is_some() { ChangeMembers::SetNodes(at) } else { ChangeMembers::AddNodes(at) };
            return made(self.raft().change_membership(change, true).await).and(Err(catching_up(node)));
        }
        if votes && is_settled {
            return Ok(());
        }
        if !votes && behind.is_none_or(|behind| behind > CLOSE) {
            return Err(catching_up(node));
        }
        // If an earlier leader left the change half done, this completes it.
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([node.0]));
        made(self.raft().change_membership(change, true).await)
    }

    /// Removes `node`, vote and all. If that is this node, another must lead first.
    pub(crate) async fn remove(&self, node: NodeId) -> Result<(), NotTaken> {
        self.leading_term()?;
        let Known { address, votes, .. } = self.known(node);
        if address.is_none() {
            return Ok(());
        }
        if node == self.node() {
            hand_over(self.raft(), node, HANDOVER).await;
            self.leading_term()?;
            return Err(NotTaken::Failed(format!("node {node} still leads and cannot remove itself")));
        }
        let gone = BTreeSet::from([node.0]);
        let change = if votes { ChangeMembers::RemoveVoters(gone) } else { ChangeMembers::RemoveNodes(gone) };
        made(self.raft().change_membership(change, false).await)
    }

    fn known(&self, node: NodeId) -> Known {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let address = membership.get_node(&node.0).map(|node| node.addr.clone());
        let votes = membership.voter_ids().any(|voter| voter == node.0);
        let is_settled = membership.membership().get_joint_config().len() == 1;
        let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&node.0)?.map(|id| id.index));
        let behind = matched.map(|matched| metrics.last_log_index.unwrap_or(0).saturating_sub(matched));
        Known { address, votes, is_settled, behind }
    }
}

/// What the leader knows of a node.
struct Known {
    /// Where it is; `None` if it is no member.
    address: Option<String>,
    votes: bool,
    /// Whether no change of the voters is under way.
    is_settled: bool,
    /// How many entries it is behind, if it was heard of.
    behind: Option<u64>,
}

fn catching_up(node: NodeId) -> NotTaken {
    NotTaken::Failed(format!("node {node} is catching up"))
}

fn made(written: Written) -> Result<(), NotTaken> {
    match written {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(
            ClientWriteError::ForwardToLeader(forward) | ClientWriteError::LogEntryDiscarded(forward),
        )) => Err(NotTaken::NotLeader(forward.leader_id.map(NodeId))),
        Err(other) => Err(NotTaken::Failed(other.to_string())),
    }
}
