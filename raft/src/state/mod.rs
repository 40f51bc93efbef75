//! The replicated state, pure: no clock, no chance, no I/O, no `async`. Equal logs give equal states.
//!
//! All of it is kept in persistent maps, so a clone (a View, the start of a snapshot) shares structure and costs nothing.
//! One entity per file: what it is, and how each of its commands changes it. The steps come in the same order each time:
//! check what must hold, change, reply.

mod founding;
mod key;
mod meter;
mod node;
mod object;
mod recent;
mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod token;
mod usage;
mod view;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};
use uuid::Uuid;

use crate::command::{Command, CommandRefusal, Reply};
use crate::ids::{NodeId, RequestId, Timestamp};
use crate::resources::{Object, ObjectKey};
use key::KeysOfOwner;

pub use key::{ApiKey, KEY_DESCRIPTION_BYTES_MAX, KEY_LABELS_BYTES_MAX, KEY_NAME_BYTES_MAX, KeyStatus};
pub use meter::{Meter, MeterId, MeterReading, MeterWindow, Subject};
pub use node::NodeLedger;
pub use snapshot::SnapshotError;
pub use token::Token;
pub use usage::{USAGE_DAYS_KEPT, USAGE_HOURS_KEPT, Usage, UsageKey, UsageLabels, UsageRow, UsageSum};
pub use view::View;

/// Everything the cluster agrees on.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The log index of the last command applied.
    pub applied: u64,
    /// The state clock: the latest stamp applied. It never goes back.
    pub time: Timestamp,
    /// The log index of the last change to `objects`, `keys` or `tokens`: what depends only on them is rebuilt when it moves. The last
    /// use of a key or token is no such change, nor is that one is forgotten that has ended.
    pub access_version: u64,
    /// Resources.
    pub objects: OrdMap<ObjectKey, Arc<Object>>,
    /// API keys by id.
    pub keys: OrdMap<Uuid, Arc<ApiKey>>,
    /// API key ids by the hash of their secret.
    pub keys_by_hash: OrdMap<[u8; 32], Uuid>,
    /// Bearer tokens by hash.
    pub tokens: OrdMap<[u8; 32], Arc<Token>>,
    /// Hashes of tokens without an expiry that were revoked: a configuration file may still have them. It only grows, by one for each
    /// such revocation.
    pub revoked_tokens: OrdSet<[u8; 32]>,
    /// The quota ledger.
    pub meters: OrdMap<MeterId, Arc<Meter>>,
    /// What was used, by whom.
    pub usage: Usage,
    /// The meters of which some node wants tokens that other nodes hold: every node gives back what it is not using of them.
    pub recalled: OrdSet<MeterId>,
    /// Each node's last batch, so that a retry is harmless.
    pub nodes: OrdMap<NodeId, Arc<NodeLedger>>,
    /// Nodes that were taken out for good. It only grows, so that no number is used again.
    pub retired: OrdSet<NodeId>,
    /// Replies to recent requests, so that a retry is harmless; the oldest are forgotten.
    pub recent: OrdMap<RequestId, (u64, Reply)>,

    // What follows is derived from the above and rebuilt when a snapshot is read.
    /// API keys by their owner.
    keys_by_owner: OrdMap<String, KeysOfOwner>,
    /// API keys by their end, so that they can be forgotten in time; not the ephemeral ones.
    key_ends: OrdSet<(Timestamp, Uuid)>,
    /// Ephemeral API keys by their end.
    ephemeral_ends: OrdSet<(Timestamp, Uuid)>,
    /// Tokens that stand for no ServiceAccount, by their user: they may bring groups that nothing else names.
    tokens_by_user: OrdMap<String, OrdSet<[u8; 32]>>,
    /// The other tokens, by their ServiceAccount.
    tokens_by_account: OrdMap<ObjectKey, OrdSet<[u8; 32]>>,
    /// Tokens that end by themselves, by when they do.
    token_ends: OrdSet<(Timestamp, [u8; 32])>,
    /// Meters by when they have to be looked at again.
    meters_due: OrdSet<(Timestamp, MeterId)>,
    /// Keys of `recent`, oldest first.
    recent_order: Vector<RequestId>,
}

/// What applying one command did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The answer for the proposer.
    pub reply: Reply,
    /// Whether anything in the state changed; `applied`, `time` and what is forgotten aside.
    pub changed: bool,
}

impl Outcome {
    fn changed(reply: Reply) -> Outcome {
        Outcome { reply, changed: true }
    }

    fn unchanged(reply: Reply) -> Outcome {
        Outcome { reply, changed: false }
    }
}

impl From<Result<Outcome, CommandRefusal>> for Outcome {
    fn from(result: Result<Outcome, CommandRefusal>) -> Outcome {
        result.unwrap_or_else(|refusal| Outcome::unchanged(Reply::Refused(refusal)))
    }
}

impl State {
    /// Applies one log entry: moves the state clock, and does what the command says or says why not.
    pub fn apply(&mut self, index: u64, request: RequestId, time: Timestamp, command: Command) -> Outcome {
        self.move_to(index, time);
        self.forget_ended_keys();
        self.forget_ended_tokens();
        if let Command::Quota(batch) = command {
            // A node's batches are numbered, so their replies need no place among the recent ones.
            return self.apply_quota(index, &batch).into();
        }
        if let Some(reply) = self.earlier_reply(request) {
            return Outcome::unchanged(reply);
        }
        let outcome = Outcome::from(self.change(index, command));
        self.remember(index, request, outcome.reply.clone());
        outcome
    }

    fn change(&mut self, index: u64, command: Command) -> Result<Outcome, CommandRefusal> {
        match command {
            Command::CreateObject { object, uid } => self.create_object(index, object, uid),
            Command::UpdateObject { object, resource_version } => self.update_object(index, object, resource_version),
            Command::DeleteObject { key, resource_version, uid } => {
                self.delete_object(index, &key, resource_version, uid)
            }
            Command::CreateKey(key) => self.create_key(index, key),
            Command::RevokeKey { id, owner } => self.revoke_key(index, id, owner.as_deref()),
            Command::RevokeKeys { username } => Ok(self.revoke_keys(index, &username)),
            Command::TouchKeys(uses) => Ok(self.touch_keys(&uses)),
            Command::CreateToken(token) => self.create_token(index, token),
            Command::Quota(batch) => self.apply_quota(index, &batch),
            Command::RetireNode { node } => self.retire_node(node),
            Command::IssueKey { key, token } => self.issue_key(index, key, &token),
            Command::RevokeToken { hash } => self.revoke_token(index, &hash),
            Command::TouchTokens(uses) => Ok(self.touch_tokens(&uses)),
            Command::MakeKey { key, token, seen } => self.make_key(index, key, &token, seen),
            Command::MakeToken { token, seen } => self.make_token(index, token, seen),
        }
    }

    /// Time and index only ever grow, whatever a leader with a bad clock stamps.
    fn move_to(&mut self, index: u64, time: Timestamp) {
        if self.time == Timestamp::default() {
            self.date_founding(time);
        }
        self.applied = self.applied.max(index);
        self.time = self.time.max(time);
    }
}
