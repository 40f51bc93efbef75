//! The format of what is on disk: one type per record, none of them another library's, so that an upgrade of
//! the consensus library changes no byte. `tests/frozen.rs` holds the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, Record};
use crate::ids::{RequestId, Timestamp};

/// The format of the whole disk. Another number is refused at start.
pub const DISK_FORMAT: u32 = 4;

/// Names a log entry: who proposed it, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LogId {
    /// The leader's term.
    pub term: u64,
    /// The leader.
    pub node: u64,
    /// Its place in the log.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.term, self.node, self.index)
    }
}

/// What a node promised in an election.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The candidate.
    pub node: u64,
    /// Whether a quorum granted it: then it names a leader.
    pub committed: bool,
}

/// A log entry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub id: LogId,
    /// What it carries.
    pub payload: Payload,
}

/// What a log entry carries.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A change to the state.
    Normal(Sealed),
    /// Who is in the cluster from here on.
    Membership(Membership),
}

/// A proposal as the log carries it: the command stays encoded until it is applied, so it is encoded once in the
/// cluster and decoded once per node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sealed {
    /// The same id is applied once.
    pub request: RequestId,
    /// The state clock at the leader when it took the proposal.
    pub time: Timestamp,
    /// A [`crate::Command`], encoded.
    #[serde(with = "codec::blob")]
    pub command: Bytes,
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.command.len(), self.time)
    }
}

/// Who is in the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Voters: one set, or two while the membership changes.
    pub voters: Vec<BTreeSet<u64>>,
    /// Every node, learners included, and where its peers reach it.
    pub nodes: BTreeMap<u64, String>,
}

/// A position in the log; `None` is before its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogPointer(pub Option<LogId>);

/// Whose disk it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// [`DISK_FORMAT`].
    pub format: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The node's number.
    pub node: u64,
    /// The disk's own number, drawn at its first start: a node whose disk was replaced is known by it.
    pub disk: u128,
}

/// The disk of each node that was met.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerDisks(pub BTreeMap<u64, u128>);

/// How often the disk was started, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// What a snapshot contains. In the file it is followed by a record of the state.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry applied to it.
    pub last: Option<LogId>,
    /// The entry that made `membership`.
    pub membership_id: Option<LogId>,
    /// Who was in the cluster.
    pub membership: Membership,
}

/// Marks the record that holds an encoded [`crate::State`].
pub(crate) struct SnapshotBody;

macro_rules! records {
    ($($name:ident = $number:literal;)*) => {$(
        impl Record for $name {
            const TYPE: u16 = $number;
            const VERSION: u16 = 1;
        }
    )*};
}

records! {
    Entry = 1;
    Vote = 2;
    LogPointer = 3;
    Identity = 4;
    Incarnation = 5;
    SnapshotMeta = 6;
    SnapshotBody = 7;
    PeerDisks = 8;
}

macro_rules! to_and_from_bytes {
    ($($name:ident)*) => {$(
        impl $name {
            /// Its record.
            pub fn to_bytes(&self) -> Vec<u8> {
                codec::encode(self)
            }

            /// The record that `bytes` are. Errors: they are damaged, or another version's.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
                codec::decode(bytes)
            }
        }
    )*};
}

to_and_from_bytes! { Entry Vote LogPointer Identity Incarnation SnapshotMeta PeerDisks }

/// A whole snapshot file: a record of `meta`, then one of the encoded state.
pub(crate) fn snapshot_bytes(meta: &SnapshotMeta, state: &[u8]) -> Vec<u8> {
    let mut bytes = codec::encode(meta);
    bytes.extend_from_slice(&codec::encode_raw::<SnapshotBody>(state));
    bytes
}

/// What a snapshot file holds: its meta and the encoded state, both checked.
pub(crate) fn snapshot_parts(bytes: &[u8]) -> Result<(SnapshotMeta, &[u8]), DecodeError> {
    let end = codec::HEADER + codec::header(bytes)?.length;
    if bytes.len() < end {
        return Err(DecodeError::Short { have: bytes.len(), want: end });
    }
    let meta = codec::decode(&bytes[..end])?;
    Ok((meta, codec::decode_raw::<SnapshotBody>(&bytes[end..])?))
}
