//! ENDS: every reservation ends exactly once. A meter never holds more for calls in progress than its limit, which it would if one
//! ended twice; and when nobody calls, it holds nothing.

use super::Violation;
use crate::world::{Observation, Shared};

pub(super) fn check(shared: &Shared, seen: &Observation) -> Result<(), Violation> {
    at_most(shared.plan.limit, seen)
}

/// Once nobody calls any more.
pub(super) fn check_at_rest(seen: &Observation) -> Result<(), Violation> {
    at_most(0, seen)
}

fn at_most(tokens: u64, seen: &Observation) -> Result<(), Violation> {
    let Some(holding) = seen.holdings.iter().find(|holding| holding.in_calls > tokens) else { return Ok(()) };
    let text = format!(
        "node {} holds {} tokens of {} for calls in progress, {tokens} at most are expected",
        seen.node, holding.in_calls, holding.meter.subject
    );
    Err(Violation::new("ENDS", text))
}
