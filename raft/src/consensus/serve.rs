//! What this node does for itself and for its peers: takes their consensus messages, logs proposals while it
//! leads, says how far a read must wait.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use tokio::time::{Instant, timeout};

use super::convert;
use super::machine::Published;
use super::{Raft, TypeConfig};
use crate::cluster::{StateClock, WallClocks};
use crate::codec;
use crate::command::Reply;
use crate::doors::{BoxFuture, Clock};
use crate::ids::{NodeId, RequestId, Timestamp};
use crate::peers::Handler;
use crate::peers::message::{Appended, Candidacy, Request, Response, SnapshotHead, Transferred};
use crate::storage::Writer;
use crate::storage::records::{LogId, Sealed, Vote, snapshot_parts};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Bytes>;

/// How long a peer's request may take here. Above what the peer waits, so it says why rather than nothing.
const REQUEST_TIME: Duration = Duration::from_secs(3);

/// Why a proposal or a read was not taken here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Somebody else leads, or nobody that is known.
    NotLeader(Option<NodeId>),
    /// Something else; the proposal may or may not have been logged.
    Failed(String),
}

/// This node's consensus core, its views, and the clock it stamps proposals with.
pub(crate) struct Member {
    raft: Raft,
    /// Of the log's disk.
    writer: Writer,
    published: Published,
    stamps: Mutex<StateClock>,
    clock: Arc<dyn Clock>,
    walls: WallClocks,
    started: Instant,
}

impl Member {
    pub(crate) fn new(raft: Raft, writer: Writer, published: Published, clock: Arc<dyn Clock>) -> Member {
        let (stamps, walls) = (Mutex::default(), WallClocks::default());
        Member { raft, writer, published, stamps, clock, walls, started: Instant::now() }
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    /// Logs a command if this node leads: its index and its reply, once it is on a quorum and applied here.
    pub(crate) async fn log(&self, request: RequestId, command: Bytes) -> Result<(u64, Reply), NotTaken> {
        let term = self.leading_term()?;
        let Some(time) = self.stamp(term) else {
            return Err(NotTaken::Failed("the time is not known yet: too few members have said theirs".into()));
        };
        match self.raft.client_write(Sealed { request, time, command }).await {
            Ok(written) => {
                let reply = written.data.0.ok_or_else(|| NotTaken::Failed("a proposal had no reply".into()))?;
                Ok((written.log_id.index, reply))
            }
            Err(RaftError::APIError(
                ClientWriteError::ForwardToLeader(forward) | ClientWriteError::LogEntryDiscarded(forward),
            )) => Err(NotTaken::NotLeader(forward.leader_id.map(NodeId))),
            Err(other) => Err(NotTaken::Failed(other.to_string())),
        }
    }

    /// The index that contains everything acknowledged before the call, confirmed by a quorum, if this node leads.
    pub(crate) async fn read_index(&self) -> Result<u64, NotTaken> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(NotTaken::NotLeader(forward.leader_id.map(NodeId)))
            }
            Err(other) => Err(NotTaken::Failed(other.to_string())),
        }
    }

    /// Waits until `index` is applied here. Errors: the node stops.
    pub(crate) async fn wait_applied(&self, index: u64) -> Result<(), NotTaken> {
        let mut applied = self.published.applied.clone();
        let waited = applied.wait_for(|applied| *applied >= index).await;
        waited.map(drop).map_err(|_| NotTaken::Failed("the node is stopping".into()))
    }

    /// This node.
    pub(super) fn node(&self) -> NodeId {
        NodeId(self.raft.metrics().borrow_watched().id)
    }

    /// The term, if this node leads.
    pub(super) fn leading_term(&self) -> Result<u64, NotTaken> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state == ServerState::Leader {
            Ok(metrics.current_term)
        } else {
            Err(NotTaken::NotLeader(metrics.current_leader.map(NodeId)))
        }
    }

    /// What the other members' wall clocks say, as far as this node has heard.
    pub(crate) fn walls(&self) -> &WallClocks {
        &self.walls
    }

    /// The wall time of a majority of the voters, if this node knows it.
    pub(crate) fn trusted_wall(&self) -> Option<Timestamp> {
        let (node, voters): (NodeId, BTreeSet<NodeId>) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (NodeId(metrics.id), metrics.membership_config.voter_ids().map(NodeId).collect())
        };
        self.walls.trusted(node, self.clock.wall(), &voters, Instant::now())
    }

    /// The stamp of a proposal taken now, in a term that this node leads.
    fn stamp(&self, term: u64) -> Option<Timestamp> {
        let trusted = self.trusted_wall();
        let applied = self.published.view.borrow().time;
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        stamps.stamp(term, self.started.elapsed(), trusted, applied)
    }

    async fn append(&self, request: AppendEntriesRequest<TypeConfig>) -> Response {
        match self.raft.append_entries(request).await {
            Ok(AppendEntriesResponse::Success) => Response::Append(Appended::All),
            Ok(AppendEntriesResponse::PartialSuccess(last)) => {
                Response::Append(Appended::Upto(last.as_ref().map(convert::our_log_id)))
            }
            Ok(AppendEntriesResponse::Conflict) => Response::Append(Appended::Conflict),
            Ok(AppendEntriesResponse::HigherVote(vote)) => {
                Response::Append(Appended::HigherVote(convert::our_vote(&vote)))
            }
            Err(error) => Response::Failed(error.to_string()),
        }
    }

    async fn transfer(&self, from: Vote, to: u64, last: Option<LogId>) -> Response {
        let request = TransferLeaderRequest::new(convert::vote(from), to, last.map(convert::log_id));
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => Response::Transfer(Transferred::Accepted),
            Ok(Err(TransferLeaderError::VoteChanged { actual, .. })) => {
                Response::Transfer(Transferred::VoteChanged(convert::our_vote(&actual)))
            }
            Ok(Err(TransferLeaderError::LogNotFlushed { actual, .. })) => {
                Response::Transfer(Transferred::Behind(actual.as_ref().map(convert::our_log_id)))
            }
            Err(error) => Response::Failed(error.to_string()),
        }
    }

    async fn serve(&self, from: NodeId, request: Request) -> Response {
        match request {
            Request::Append { vote, previous, entries, committed } => {
                let entries = match entries.into_iter().map(convert::entry).collect() {
                    Ok(entries) => entries,
                    Err(error) => return Response::Failed(error.to_string()),
                };
                let vote = convert::vote(vote);
                let (prev_log_id, leader_commit) = (previous.map(convert::log_id), committed.map(convert::log_id));
                self.append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }).await
            }
            Request::Vote(candidacy) => voted(self.raft.vote(vote_request(candidacy)).await),
            Request::PreVote(candidacy) => voted(self.raft.pre_vote(vote_request(candidacy)).await),
            Request::TransferLeader { from, to, last } => self.transfer(from, to, last).await,
            Request::Propose { request, command } => match self.log(request, command).await {
                Ok((index, reply)) => Response::Proposed { index, reply: codec::to_payload(&reply).into() },
                Err(not_taken) => refused(not_taken),
            },
            Request::ReadIndex => match self.read_index().await {
                Ok(index) => Response::ReadIndex(index),
                Err(not_taken) => refused(not_taken),
            },
            Request::Founded => match self.raft.is_initialized().await {
                Ok(founded) => Response::Founded(founded),
                Err(error) => Response::Failed(error.to_string()),
            },
            Request::AddMember { node, address } => members_changed(self.add(NodeId(node), address).await),
            Request::RemoveMember { node } => members_changed(self.remove(NodeId(node)).await),
            Request::WaitApplied(index) => match self.wait_applied(index).await {
                Ok(()) => Response::Applied,
                Err(not_taken) => refused(not_taken),
            },
            Request::WallTime if self.published.view.borrow().retired.contains(&from) => Response::Retired,
            Request::WallTime => Response::WallTime(self.clock.wall()),
        }
    }

    async fn install(&self, vote: Vote, bytes: Bytes) -> io::Result<Vote> {
        let (meta, _) = snapshot_parts(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let snapshot = Snapshot { meta: convert::snapshot_meta(meta)?, snapshot: bytes };
        let installed = self.raft.install_full_snapshot(convert::vote(vote), snapshot).await;
        let vote = convert::our_vote(&installed.map_err(|error| io::Error::other(error.to_string()))?.vote);
        // A snapshot of what is committed here anyway is not installed, and openraft says so at once, though the log may not be on disk yet.
        // The leader takes the answer as a promise, and would never send again what a power cut takes away.
        self.writer.commit(Vec::new()).await?;
        Ok(vote)
    }
}

