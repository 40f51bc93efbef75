//! ENDS: every reservation ends exactly once. A meter never holds more for calls in progress than its limit, which it would if one
//! ended twice; and when nobody calls, it holds nothing.

use actors::quota::Holding;
use raft::state::MeterId;

use super::Violation;
use crate::world::Observation;

pub(super) fn check(seen: &Observation) -> Result<(), Violation> {
    at_most(|meter| seen.view.limit_of(meter).unwrap_or(u64::MAX), seen)
}

/// Once nobody calls any more.
pub(super) fn check_at_rest(seen: &Observation) -> Result<(), Violation> {
    at_most(|_| 0, seen)
}

fn at_most(most: impl Fn(&MeterId) -> u64, seen: &Observation) -> Result<(), Violation> {
    let too_much = |holding: &&Holding| holding.in_calls > most(&holding.meter);
    let Some(holding) = seen.holdings.iter().find(too_much) else { return Ok(()) };
    let held = holding.meter.limit.unit.written(holding.in_calls);
    let text = format!(
        "node {} holds {held} of {} for calls in progress, {} at most are expected",
        seen.node,
        holding.meter.subject,
        most(&holding.meter)
    );
    Err(Violation::new("ENDS", text))
}
