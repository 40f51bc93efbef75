//! Who is in the cluster, and how that changes while it runs: a newcomer gets a vote, a lost node is taken out for good.
//!
//! A node is taken out in four steps, each of which may be repeated when nobody knows what became of it: enough others answer;
//! its retirement is in the log; it knows that, or its serving lease has run out; its vote is gone. After the third it admits
//! nobody, so that a revocation need not wait for it once it is no member any more.
//!
//! A number is used once. What a node promised under it is on its disk, and the others know that disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::ask::Ask;
use super::{Applied, Cluster, Inner, ProposeError};
use crate::command::{Command, CommandRefusal, Reply};
use crate::ids::NodeId;
use crate::peers::message::Request;

/// How long a change of the members is tried: a newcomer fetches the whole state first.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a newcomer may take to answer at all. It may be starting just now.
const GREETING: Duration = Duration::from_secs(5);
/// How long one of those who would remain may take to answer, and one greeting of a newcomer.
const ANSWER: Duration = Duration::from_secs(1);

/// Who is in the cluster, as this node has applied it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Membership {
    /// Every member, and where its peers reach it.
    pub addresses: BTreeMap<NodeId, String>,
    /// Those that have a vote. The others are catching up.
    pub voters: BTreeSet<NodeId>,
}

/// Why the members are as they were, or may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// There is no such member to be taken out, and was none.
    #[error("node {0} is not a member of the cluster")]
    NotAMember(NodeId),
    /// Its number is used up.
    #[error("number {0} is of a node that was taken out: use a new number")]
    Retired(NodeId),
    /// A member is not moved by adding it again: a wrong address would cut it off.
    #[error("node {node} is a member already, at {address}: give the new node a number of its own")]
    IsMember {
        /// Which.
        node: NodeId,
        /// Where it is.
        address: String,
    },
    /// Another member is there.
    #[error("{address} is the address of node {node}: take that one out first, or give the new one another address")]
    AddressTaken {
        /// Which address.
        address: String,
        /// Whose it is.
        node: NodeId,
    },
    /// The newcomer is not there.
    #[error("node {node} does not answer at {address} ({why}): start it with cluster.join = true, then try again")]
    NoAnswer {
        /// Which.
        node: NodeId,
        /// Where it should be.
        address: String,
        /// What happened instead.
        why: String,
    },
    /// Nobody would be left.
    #[error("node {0} is the last one: add another before it is taken out")]
    LastMember(NodeId),
    /// Those who would remain could decide nothing.
    #[error(
        "without node {node} the cluster would have {remaining} with a vote, of which {answering} answer: no majority. \
         Start or add another, then try again"
    )]
    NoMajority {
        /// Who is to be taken out.
        node: NodeId,
        /// How many would have a vote.
        remaining: usize,
        /// How many of those answer.
        answering: usize,
    },
    /// The cluster did not answer.
    #[error(transparent)]
    NotAnswered(#[from] ProposeError),
}

impl Cluster {
    /// Who is in the cluster. [`Cluster::read_barrier`] first makes it contain every change that was acknowledged.
    pub fn membership(&self) -> Arc<Membership> {
        self.inner.membership()
    }

    /// Makes `node` a member, reachable by its peers at `address`, and returns when it has a vote. It must be running, with
    /// an empty disk, under a number that no node had before. Done at once if it is that already.
    /// Errors: it is refused and nothing has changed; `Unknown`: it has not caught up yet, try again.
    pub async fn add_member(&self, node: NodeId, address: String) -> Result<(), MemberError> {
        if self.read_barrier().await?.retired.contains(&node) {
            return Err(MemberError::Retired(node));
        }
        let membership = self.membership();
        let known = membership.addresses.get(&node);
        if let Some(known) = known.filter(|known| **known != address && membership.voters.contains(&node)) {
            return Err(MemberError::IsMember { node, address: known.clone() });
        }
        if let Some((other, _)) = membership.addresses.iter().find(|(other, at)| **other != node && **at == address) {
            return Err(MemberError::AddressTaken { address, node: *other });
        }
        if !membership.voters.contains(&node) {
            self.inner.greet(node, &address).await?;
        }
        self.inner.ask_leader(Ask::AddMember(node, address), DEADLINE).await?;
        Ok(())
    }

    /// Takes a member out for good, as when its disk is lost; if it still runs it admits nobody when this returns. Its number
    /// is never used again. Done at once if it is out already.
    /// Errors: it is refused; `Unknown`: not all of it may have been done, ask again to complete it.
    pub async fn remove_member(&self, node: NodeId) -> Result<(), MemberError> {
        let inner = &*self.inner;
        // A node that has begun to leave can still complete that, though it may never hear of anything new.
        let is_leaving = node == inner.node && inner.is_retired();
        if !is_leaving {
            self.read_barrier().await?;
        }
        let membership = self.membership();
        let is_retired = is_leaving || self.view().retired.contains(&node);
        let Some(address) = membership.addresses.get(&node) else {
            return if is_retired { Ok(()) } else { Err(MemberError::NotAMember(node)) };
        };
        inner.check_majority_without(node, &membership).await?;
        let index = if is_retired { self.view().applied } else { self.retire(node).await? };
        // From here on it can renew its lease no more without knowing that it is out.
        inner.fence_one(node, address.clone(), index, Instant::now() + inner.lease.length()).await;
        inner.ask_leader(Ask::RemoveMember(node), DEADLINE).await?;
        Ok(())
    }

    async fn retire(&self, node: NodeId) -> Result<u64, MemberError> {
        let Applied { index, reply } = self.propose(Command::RetireNode { node }).await?;
        match reply {
            Reply::Refused(CommandRefusal::LastNode(node)) => Err(MemberError::LastMember(node)),
            _ => Ok(index),
        }
    }
}

impl Inner {
    pub(super) fn membership(&self) -> Arc<Membership> {
        self.member.published().membership.borrow().clone()
    }

    /// Makes sure that the newcomer is there before anything says so: every fence waits for a member that does not answer.
    async fn greet(&self, node: NodeId, address: &str) -> Result<(), MemberError> {
        let patience = Instant::now() + GREETING;
        loop {
            let Err(error) = self.peers.call(node, address, Request::WallTime, ANSWER).await else { return Ok(()) };
            if Instant::now() >= patience {
                return Err(MemberError::NoAnswer { node, address: address.to_owned(), why: error.to_string() });
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// A vote cannot be taken away by a cluster that then has no majority: it would wait for one for ever.
    async fn check_majority_without(&self, node: NodeId, membership: &Membership) -> Result<(), MemberError> {
        let mut rest = membership.voters.clone();
        rest.remove(&node);
        if rest.is_empty() {
            return Err(MemberError::LastMember(node));
        }
        let asked = rest.iter().map(|voter| self.answers(*voter, membership));
        let answering = join_all(asked).await.into_iter().filter(|answers| *answers).count();
        if answering * 2 <= rest.len() {
            return Err(MemberError::NoMajority { node, remaining: rest.len(), answering });
        }
        Ok(())
    }

    async fn answers(&self, node: NodeId, membership: &Membership) -> bool {
        let Some(address) = membership.addresses.get(&node) else { return false };
        node == self.node || self.peers.call(node, address, Request::WallTime, ANSWER).await.is_ok()
    }
}