fn vote_request(candidacy: Candidacy) -> VoteRequest<TypeConfig> {
    VoteRequest {
        vote: convert::vote(candidacy.vote),
        last_log_id: candidacy.last.map(convert::log_id),
        leadership_transfer: candidacy.transfer,
    }
}

fn voted(answer: Result<VoteResponse<TypeConfig>, RaftError<TypeConfig>>) -> Response {
    match answer {
        Ok(answer) => Response::Vote {
            vote: convert::our_vote(&answer.vote),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(convert::our_log_id),
        },
        Err(error) => Response::Failed(error.to_string()),
    }
}

fn members_changed(made: Result<(), NotTaken>) -> Response {
    made.map_or_else(refused, |()| Response::MembersChanged)
}

fn refused(not_taken: NotTaken) -> Response {
    match not_taken {
        NotTaken::NotLeader(leader) => Response::NotLeader { leader: leader.map(|leader| leader.0) },
        NotTaken::Failed(why) => Response::Failed(why),
    }
}

impl Handler for Member {
    fn answer(&self, from: NodeId, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let answered = timeout(REQUEST_TIME, self.serve(from, request)).await;
            answered.unwrap_or_else(|_| Response::Failed(format!("not done within {REQUEST_TIME:?}")))
        })
    }

    fn install(&self, from: NodeId, head: SnapshotHead, snapshot: Vec<u8>) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            tracing::info!(%from, bytes = snapshot.len(), "installing a snapshot");
            match Member::install(self, head.vote, snapshot.into()).await {
                Ok(vote) => Response::Vote { vote, granted: true, last: None },
                Err(error) => Response::Failed(error.to_string()),
            }
        })
    }
}

/// Why the core stopped, once it did.
pub(crate) async fn stopped(raft: &Raft) -> String {
    let mut metrics = raft.metrics();
    loop {
        let state: Result<(), Fatal<TypeConfig>> = metrics.borrow_watched().running_state.clone();
        if let Err(error) = state {
            return error.to_string();
        }
        if metrics.changed().await.is_err() {
            return "the consensus core ended".to_owned();
        }
    }
}
