//! FAIR: one user's poison costs no other user a call, and an engine that hangs gets no new calls once that can be known.
//!
//! Only for runs in which nothing else breaks.

use std::time::Duration;

use super::Violation;
use crate::plan::{Fault, Planned};
use crate::world::{Call, Ended, Phase, Shared};

/// So long after an engine has stopped no node sends it new calls: until each node has a call there that waits, ten seconds in which
/// nothing moves, some probes, and what metrics lag.
const NOTICED: Duration = Duration::from_secs(20);

pub(super) fn check(shared: &Shared) -> Result<(), Violation> {
    let (Some(chaos), faults) = (shared.began(Phase::Chaos), &shared.plan.faults) else { return Ok(()) };
    let is_about_this = |planned: &Planned| matches!(planned.fault, Fault::Poison(_) | Fault::EngineHang(_));
    if faults.is_empty() || !faults.iter().all(is_about_this) {
        return Ok(());
    }
    let may_be_lost = |call: &Call, planned: &Planned| match planned.fault {
        Fault::Poison(user) => shared.keys.borrow()[call.key].user == user,
        _ => call.began < chaos + planned.at + NOTICED,
    };
    let calls = shared.calls.borrow();
    let lost = calls.iter().find(|call| is_lost(call) && !faults.iter().any(|planned| may_be_lost(call, planned)));
    match lost {
        None => Ok(()),
        Some(Call { id, node, began, ended, .. }) => {
            let text =
                format!("call {id} began at {began:?} on node {node}, had to be answered, and was not: {ended:?}");
            Err(Violation::new("FAIR", text))
        }
    }
}

fn is_lost(call: &Call) -> bool {
    match &call.ended {
        Some((_, Ended::Refused(status))) => *status >= 500,
        Some((_, Ended::Broken(_))) | None => true,
        Some((_, Ended::Answered { .. } | Ended::HungUp)) => false,
    }
}
