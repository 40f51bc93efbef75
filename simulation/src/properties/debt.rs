//! DEBT: what is owed is carried into the next window, paid there or by windows in which nobody calls, and never lost; and no more is owed
//! than calls used that were not held as a whole: those that did not state the size of their answer, and one that had the rest of a limit
//! (or two: what others held meanwhile may come back, and be a rest again).
//!
//! Budgets are left out: their windows differ in length.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::resources::Unit;
use raft::state::MeterId;
use raft::{Timestamp, View};

use super::{Violation, usage};
use crate::world::{Observation, Shared};

/// How many calls of known size may have had a rest.
const RESTS: usize = 2;

/// What the ledger said last.
#[derive(Default)]
pub(super) struct Debts {
    /// The newest state that was looked at.
    applied: u64,
    meters: BTreeMap<MeterId, Owed>,
}

/// Of the last window that was seen.
#[derive(Clone, Copy)]
struct Owed {
    window: u64,
    ends: Timestamp,
    settled: u64,
    debt: u64,
}

impl Debts {
    pub(super) fn check(&mut self, seen: &Observation) -> Result<(), Violation> {
        let view = &seen.view;
        if view.applied <= self.applied {
            return Ok(());
        }
        self.applied = view.applied;
        self.meters.retain(|id, _| view.limit_of(id).is_some());
        for (id, owed) in &self.meters {
            check_kept(view, id, *owed)?;
        }
        for (id, meter) in view.meters.iter().filter(|(id, _)| has_length(id)) {
            if let (Some(window), Some(_)) = (&meter.window, view.limit_of(id)) {
                let (debt, settled) = (meter.debt, window.settled);
                let owed = Owed { window: window.number, ends: window.ends, settled, debt };
                self.meters.insert(id.clone(), owed);
            }
        }
        Ok(())
    }
}

/// Whether all windows of the limit have one length.
fn has_length(id: &MeterId) -> bool {
    !matches!(id.limit.unit, Unit::InProgress | Unit::Cost)
}

fn check_kept(view: &View, id: &MeterId, before: Owed) -> Result<(), Violation> {
    let meter = view.meters.get(id);
    let (window, debt) = meter.map_or((None, 0), |meter| (meter.window.as_ref(), meter.debt));
    let (settled, at) = match window {
        Some(window) if window.number == before.window => {
            if window.settled >= before.settled && debt >= before.debt {
                return Ok(());
            }
            let text = format!(
                "{} had used {} and owed {} in window {}, and later {} and {debt}",
                id.subject, before.settled, before.debt, before.window, window.settled
            );
            return Err(Violation::new("DEBT", text));
        }
        // What was carried into it is used there.
        Some(window) => (window.settled, Timestamp(window.ends.0 - millis(id))),
        None => (0, view.time),
    };
    let limit = view.limit_of(id).unwrap_or(0);
    let windows = at.0.saturating_sub(before.ends.0) / millis(id);
    let least = before.debt.saturating_sub(limit.saturating_mul(windows));
    if settled + debt >= least {
        return Ok(());
    }
    let text = format!(
        "{} owed {} after window {}; {windows} whole windows of {limit} later it is {}",
        id.subject,
        before.debt,
        before.window,
        settled + debt
    );
    Err(Violation::new("DEBT", text))
}

fn millis(id: &MeterId) -> u64 {
    u64::from(id.limit.window_seconds.max(1)) * 1000
}

/// Looks at what is owed at the end of a run in which no window ends.
pub(super) fn check(shared: &Shared, state: Option<Arc<View>>) -> Result<(), Violation> {
    let Some(state) = state.filter(|_| shared.plan.is_one_window() && shared.plan.usage_is_true()) else {
        return Ok(());
    };
    let mut calls: BTreeMap<String, (u64, Vec<u64>)> = BTreeMap::new();
    for usage::Used { user, is_stated, at_most } in usage::used(shared) {
        let (unstated, stated) = calls.entry(user).or_default();
        if is_stated { stated.push(at_most) } else { *unstated += at_most }
    }
    for (user, (unstated, mut stated)) in calls {
        let debt = state.meters.iter().find(|(id, _)| usage::is_of(id, &user)).map_or(0, |(_, meter)| meter.debt);
        stated.sort_unstable_by(|a, b| b.cmp(a));
        let most = unstated + stated.iter().take(RESTS).sum::<u64>();
        if debt > most {
            let text =
                format!("{user} owes {debt} tokens, and calls that were not held as a whole used at most {most}");
            return Err(Violation::new("DEBT", text));
        }
    }
    Ok(())
}
