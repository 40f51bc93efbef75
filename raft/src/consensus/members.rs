//! Changing who is in the cluster, while this node leads. Each function makes it so, and may be repeated until it is.

use std::collections::{BTreeMap, BTreeSet};

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ChangeMembers};

use super::TypeConfig;
use super::serve::{Member, NotTaken};
use crate::ids::NodeId;

/// A newcomer gets a vote when it is so close behind: counting it earlier would make the others wait for it.
const CLOSE: u64 = 200;

type Written = Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

impl Member {
    /// Makes `node`, reachable at `address`, a voter: first it catches up without a vote.
    pub(crate) async fn add(&self, node: NodeId, address: String) -> Result<(), NotTaken> {
        self.leading_term()?;
        let (known_at, votes, behind) = self.newcomer(node);
        if known_at.as_ref() != Some(&address) {
            let at = BTreeMap::from([(node.0, BasicNode::new(address))]);
            let change = if known_at.is_some() { ChangeMembers::SetNodes(at) } else { ChangeMembers::AddNodes(at) };
            return made(self.raft().change_membership(change, true).await).and(Err(catching_up(node)));
        }
        if votes {
            return Ok(());
        }
        if behind.is_none_or(|behind| behind > CLOSE) {
            return Err(catching_up(node));
        }
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([node.0]));
        made(self.raft().change_membership(change, true).await)
    }

    /// Removes `node`, vote and all.
    pub(crate) async fn remove(&self, node: NodeId) -> Result<(), NotTaken> {
        self.leading_term()?;
        let (known_at, votes, _) = self.newcomer(node);
        if known_at.is_none() {
            return Ok(());
        }
        let gone = BTreeSet::from([node.0]);
        let change = if votes { ChangeMembers::RemoveVoters(gone) } else { ChangeMembers::RemoveNodes(gone) };
        made(self.raft().change_membership(change, false).await)
    }

    /// Where a node is known to be, whether it votes, and how far it is behind.
    fn newcomer(&self, node: NodeId) -> (Option<String>, bool, Option<u64>) {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let known_at = membership.get_node(&node.0).map(|node| node.addr.clone());
        let votes = membership.voter_ids().any(|voter| voter == node.0);
        let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&node.0)?.map(|id| id.index));
        let behind = matched.map(|matched| metrics.last_log_index.unwrap_or(0).saturating_sub(matched));
        (known_at, votes, behind)
    }
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
