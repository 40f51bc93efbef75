//! Why a call cannot be held.

use std::time::Duration;

use raft::Timestamp;

use super::amount::Amount;
use super::slots::Slot;
use super::standing::{self, LimitStanding};
use crate::routing::{Name, Permit};

/// The least that a refused caller is asked to wait.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// Why no tokens were reserved.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuotaRefusal {
    /// A limit is used up, or held by calls in progress.
    #[error("{}", standing.refusal(subscription, *needed))]
    Exhausted {
        /// Whose limit.
        subscription: Name,
        /// The limit that refused.
        standing: LimitStanding,
        /// What the call would have needed.
        needed: u64,
        /// When a call of this size can be expected to pass: the window's end, or soon if calls in progress hold the tokens.
        retry_after: Duration,
    },
    /// The ledger cannot be reached, so nothing can be granted: fail closed.
    #[error("the quota ledger cannot be reached; retry in a moment")]
    Unavailable,
    /// The subscription or the limit has just been removed.
    #[error("the subscription's limits have changed; retry")]
    Changed,
}

/// The refusal of a call by `slot`.
pub(crate) fn exhausted(permit: &Permit, slot: &Slot, need: Amount, now: Timestamp, is_spent: bool) -> QuotaRefusal {
    let standing = standing::of(slot, Amount::default(), now);
    let retry_after = if is_spent { standing.resets_in.max(RETRY_AFTER_MIN) } else { RETRY_AFTER_MIN };
    let subscription = permit.subscription().id.clone();
    QuotaRefusal::Exhausted { subscription, standing, needed: slot.share_of(need), retry_after }
}
