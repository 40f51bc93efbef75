//! Where a limit stands, as callers see it in headers and refusals.

use std::time::Duration;

use raft::Timestamp;
use raft::resources::{LimitKind, LimitScope, Unit};

use super::amount::Amount;
use super::book::Slot;

/// One limit as a caller sees it, in its unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitStanding {
    /// What it counts.
    pub unit: Unit,
    /// Who shares it.
    pub scope: LimitScope,
    /// Nothing may ever be used beyond it: a smaller call is possible where a larger one was refused.
    pub is_hard: bool,
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

/// Every limit at `now`, the tightest first. `own` of what is held counts as used.
pub(super) fn of_slots<'a>(slots: impl Iterator<Item = &'a Slot>, own: Amount, now: Timestamp) -> Vec<LimitStanding> {
    let mut standings: Vec<LimitStanding> = slots.map(|slot| of(slot, own, now)).collect();
    standings.sort_by_key(|standing| (standing.remaining, standing.window_seconds));
    standings
}

/// One limit at `now`. `own` of what is held counts as used.
pub(super) fn of(slot: &Slot, own: Amount, now: Timestamp) -> LimitStanding {
    let limit = slot.rule.limit;
    let LimitKind { window_seconds, unit, scope } = slot.rule.id.limit;
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
        unit,
        scope,
        is_hard: slot.rule.is_hard,
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
