//! The replicated state, pure: no clock, no chance, no I/O, no `async`. Equal logs give equal states.
//!
//! All of it is kept in persistent maps, so a clone (a View, the start of a snapshot) shares structure and costs nothing.

mod key;
mod meter;
mod node;
mod object;
mod snapshot;
mod token;
mod view;

use std::sync::Arc;

use imbl::OrdMap;
use uuid::Uuid;

use crate::command::{Command, Reply};
use crate::ids::{NodeId, RequestId, Timestamp};
use crate::resources::{Object, ObjectKey};

pub use key::{ApiKey, KeyStatus};
pub use meter::{Meter, MeterId, MeterWindow};
pub use node::NodeLedger;
pub use token::Token;
pub use view::View;

/// Everything the cluster agrees on.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The log index of the last command applied.
    pub applied: u64,
    /// The state clock: the latest stamp applied. It never goes back.
    pub time: Timestamp,
    /// The log index of the last change to `objects`, `keys` or `tokens`: what depends only on them is rebuilt when it moves.
    pub access_version: u64,
    /// Resources.
    pub objects: OrdMap<ObjectKey, Arc<Object>>,
    /// API keys by id.
    pub keys: OrdMap<Uuid, Arc<ApiKey>>,
    /// API key ids by the hash of their secret.
    pub keys_by_hash: OrdMap<[u8; 32], Uuid>,
    /// Bearer tokens by hash.
    pub tokens: OrdMap<[u8; 32], Arc<Token>>,
    /// The quota ledger.
    pub meters: OrdMap<MeterId, Arc<Meter>>,
    /// Each node's last batch, so that a retry is harmless.
    pub nodes: OrdMap<NodeId, Arc<NodeLedger>>,
    /// Replies to recent requests, so that a retry is harmless; the oldest are forgotten.
    pub recent: OrdMap<RequestId, (u64, Reply)>,
}

/// What applying one command did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The answer for the proposer.
    pub reply: Reply,
    /// Whether anything in the state changed.
    pub changed: bool,
}

impl State {
    /// Applies one log entry: moves the state clock, and does what the command says or says why not.
    pub fn apply(&mut self, index: u64, request: RequestId, time: Timestamp, command: Command) -> Outcome {
        todo!("{index} {request:?} {time} {command:?}")
    }
}
