//! Requests and answers between nodes, in our own types: the consensus library's never travel.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::Record;
use crate::ids::{RequestId, Timestamp};
use crate::storage::records::{Entry, LogId, Vote};

/// What one node asks of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Leader to follower: entries, or none as a heartbeat.
    Append {
        /// The leader's vote.
        vote: Vote,
        /// The entry before the first.
        previous: Option<LogId>,
        /// Consecutive.
        entries: Vec<Entry>,
        /// How far the cluster has committed.
        committed: Option<LogId>,
    },
    /// Candidate to voter.
    Vote(Candidacy),
    /// Candidate to voter: would you?
    PreVote(Candidacy),
    /// Leader to the one that shall lead next.
    TransferLeader {
        /// The leader's vote.
        from: Vote,
        /// Who shall lead.
        to: u64,
        /// What it must have.
        last: Option<LogId>,
    },
    /// To the leader: please log this command.
    Propose {
        /// The same id is applied once.
        request: RequestId,
        /// A [`crate::Command`], encoded.
        #[serde(with = "crate::codec::blob")]
        command: Bytes,
    },
    /// To the leader: what index contains everything that was acknowledged before now?
    ReadIndex,
    /// To anybody: answer when you have applied this index.
    WaitApplied(u64),
    /// To anybody: are you part of a cluster already?
    Founded,
    /// To the leader: please make this node a member.
    AddMember {
        /// Which.
        node: u64,
        /// Where its peers reach it.
        address: String,
    },
    /// To the leader: please remove this member.
    RemoveMember {
        /// Which.
        node: u64,
    },
    /// To anybody: what does your wall clock say?
    WallTime,
}

/// What a candidate says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Candidacy {
    /// The vote it wants.
    pub(crate) vote: Vote,
    /// The last entry it has.
    pub(crate) last: Option<LogId>,
    /// The leader asked it to.
    pub(crate) transfer: bool,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Response {
    /// To `Append`.
    Append(Appended),
    /// To `Vote` and `PreVote`.
    Vote {
        /// The voter's vote now.
        vote: Vote,
        /// Whether it was granted.
        granted: bool,
        /// The last entry the voter has.
        last: Option<LogId>,
    },
    /// To `TransferLeader`.
    Transfer(Transferred),
    /// To `Propose`: done at this index, with this answer (a [`crate::Reply`], encoded).
    Proposed {
        /// The log index.
        index: u64,
        /// The reply.
        #[serde(with = "crate::codec::blob")]
        reply: Bytes,
    },
    /// To `Propose` and `ReadIndex`: somebody else leads, or nobody that is known.
    NotLeader {
        /// Who does.
        leader: Option<u64>,
    },
    /// To `ReadIndex`.
    ReadIndex(u64),
    /// To `WaitApplied`.
    Applied,
    /// To `Founded`.
    Founded(bool),
    /// To `AddMember` and `RemoveMember`.
    MembersChanged,
    /// It could not be done; for people to read.
    Failed(String),
    /// To `WallTime`.
    WallTime(Timestamp),
    /// To `WallTime` of a node that was taken out: it may have been away then, and nobody else would tell it.
    Retired,
    /// To a snapshot that is still coming in or being installed, again and again: the sender goes on waiting for as long as it hears this.
    Installing,
}

/// What became of an `Append`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Appended {
    /// All of it is there.
    All,
    /// All up to this entry is there.
    Upto(Option<LogId>),
    /// The entry before the first is another one there.
    Conflict,
    /// The follower promised itself to another.
    HigherVote(Vote),
}

/// What became of a `TransferLeader`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Transferred {
    /// It stands for election.
    Accepted,
    /// It follows somebody else by now.
    VoteChanged(Vote),
    /// It does not have all entries.
    Behind(Option<LogId>),
}

/// A frame with a number, so that answers find their requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    /// Unique on its connection.
    pub(crate) number: u64,
    /// The request or the answer.
    pub(crate) body: T,
}

/// The first frame of a snapshot lane. Raw chunks follow. The receiver says
/// [`Response::Installing`] once a second, and in the end [`Response::Vote`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    /// The leader's vote.
    pub(crate) vote: Vote,
    /// How many bytes follow in chunks.
    pub(crate) length: u64,
}

/// Marks a raw chunk of a snapshot.
pub(crate) struct SnapshotChunk;

impl Record for Numbered<Request> {
    const TYPE: u16 = 22;
    const VERSION: u16 = 1;
}

impl Record for Numbered<Response> {
    const TYPE: u16 = 23;
    const VERSION: u16 = 1;
}

impl Record for SnapshotHead {
    const TYPE: u16 = 24;
    const VERSION: u16 = 1;
}

impl Record for SnapshotChunk {
    const TYPE: u16 = 25;
    const VERSION: u16 = 1;
}
