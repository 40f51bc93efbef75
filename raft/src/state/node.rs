//! What the ledger remembers of each node.

use serde::{Deserialize, Serialize};

use crate::command::QuotaGrant;

/// A node's last quota batch and its answer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NodeLedger {
    /// The node's current incarnation.
    pub incarnation: u64,
    /// Its last batch.
    pub sequence: u64,
    /// What it was answered.
    pub reply: Vec<QuotaGrant>,
}
