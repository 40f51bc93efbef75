//! Everything that can change the cluster's state, and every answer to it.
//!
//! The order of variants and fields is the log format (bincode writes positions, not names): variants are
//! only added at the end, and a changed payload is a new variant. `tests/frozen.rs` holds the bytes.

mod acquire;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{NodeId, RequestId, Timestamp};
use crate::resources::{NewObject, Object, ObjectKey};
use crate::state::{ApiKey, MeterId, UsageRow};

pub use acquire::Acquire;

/// What the log carries: a command, named and stamped by the leader.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// The same id is applied once.
    pub request: RequestId,
    /// The state clock at the leader when it took the proposal.
    pub time: Timestamp,
    /// What to do.
    pub command: Command,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.command.name(), self.time)
    }
}

/// A change to the state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Creates an object; refused if it exists or its namespace does not.
    CreateObject {
        /// The object.
        object: NewObject,
        /// Its uid, drawn by the proposer.
        uid: Uuid,
    },
    /// Replaces an object.
    UpdateObject {
        /// The object.
        object: NewObject,
        /// Refused unless this is its current version.
        resource_version: Option<u64>,
    },
    /// Removes an object, and what cannot live without it: a namespace's objects, a service account's tokens. The service account's
    /// keys are revoked.
    DeleteObject {
        /// Which.
        key: ObjectKey,
        /// Refused unless this is its current version.
        resource_version: Option<u64>,
        /// Refused unless this is its uid.
        uid: Option<Uuid>,
    },
    /// Records a new API key.
    CreateKey(NewKey),
    /// Revokes an API key for ever. Refused if unknown or revoked already.
    RevokeKey {
        /// The key's id.
        id: Uuid,
        /// Refused as unknown unless this user owns it.
        owner: Option<String>,
    },
    /// Revokes every active key of a user.
    RevokeKeys {
        /// The owner.
        username: String,
    },
    /// Notes when keys were last used. Coarse: at most once a minute and key.
    TouchKeys(Vec<(Uuid, Timestamp)>),
    /// Records a bearer token (bootstrap admin, service account) by its hash.
    CreateToken(NewToken),
    /// What one node spent, gives back and acquires.
    Quota(QuotaBatch),
    /// Takes a node out for good: it must not admit calls again, and nothing is granted to it. Done at once if it was taken out
    /// already; refused if it is the last that the ledger knows.
    RetireNode {
        /// The node.
        node: NodeId,
    },
    /// Records a new API key that the bearer of a token asks for. Refused unless the token works and is the owner's: an owner who is
    /// withdrawn while the key is being made gets none. Logs have it; [`Command::MakeKey`] is what is proposed now.
    IssueKey {
        /// The key.
        key: NewKey,
        /// SHA-256 of the token.
        token: [u8; 32],
    },
    /// Ends a bearer token for ever. Refused if it is unknown. The hash of a token without an expiry is remembered, so that no file
    /// brings the token back.
    RevokeToken {
        /// SHA-256 of the token.
        hash: [u8; 32],
    },
    /// Notes when tokens were last used, by their hash. Coarse: at most once a minute and token.
    TouchTokens(Vec<([u8; 32], Timestamp)>),
    /// As [`Command::IssueKey`], within the bounds of what one user may have (`state/key/bounds.rs`). Refused, too, if it may be a
    /// repetition that is so late that nobody can tell: the key may have been revoked and forgotten since.
    MakeKey {
        /// The key.
        key: NewKey,
        /// SHA-256 of the token.
        token: [u8; 32],
        /// The log index that the proposer had applied.
        seen: u64,
    },
    /// As [`Command::CreateToken`] for a ServiceAccount, within the bound of what one account may have, and refused like
    /// [`Command::MakeKey`] if it comes too late.
    MakeToken {
        /// The token.
        token: NewToken,
        /// The log index that the proposer had applied.
        seen: u64,
    },
}

impl Command {
    /// A short name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Command::CreateObject { .. } => "create-object",
            Command::UpdateObject { .. } => "update-object",
            Command::DeleteObject { .. } => "delete-object",
            Command::CreateKey(_) => "create-key",
            Command::RevokeKey { .. } => "revoke-key",
            Command::RevokeKeys { .. } => "revoke-keys",
            Command::TouchKeys(_) => "touch-keys",
            Command::CreateToken(_) => "create-token",
            Command::Quota(_) => "quota",
            Command::RetireNode { .. } => "retire-node",
            Command::IssueKey { .. } => "issue-key",
            Command::RevokeToken { .. } => "revoke-token",
            Command::TouchTokens(_) => "touch-tokens",
            Command::MakeKey { .. } => "make-key",
            Command::MakeToken { .. } => "make-token",
        }
    }
}

/// An API key to be recorded. The secret itself never gets here: only its hash does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NewKey {
    /// Its id.
    pub id: Uuid,
    /// SHA-256 of `key_id || 0x00 || secret`.
    pub hash: [u8; 32],
    /// What its owner calls it.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// The owner's user name.
    pub username: String,
    /// The owner's groups at creation. They count where the Tenant says `spec.apiKeys.groups: frozen`.
    pub groups: Vec<String>,
    /// The name of the MaaSSubscription it is bound to.
    pub subscription: String,
    /// When it stops working.
    pub expires: Timestamp,
    /// Hidden from searches unless asked for.
    pub ephemeral: bool,
    /// Free labels.
    pub labels: Vec<(String, String)>,
}

/// A bearer token to be recorded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NewToken {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Whom it stands for.
    pub username: String,
    /// The groups it brings beside those that Group objects give its user.
    pub groups: Vec<String>,
    /// When it stops working; `None`: never.
    pub expires: Option<Timestamp>,
    /// The ServiceAccount whose deletion ends it.
    pub service_account: Option<ObjectKey>,
}

