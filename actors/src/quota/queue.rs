//! Calls that wait for tokens: first come, first served, in each set.

use std::sync::Arc;
use std::time::Duration;

use raft::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::amount::Amount;
use super::book::{MeterSet, Slot, Ticket};
use super::reservation::Hold;
use super::{QuotaRefusal, standing};
use crate::routing::Permit;

/// The least that a refused caller is asked to wait.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// A call that waits for tokens.
pub(crate) struct Waiter {
    pub(super) permit: Permit,
    pub(super) set: Arc<MeterSet>,
    pub(super) need: Amount,
    pub(super) since: Instant,
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
        let _place = Ticket::draw(&set);
        Waiter { permit, set, need, since: Instant::now(), reply, _place }
    }

    /// Whether the caller is gone.
    pub(super) fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }

    /// Ends the wait. A hold that nobody takes any more settles itself.
    pub(super) fn answer(self, answer: Result<Hold, QuotaRefusal>) {
        let _ = self.reply.send(answer);
    }
}

/// The refusal of a call by `slot`.
pub(super) fn exhausted(permit: &Permit, slot: &Slot, need: Amount, now: Timestamp, is_spent: bool) -> QuotaRefusal {
    let standing = standing::of(slot, Amount::default(), now);
    let retry_after = if is_spent { standing.resets_in.max(RETRY_AFTER_MIN) } else { RETRY_AFTER_MIN };
    let subscription = permit.subscription().id.clone();
    QuotaRefusal::Exhausted { subscription, standing, needed: slot.share_of(need), retry_after }
}
