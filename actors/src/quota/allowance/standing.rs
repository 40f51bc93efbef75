//! Where a limit stands, as callers see it in headers and refusals.

use std::sync::Arc;
use std::time::Duration;

use raft::Timestamp;
use raft::resources::{LimitKind, LimitScope, Price, Unit};

use super::amount::Amount;
use super::set::MeterSet;
use super::slots::Slot;
use crate::routing::Name;

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
    /// Of tokens, if it counts money.
    pub price: Price,
    /// The window as written in the subscription: `1h`; `month` for a budget; nothing for calls in progress.
    pub window: String,
    /// The window's length in seconds; 0 for what has no windows of one length.
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

impl LimitStanding {
    /// Why a call of this subscription was refused that needs so much.
    pub(super) fn refusal(&self, subscription: &Name, needed: u64) -> String {
        let (limit, name) = (self.unit.written(self.limit), &subscription.name);
        let amount = |amount: u64| match self.unit {
            Unit::Cost => self.unit.written(amount),
            _ => amount.to_string(),
        };
        let (used, reserved, needed) = (amount(self.used), amount(self.reserved), amount(needed));
        let window = &self.window;
        match self.unit {
            Unit::InProgress => {
                format!("limit of {limit} of subscription `{name}` reached: try again when one has ended")
            }
            Unit::Cost => format!(
                "budget of {limit} per {window} of subscription `{name}` used up: {used} used, {reserved} reserved by calls in progress, {needed} needed"
            ),
            Unit::Total | Unit::Input | Unit::Output | Unit::Requests => format!(
                "limit of {limit} per {window} of subscription `{name}` reached: {used} used, {reserved} reserved by calls in progress, {needed} needed"
            ),
        }
    }

    /// What a call of that size needs of it.
    pub fn share_of(&self, need: Amount) -> u64 {
        need.held_of(self.unit, self.price)
    }
}

/// Every limit of some sets at `now`, the tightest first. `own` of what is held counts as used.
pub(super) fn of_sets<'a>(
    sets: impl Iterator<Item = &'a Arc<MeterSet>>,
    own: Amount,
    now: Timestamp,
) -> Vec<LimitStanding> {
    let slots: Vec<_> = sets.map(|set| set.slots.load()).collect();
    of_slots(slots.iter().flat_map(|slots| &slots.slots), own, now)
}

fn of_slots<'a>(slots: impl Iterator<Item = &'a Slot>, own: Amount, now: Timestamp) -> Vec<LimitStanding> {
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
        false => slot.rule.id.limit.window_end(now),
    };
    LimitStanding {
        unit,
        scope,
        is_hard: slot.rule.is_hard,
        price: slot.rule.price,
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
