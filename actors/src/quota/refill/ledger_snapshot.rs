//! What the refill reads at the beginning of each message: one View, one time, one batch in flight. It has nothing to do with the
//! snapshots of Raft.

use std::sync::Arc;

use raft::{NodeId, Timestamp, View};
use tokio::time::Instant;

use super::outbox::Outbox;
use super::reading;
use crate::quota::ledger::Ledger;

/// See the module.
pub(super) struct LedgerSnapshot {
    pub(super) view: Arc<View>,
    pub(super) node: NodeId,
    pub(super) now: Timestamp,
    pub(super) instant: Instant,
    /// Whether the batch in flight is in the View. Until its answer is handled, what it acquires is neither in the local allowance nor
    /// available.
    pub(super) is_answer_due: bool,
}

impl LedgerSnapshot {
    pub(super) fn now(ledger: &Ledger, outbox: &Outbox) -> LedgerSnapshot {
        let view = ledger.view();
        let now = ledger.now_in(&view);
        let node = ledger.node();
        let is_answer_due = outbox.in_flight().is_some_and(|in_flight| reading::has_applied(&view, &in_flight.batch));
        LedgerSnapshot { view, node, now, instant: Instant::now(), is_answer_due }
    }
}
