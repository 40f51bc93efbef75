//! QUOTA: no meter admits beyond its limit in any window, a hard one owes nothing, and no window begins before the one before it has
//! ended. By the ledger's own numbers here; by what engines produced in `usage`.

use std::collections::BTreeMap;

use raft::Timestamp;
use raft::resources::{LimitScope, Unit};
use raft::state::MeterId;

use super::Violation;
use crate::world::{Observation, Shared};

/// By meter: the number and the end of the last window.
#[derive(Default)]
pub(super) struct Windows(BTreeMap<MeterId, (u64, Timestamp)>);

impl Windows {
    pub(super) fn check(&mut self, shared: &Shared, seen: &Observation) -> Result<(), Violation> {
        for (id, meter) in &seen.view.meters {
            let is_hard = match (id.limit.unit, id.limit.scope) {
                (Unit::InProgress, _) => true,
                (Unit::Total, LimitScope::User) | (Unit::Cost, _) => shared.plan.is_hard,
                _ => false,
            };
            if is_hard && meter.debt > 0 {
                let text = format!("{} owes {} tokens of a hard limit", id.subject, meter.debt);
                return Err(Violation::new("QUOTA", text));
            }
            let (Some(window), Some(limit)) = (&meter.window, seen.view.limit_of(id)) else { continue };
            let taken = window.settled + window.held();
            if taken > limit {
                let text = format!(
                    "of {} of {} in window {} there are {} settled and {} held",
                    id.limit.unit.written(limit),
                    id.subject,
                    window.number,
                    window.settled,
                    window.held()
                );
                return Err(Violation::new("QUOTA", text));
            }
            let last = self.0.entry(id.clone()).or_insert((window.number, window.ends));
            if window.number <= last.0 {
                continue;
            }
            // The next window begins at the end of this one, or later, and is as long. There are no ends where nothing is ever spent.
            if !id.is_in_progress() && window.ends < id.limit.window_end(last.1) {
                let text =
                    format!("window {} of {} began before window {} had ended", window.number, id.subject, last.0);
                return Err(Violation::new("QUOTA", text));
            }
            *last = (window.number, window.ends);
        }
        Ok(())
    }
}
