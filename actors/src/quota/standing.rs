//! Where a limit stands, as callers see it in headers and refusals.

use std::time::Duration;

use raft::Timestamp;

use super::book::{Slot, Slots};

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
    /// Held by calls in progress here, and by other nodes. What this node holds unused counts as remaining.
    pub reserved: u64,
    /// `limit - used - reserved`.
    pub remaining: u64,
    /// Until the window ends; the whole window if none is open.
    pub resets_in: Duration,
    /// When it ends, by the state clock.
    pub resets_at: Timestamp,
}

/// Every limit at `now`, the tightest first. `own` tokens of what is held count as used.
pub(super) fn of_slots(slots: &Slots, own: u64, now: Timestamp) -> Vec<LimitStanding> {
    let mut standings: Vec<LimitStanding> = slots.slots.iter().map(|slot| of(slot, own, now)).collect();
    standings.sort_by_key(|standing| (standing.remaining, standing.window_seconds));
    standings
}

/// One limit at `now`. `own` tokens of what is held count as used.
pub(super) fn of(slot: &Slot, own: u64, now: Timestamp) -> LimitStanding {
    let limit = slot.rule.limit;
    let window_seconds = slot.rule.id.window_seconds;
    let is_open = slot.meter.number != 0 && slot.meter.ends > now;
    let held = slot.meter.held();
    let own = slot.share_of(own).min(held);
    let (used, reserved) = match is_open {
        true => (slot.used().saturating_add(own), held - own + slot.elsewhere),
        false => (own, held - own),
    };
    let used = used.min(limit);
    let reserved = reserved.min(limit - used);
    let resets_at = match is_open {
        true => slot.meter.ends,
        false => now.plus(Duration::from_secs(window_seconds.into())),
    };
    LimitStanding {
        limit,
        window: slot.rule.window.clone(),
        window_seconds,
        used,
        reserved,
        remaining: limit - used - reserved,
        resets_in: resets_at.since(now),
        resets_at,
    }
}
