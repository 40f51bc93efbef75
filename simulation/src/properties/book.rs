//! BOOK: a node's local allowance never has more than the ledger granted to that node. Whoever counts a grant twice admits beyond the
//! limit, and the ledger would take what was spent for an estimate that was too low.

use raft::NodeId;

use super::Violation;
use crate::world::Observation;

pub(super) fn check(seen: &Observation) -> Result<(), Violation> {
    for holding in &seen.holdings {
        let (Some(all), Some(meter)) = (holding.all, seen.view.meters.get(&holding.meter)) else { continue };
        // What is left in the local allowance of another window means nothing.
        let Some(window) = meter.window.as_ref().filter(|window| window.number == holding.window) else { continue };
        let node = NodeId(seen.node as u64);
        // A node that is taken out finishes its calls, and the ledger does not wait for them.
        if holding.meter.is_in_progress() && seen.view.retired.contains(&node) {
            continue;
        }
        // What was granted to a node that is taken out is put aside, and is still what it had.
        let aside = window.orphaned.get(&node).filter(|_| seen.view.retired.contains(&node));
        let granted = window.granted.get(&node).unwrap_or(&0) + aside.unwrap_or(&0);
        if all > granted {
            let written = |amount| holding.meter.limit.unit.written(amount);
            let text = format!(
                "node {} has {} of {} in window {}, the ledger granted it {}",
                seen.node,
                written(all),
                holding.meter.subject,
                holding.window,
                written(granted)
            );
            return Err(Violation::new("BOOK", text));
        }
    }
    Ok(())
}
