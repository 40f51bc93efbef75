//! ENDS: every reservation ends exactly once. A meter never holds more for calls in progress than its limit, which it would if one
//! ended twice; and when nobody calls, it holds nothing.

use super::Violation;
use crate::world::{Observation, Shared};

pub(super) fn check(shared: &Shared, seen: &Observation) -> Result<(), Violation> {
    match seen.held.iter().find(|(_, held)| *held > shared.plan.limit) {
        None => Ok(()),
        Some((id, held)) => {
            let text = format!("node {} holds {held} tokens of {} for calls in progress", seen.node, id.user);
            Err(Violation::new("ENDS", text))
        }
    }
}

/// Once nobody calls any more.
pub(super) fn check_at_rest(seen: &Observation) -> Result<(), Violation> {
    match seen.held.iter().find(|(_, held)| *held > 0) {
        None => Ok(()),
        Some((id, held)) => {
            let text = format!("nobody calls, and node {} still holds {held} tokens of {}", seen.node, id.user);
            Err(Violation::new("ENDS", text))
        }
    }
}
