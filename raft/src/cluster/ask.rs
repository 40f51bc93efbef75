//! Asking the leader, wherever it is: here or over there, through elections, until a deadline.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Inner, ProposeError};
use crate::codec;
use crate::command::Reply;
use crate::consensus::NotTaken;
use crate::ids::{NodeId, RequestId};
use crate::peers::message::{Request, Response};

/// How long one attempt may take before the leader is asked for again. A leader that died answers at once that
/// the connection is gone; one that was cut off does not, and by then the others have elected another.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// Between attempts: at first, and at most. A new leader is there after a second or two.
const BACKOFF_MILLIS: (u64, u64) = (5, 160);

/// Something only the leader can do.
#[derive(Clone)]
pub(super) enum Ask {
    /// Log this command.
    Propose(RequestId, Bytes),
    /// Say what index contains everything acknowledged before now.
    ReadIndex,
    /// Make this node a member, reachable there.
    AddMember(NodeId, String),
    /// Remove this member.
    RemoveMember(NodeId),
}

/// What the leader did.
pub(super) enum Done {
    /// To `Propose`: the log index and the reply.
    Proposed(u64, Reply),
    /// To `ReadIndex`.
    ReadIndex(u64),
    /// To `AddMember` and `RemoveMember`.
    MembersChanged,
}

impl Inner {
    /// Asks until there is an answer, or until `within` is over.
    pub(super) async fn ask_leader(&self, ask: Ask, within: Duration) -> Result<Done, ProposeError> {
        let deadline = Instant::now() + within;
        let mut hint = None;
        let mut backoff = BACKOFF_MILLIS.0;
        loop {
            if self.is_stopping() {
                return Err(ProposeError::Stopping);
            }
            let attempt_ends = deadline.min(Instant::now() + ATTEMPT);
            let leader = hint.take().or_else(|| self.leader());
            match timeout_at(attempt_ends, self.attempt(leader, ask.clone())).await {
                Ok(Ok(done)) => return Ok(done),
                // Whoever was asked knows better: no need to wait.
                Ok(Err(NotTaken::NotLeader(Some(other)))) if Some(other) != leader => hint = Some(other),
                Ok(Err(NotTaken::NotLeader(_))) => {}
                Ok(Err(NotTaken::Failed(why))) => tracing::debug!(?leader, %why, "asking the leader again"),
                Err(_) => tracing::debug!(?leader, within = ?ATTEMPT, "no answer: asking the leader again"),
            }
            let pause = Duration::from_millis(backoff + self.doors.chance.below(backoff));
            if Instant::now() + pause >= deadline {
                return Err(ProposeError::Unknown(within));
            }
            sleep_until(Instant::now() + pause).await;
            backoff = (backoff * 2).min(BACKOFF_MILLIS.1);
        }
    }

    async fn attempt(&self, leader: Option<NodeId>, ask: Ask) -> Result<Done, NotTaken> {
        let leader = leader.ok_or(NotTaken::NotLeader(None))?;
        if leader != self.node {
            return self.attempt_there(leader, ask).await;
        }
        match ask {
            Ask::Propose(request, command) => {
                self.member.log(request, command).await.map(|(index, reply)| Done::Proposed(index, reply))
            }
            Ask::ReadIndex => self.member.read_index().await.map(Done::ReadIndex),
            Ask::AddMember(node, address) => self.member.add(node, address).await.map(|()| Done::MembersChanged),
            Ask::RemoveMember(node) => self.member.remove(node).await.map(|()| Done::MembersChanged),
        }
    }

    async fn attempt_there(&self, leader: NodeId, ask: Ask) -> Result<Done, NotTaken> {
        let address = self.address(leader).ok_or_else(|| NotTaken::Failed(format!("node {leader} has no address")))?;
        let request = match ask {
            Ask::Propose(request, command) => Request::Propose { request, command },
            Ask::ReadIndex => Request::ReadIndex,
            Ask::AddMember(node, address) => Request::AddMember { node: node.0, address },
            Ask::RemoveMember(node) => Request::RemoveMember { node: node.0 },
        };
        match self.peers.call(leader, &address, request, ATTEMPT).await {
            Ok(Response::Proposed { index, reply }) => match codec::from_payload(&reply) {
                Ok(reply) => Ok(Done::Proposed(index, reply)),
                Err(error) => Err(NotTaken::Failed(error.to_string())),
            },
            Ok(Response::ReadIndex(index)) => Ok(Done::ReadIndex(index)),
            Ok(Response::MembersChanged) => Ok(Done::MembersChanged),
            Ok(Response::NotLeader { leader }) => Err(NotTaken::NotLeader(leader.map(NodeId))),
            Ok(Response::Failed(why)) => Err(NotTaken::Failed(why)),
            Ok(other) => Err(NotTaken::Failed(format!("an answer to another question: {other:?}"))),
            Err(error) => Err(NotTaken::Failed(error.to_string())),
        }
    }
}