/// What one node reports to, and wants from, the ledger. At most one is in flight per node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QuotaBatch {
    /// The node.
    pub node: NodeId,
    /// Counts the node's starts. A batch of an earlier incarnation is ignored.
    pub incarnation: u64,
    /// Counts the incarnation's batches from 1. A repeated number gets the first answer again.
    pub sequence: u64,
    /// One entry per meter.
    pub entries: Vec<QuotaEntry>,
    /// What calls used that ended on the node: those whose tokens the entries charge.
    pub usage: Vec<UsageRow>,
    /// What is known of the node's earlier incarnations.
    pub earlier: EarlierIncarnations,
}

/// What a node's journal says of its earlier incarnations, the usage of their calls being in the batch's.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct EarlierIncarnations {
    /// What they spent, and what nobody used of what they held.
    pub entries: Vec<EarlierEntry>,
    /// This is the last that can be told of them.
    pub is_all: bool,
}

/// One window's part of [`EarlierIncarnations`], in the limit's unit. It is about what is orphaned there, and nothing else.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EarlierEntry {
    /// The meter.
    pub meter: MeterId,
    /// The window.
    pub window: u64,
    /// Spent. What is beyond the orphaned is charged as excess.
    pub spent: u64,
    /// Given back.
    pub returned: u64,
}

/// One meter's part of a [`QuotaBatch`]. All amounts are tokens.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QuotaEntry {
    /// The meter.
    pub meter: MeterId,
    /// The window that `spent` and `returned` belong to; 0 when both are 0.
    pub window: u64,
    /// Spent out of what this node was granted in that window.
    pub spent: u64,
    /// Given back out of what this node was granted in that window.
    pub returned: u64,
    /// Spent beyond any reservation: charged to the current window as far as it is free, else owed as debt.
    pub excess: u64,
    /// Wanted from the current window.
    #[serde(with = "acquire::written")]
    pub acquire: Option<Acquire>,
}

/// What the ledger answers to one entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuotaGrant {
    /// Newly granted to the node, in tokens; 0 if nothing was acquired or the acquire was refused.
    pub granted: u64,
    /// The window it belongs to; 0 if the meter has no limit any more or no window is open.
    pub window: u64,
    /// When that window ends, by the state clock.
    pub ends: Timestamp,
}

/// The answer to a command.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done; nothing to tell.
    Done,
    /// The object as it is now (as it was, for a deletion).
    Object(Arc<Object>),
    /// The key as it is now.
    Key(Arc<ApiKey>),
    /// So many keys were revoked.
    Revoked(u64),
    /// One answer per entry of the batch, in order.
    Quota(Vec<QuotaGrant>),
    /// Nothing changed, and why.
    Refused(CommandRefusal),
}

/// Why a command changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum CommandRefusal {
    /// The object exists.
    #[error("{0} already exists")]
    AlreadyExists(ObjectKey),
    /// The object does not exist.
    #[error("{0} not found")]
    ObjectNotFound(ObjectKey),
    /// The namespace does not exist.
    #[error("namespace `{0}` not found: create it first")]
    NamespaceNotFound(String),
    /// Somebody else changed it in between.
    #[error("{key} is at resourceVersion {current}, not {wanted}: read it again and retry")]
    Conflict {
        /// Which object.
        key: ObjectKey,
        /// What the caller wanted to change.
        wanted: u64,
        /// What is there.
        current: u64,
    },
    /// It is another object of the same name.
    #[error("{0} has another uid: it was deleted and created again")]
    UidMismatch(ObjectKey),
    /// No such key, or not active, or somebody else's.
    #[error("api key not found")]
    KeyNotFound,
    /// An id or a hash was drawn twice, which chance does not do.
    #[error("the id or hash is taken")]
    Duplicate,
    /// A batch of an incarnation that has ended, or out of order.
    #[error("quota batch {sequence} of incarnation {incarnation} is stale")]
    StaleBatch {
        /// As sent.
        incarnation: u64,
        /// As sent.
        sequence: u64,
    },
    /// Without this node nobody would be left to serve.
    #[error("node {0} is the last one: add another before it is taken out")]
    LastNode(NodeId),
    /// The token that somebody shows or names is not there (any more).
    #[error("the token is unknown, has expired or was revoked")]
    TokenNotFound,
    /// The token was revoked once.
    #[error("the token was revoked and is never accepted again: use another")]
    TokenRevoked,
    /// The user has as many working keys as one user may have.
    #[error("you have {max} API keys that work, as many as one user may have: revoke one that is not needed")]
    TooManyKeys {
        /// The bound.
        max: u64,
    },
    /// A field of the key is too long.
    #[error("{field}: {bytes} bytes, at most {max} are kept")]
    KeyFieldTooLong {
        /// Its name.
        field: String,
        /// As sent.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// The texts of the user's keys are as long as those of one user may be.
    #[error(
        "the names, descriptions, labels and groups of your API keys have {max} bytes together, as many as are kept for one user: use shorter ones, or revoke keys"
    )]
    KeyTextUsedUp {
        /// The bound.
        max: u64,
    },
    /// The ServiceAccount has as many valid tokens as one may have.
    #[error(
        "{account} has {max} valid tokens, as many as one account may have: revoke some, or wait until they expire"
    )]
    TooManyTokens {
        /// The ServiceAccount.
        account: ObjectKey,
        /// The bound.
        max: u64,
    },
    /// So much was written since the request was made that nobody can tell whether it was applied before.
    #[error("too much was written since the request was made: make a new one")]
    TooLate,
}
