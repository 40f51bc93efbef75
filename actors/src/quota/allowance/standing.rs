//! Where a limit stands, as callers see it in headers and refusals.

use std::sync::Arc;
use std::time::Duration;

use raft::resources::{LimitKind, LimitScope, Price, Unit};
use raft::{NodeId, Timestamp};

use super::amount::Amount;
use super::hold::Hold;
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
    /// Owed to later windows: used beyond what this one had.
    pub debt: u64,
    /// Until the window ends; the whole window if none is open.
    pub resets_in: Duration,
    /// When it ends, by the state clock.
    pub resets_at: Timestamp,
}

impl LimitStanding {
    /// Until the first window of which something is free: after this one those that debt uses up, as a whole or before anybody calls.
    pub(super) fn free_in(&self, now: Timestamp) -> Duration {
        /// Longer than any process runs.
        const WINDOWS_MAX: u64 = 10_000;
        let kind = LimitKind { window_seconds: self.window_seconds, unit: self.unit, scope: self.scope };
        let owed = self.debt.checked_div(self.limit).unwrap_or(0).min(WINDOWS_MAX);
        // Months differ in length.
        (0..owed).fold(self.resets_at, |end, _| kind.window_end(end)).since(now)
    }

    /// Why a call of this subscription was refused that needs so much. `silent`: nodes that hold some of it and do not answer.
    pub(super) fn refusal(&self, subscription: &Name, needed: u64, silent: &[NodeId]) -> String {
        let (limit, name) = (self.unit.written(self.limit), &subscription.name);
        let amount = |amount: u64| match self.unit {
            Unit::Cost => self.unit.written(amount),
            _ => amount.to_string(),
        };
        let (used, reserved, needed) = (amount(self.used), amount(self.reserved), amount(needed));
        let window = &self.window;
        let owed = if self.debt > 0 { format!(", {} owed", amount(self.debt)) } else { String::new() };
        let fits = amount(self.remaining);
        let told = match self.unit {
            Unit::InProgress => {
                format!("limit of {limit} of subscription `{name}` reached: try again when one has ended")
            }
            Unit::Cost => format!(
                "budget of {limit} per {window} of subscription `{name}` used up: {used} used{owed}, {reserved} reserved by calls in progress, {needed} needed, {fits} would fit now"
            ),
            Unit::Total | Unit::Input | Unit::Output | Unit::Requests => format!(
                "limit of {limit} per {window} of subscription `{name}` reached: {used} used{owed}, {reserved} reserved by calls in progress, {needed} needed, {fits} would fit now"
            ),
        };
        match silent {
            [] => told,
            [node] => format!("{told}; node {node} holds some of it and does not answer"),
            nodes => {
                let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
                format!("{told}; nodes {} hold some of it and do not answer", nodes.join(", "))
            }
        }
    }

    /// What a call of that size needs of it.
    pub fn share_of(&self, need: Amount) -> u64 {
        need.held_of(self.unit, self.price)
    }
}

/// Every limit of some sets at `now`, the tightest first.
pub(super) fn of_sets<'a>(sets: impl Iterator<Item = &'a Arc<MeterSet>>, now: Timestamp) -> Vec<LimitStanding> {
    let slots: Vec<_> = sets.map(|set| set.slots.load()).collect();
    sorted(slots.iter().flat_map(|slots| &slots.slots).map(|slot| of(slot, 0, now)).collect())
}

/// Every limit that a call holds something of at `now`, the tightest first. What it holds counts as used.
pub(super) fn of_holds(holds: &[Hold], now: Timestamp) -> Vec<LimitStanding> {
    let of_hold = |hold: &Hold| -> Vec<LimitStanding> {
        let own = |slot: &Slot| hold.parts().find(|(held, _)| held.rule.id == slot.rule.id).map_or(0, |(_, own)| own);
        hold.set.slots.load().slots.iter().map(|slot| of(slot, own(slot), now)).collect()
    };
    sorted(holds.iter().flat_map(of_hold).collect())
}

fn sorted(mut standings: Vec<LimitStanding>) -> Vec<LimitStanding> {
    standings.sort_by_key(|standing| (standing.remaining, standing.window_seconds));
    standings
}

/// One limit at `now`. `own` of what is held counts as used.
pub(super) fn of(slot: &Slot, own: u64, now: Timestamp) -> LimitStanding {
    let limit = slot.rule.limit;
    let LimitKind { window_seconds, unit, scope } = slot.rule.id.limit;
    let is_open = slot.meter.number != 0 && slot.meter.ends > now;
    let held = slot.meter.held();
    let own = own.min(held);
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
        debt: slot.debt(),
        resets_in: resets_at.since(now),
        resets_at,
    }
}
