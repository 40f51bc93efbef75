//! QUOTA: no meter admits beyond its limit in any window. By the ledger's own numbers here; by what engines produced in `usage`.

use super::Violation;
use crate::world::{Observation, Shared};

pub(super) fn check(shared: &Shared, seen: &Observation) -> Result<(), Violation> {
    let limit = shared.plan.limit;
    for (id, meter) in &seen.view.meters {
        let Some(window) = &meter.window else { continue };
        let taken = window.settled + window.held();
        if taken > limit {
            let text = format!(
                "of {limit} tokens of {} in window {} there are {} settled and {} held",
                id.user,
                window.number,
                window.settled,
                window.held()
            );
            return Err(Violation::new("QUOTA", text));
        }
    }
    Ok(())
}
