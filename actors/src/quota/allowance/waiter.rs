//! Calls that wait for tokens: first come, first served, in each set.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::amount::Amount;
use super::hold::Hold;
use super::refusal::QuotaRefusal;
use super::set::{MeterSet, Ticket};
use crate::routing::Permit;

/// A call that waits for tokens.
pub(crate) struct Waiter {
    pub(crate) permit: Permit,
    pub(crate) set: Arc<MeterSet>,
    pub(crate) need: Amount,
    pub(crate) since: Instant,
    reply: oneshot::Sender<Result<Hold, QuotaRefusal>>,
    /// Keeps later calls behind it.
    _place: Ticket,
}

impl Waiter {
    pub(super) fn new(
        permit: Permit,
        set: Arc<MeterSet>,
        need: Amount,
        reply: oneshot::Sender<Result<Hold, QuotaRefusal>>,
    ) -> Waiter {
        let _place = Ticket::new(&set);
        Waiter { permit, set, need, since: Instant::now(), reply, _place }
    }

    /// Whether the caller is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }

    /// Ends the wait. A hold that nobody takes any more settles itself.
    pub(crate) fn answer(self, answer: Result<Hold, QuotaRefusal>) {
        let _ = self.reply.send(answer);
    }
}
