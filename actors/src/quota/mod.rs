//! Quota: the node's book. Tokens the ledger granted to this node are spent here with one atomic step; an empty book waits for a draw.

use std::time::Duration;

use raft::Timestamp;

use crate::routing::{Name, Permit};

/// Handle of the quota actor.
#[derive(Clone)]
pub struct Quota {}

impl Quota {
    /// Holds `tokens` in every limit of the permit, all or nothing. On a warm book this does not wait. `tokens` above a whole limit
    /// is cut to that limit, so that a large call is possible in a fresh window.
    pub async fn reserve(&self, permit: &Permit, tokens: u64) -> Result<Reservation, QuotaRefusal> {
        todo!("{:?} {tokens}", permit.subscription().id)
    }

    /// How many output tokens a call will probably need: what the caller asked for (`asked`, all choices together) unless that is far
    /// beyond what this subscription's calls to this model usually need; the learnt size if nothing was asked.
    pub fn output_estimate(&self, permit: &Permit, asked: Option<u64>) -> u64 {
        todo!("{:?} {asked:?}", permit.model().id)
    }
}

/// Tokens held in every limit of a permit. Dropping it charges what was last observed and returns the rest: exactly once, whatever happened.
pub struct Reservation {}

impl Reservation {
    /// What would be charged if the call ended now (total tokens: prompt and output). Starts at 0: a call that never reached a replica costs nothing.
    pub fn observe(&mut self, tokens: u64) {
        todo!("{tokens}")
    }

    /// How many tokens are held.
    pub fn tokens(&self) -> u64 {
        todo!()
    }

    /// Ends the call: charges `tokens`. `output` (tokens) teaches the output estimate.
    pub fn settle(self, tokens: u64, output: Option<u64>) {
        todo!("{tokens} {output:?}")
    }

    /// Where each limit stands for this user now, this reservation counted as used; the tightest first.
    pub fn standing(&self) -> Vec<LimitStanding> {
        todo!()
    }
}

/// One limit as a caller sees it. Tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitStanding {
    /// The limit.
    pub limit: u64,
    /// The window as written in the subscription: `1h`.
    pub window: String,
    /// The window's length in seconds.
    pub window_seconds: u32,
    /// Spent in this window (this node's newest knowledge).
    pub used: u64,
    /// Held by calls in progress and grants.
    pub reserved: u64,
    /// `limit - used - reserved`.
    pub remaining: u64,
    /// Until the window ends; the whole window if none is open.
    pub resets_in: Duration,
    /// When it ends, by the state clock.
    pub resets_at: Timestamp,
}

/// Why no tokens were reserved.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuotaRefusal {
    /// A limit is used up, or held by calls in progress.
    #[error(
        "token limit {limit} per {window} of subscription `{subscription}` reached: {used} used, {reserved} reserved by calls in progress, {needed} needed",
        limit = standing.limit, window = standing.window, used = standing.used, reserved = standing.reserved, subscription = subscription.name
    )]
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
