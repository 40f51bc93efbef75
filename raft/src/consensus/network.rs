//! The consensus library's calls to other nodes, carried by [`Peers`]. Every call ends by its deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RaftNetworkV2};

use super::TypeConfig;
use super::convert::{self, Vote};
use crate::ids::NodeId;
use crate::peers::message::{Appended, Candidacy, Request, Response, Transferred};
use crate::peers::{CallError, Peers};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Bytes>;
type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// The library gives an append the time of one heartbeat. That suits an empty one; one with entries waits for the
/// follower's disk, and giving up early would only send the same entries again.
const APPEND_PATIENCE: u32 = 5;

/// Makes a client for each node.
pub(super) struct Network {
    node: NodeId,
    peers: Arc<Peers>,
}

impl Network {
    pub(super) fn new(node: NodeId, peers: Arc<Peers>) -> Network {
        Network { node, peers }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Client {
        Client { from: self.node, target: NodeId(target), address: node.addr.clone(), peers: Arc::clone(&self.peers) }
    }
}

/// Calls to one node.
pub(super) struct Client {
    from: NodeId,
    target: NodeId,
    address: String,
    peers: Arc<Peers>,
}

impl Client {
    async fn call(&self, action: RPCTypes, request: Request, within: Duration) -> Rpc<Response> {
        let answered = self.peers.call(self.target, &self.address, request, within).await;
        answered.map_err(|error| self.error(action, &error))
    }

    fn error(&self, action: RPCTypes, error: &CallError) -> RPCError<TypeConfig> {
        match error {
            CallError::Unreachable { .. } => Unreachable::new(error).into(),
            CallError::Timeout { within, .. } => {
                Timeout { action, id: self.from.0, target: self.target.0, timeout: *within }.into()
            }
        }
    }

    async fn ask_vote(&self, request: Request, within: Duration) -> Rpc<VoteResponse<TypeConfig>> {
        match self.call(RPCTypes::Vote, request, within).await? {
            Response::Vote { vote, granted, last } => Ok(VoteResponse {
                vote: convert::vote(vote),
                vote_granted: granted,
                last_log_id: last.map(convert::log_id),
            }),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(response: &Response) -> RPCError<TypeConfig> {
    let why = match response {
        Response::Failed(why) => why.clone(),
        other => format!("an answer to another question: {other:?}"),
    };
    NetworkError::from_string(why).into()
}

fn candidacy(request: &VoteRequest<TypeConfig>) -> Candidacy {
    Candidacy {
        vote: convert::our_vote(&request.vote),
        last: request.last_log_id.as_ref().map(convert::our_log_id),
        transfer: request.leadership_transfer,
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let within = if request.entries.is_empty() { option.soft_ttl() } else { option.soft_ttl() * APPEND_PATIENCE };
        let request = Request::Append {
            vote: convert::our_vote(&request.vote),
            previous: request.prev_log_id.as_ref().map(convert::our_log_id),
            entries: request.entries.iter().map(convert::our_entry).collect(),
            committed: request.leader_commit.as_ref().map(convert::our_log_id),
        };
        match self.call(RPCTypes::AppendEntries, request, within).await? {
            Response::Append(appended) => Ok(match appended {
                Appended::All => AppendEntriesResponse::Success,
                Appended::Upto(last) => AppendEntriesResponse::PartialSuccess(last.map(convert::log_id)),
                Appended::Conflict => AppendEntriesResponse::Conflict,
                Appended::HigherVote(vote) => AppendEntriesResponse::HigherVote(convert::vote(vote)),
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(Request::Vote(candidacy(&request)), option.soft_ttl()).await
    }

    async fn pre_vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(Request::PreVote(candidacy(&request)), option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let vote = convert::our_vote(&vote);
        let sent = self.peers.send_snapshot(self.target, &self.address, vote, snapshot.snapshot, option.soft_ttl());
        let answered = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answered = sent => answered,
        };
        match answered.map_err(|error| self.error(RPCTypes::InstallSnapshot, &error))? {
            Response::Vote { vote, .. } => Ok(SnapshotResponse::new(convert::vote(vote))),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let expected = *request.from_leader();
        let last = request.last_log_id().copied();
        let asked = Request::TransferLeader {
            from: convert::our_vote(&expected),
            to: *request.to_node_id(),
            last: last.as_ref().map(convert::our_log_id),
        };
        match self.call(RPCTypes::TransferLeader, asked, option.soft_ttl()).await? {
            Response::Transfer(Transferred::Accepted) => Ok(Ok(())),
            Response::Transfer(Transferred::VoteChanged(actual)) => {
                Ok(Err(TransferLeaderError::VoteChanged { expected, actual: convert::vote(actual) }))
            }
            Response::Transfer(Transferred::Behind(actual)) => {
                Ok(Err(TransferLeaderError::LogNotFlushed { expected: last, actual: actual.map(convert::log_id) }))
            }
            other => Err(unexpected(&other)),
        }
    }
}
