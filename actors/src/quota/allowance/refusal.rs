//! Why a call cannot be held.

use std::time::Duration;

use raft::{NodeId, Timestamp};

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
    #[error("{}", standing.refusal(subscription, *needed, silent))]
    Exhausted {
        /// Whose limit.
        subscription: Name,
        /// The limit that refused.
        standing: LimitStanding,
        /// What the call would have needed.
        needed: u64,
        /// When a call of this size can be expected to pass: the end of the last window that is spent or owed, or soon if calls in
        /// progress hold the tokens.
        retry_after: Duration,
        /// Nodes that hold some of it and do not answer: what they hold comes free when they are started again, or with the window's end.
        silent: Vec<NodeId>,
    },
    /// The ledger cannot be reached, so nothing can be granted: fail closed.
    #[error("the quota ledger cannot be reached; retry in a moment")]
    Unavailable,
    /// The subscription or the limit has just been removed.
    #[error("the subscription's limits have changed; retry")]
    Changed,
}

/// What keeps a call from being held.
pub(crate) struct Obstacle<'a> {
    /// The limit.
    pub(crate) slot: &'a Slot,
    /// Nothing that is held could help if it came back.
    pub(crate) is_spent: bool,
    /// Nodes that hold some of it and do not answer.
    pub(crate) silent: Vec<NodeId>,
}

impl Obstacle<'_> {
    /// The refusal of a call that needs `need`.
    pub(crate) fn refusal(self, permit: &Permit, need: Amount, now: Timestamp) -> QuotaRefusal {
        let Obstacle { slot, is_spent, silent } = self;
        let standing = standing::of(slot, 0, now);
        let retry_after = if is_spent { standing.free_in(now).max(RETRY_AFTER_MIN) } else { RETRY_AFTER_MIN };
        let subscription = permit.subscription().id.clone();
        QuotaRefusal::Exhausted { subscription, standing, needed: slot.share_of(need), retry_after, silent }
    }
}
