//! USAGE: what engines produced for answered calls is in the ledger: charged, owed, or stranded with a node that died.
//!
//! Only for windows that outlast the run: a window that ended took its numbers with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft::View;

use super::Violation;
use crate::world::{Ended, Shared};

/// Seconds; longer than any run.
const WHOLE_RUN: u64 = 3600;

pub(super) fn check(shared: &Shared, state: Option<Arc<View>>) -> Result<(), Violation> {
    // What an engine does not report is counted by the gateway as well as that goes.
    let is_reported = !shared.plan.faults.iter().any(|planned| planned.fault.hides_usage());
    let is_whole = shared.plan.window_seconds >= WHOLE_RUN && is_reported;
    let Some(state) = state.filter(|_| is_whole) else { return Ok(()) };
    let calls = shared.calls.borrow();
    let whole = calls.iter().filter(|call| matches!(call.ended, Some((_, Ended::Answered { .. }))));
    let answered: BTreeSet<String> = whole.map(|call| format!("chatcmpl-{}", call.id)).collect();
    let mut produced: BTreeMap<String, u64> = BTreeMap::new();
    for engine in &shared.engines {
        for record in engine.records.borrow().iter() {
            // What an engine made for a call that broke off is counted as well as that goes.
            if !answered.contains(record.request_id.as_str()) {
                continue;
            }
            let Some(user) = owner(&record.request_id) else {
                continue;
            };
            *produced.entry(user).or_default() += (record.prompt_tokens + record.produced_tokens) as u64;
        }
    }
    for (user, produced) in produced {
        let meter = state.meters.iter().find(|(id, _)| id.user == user).map(|(_, meter)| meter);
        let booked = meter.map_or(0, |meter| {
            let window = meter.window.as_ref();
            meter.debt + window.map_or(0, |window| window.settled + window.stranded.values().sum::<u64>())
        });
        if produced > booked {
            let text = format!("engines produced {produced} tokens for {user}, the ledger has {booked} of them");
            return Err(Violation::new("USAGE", text));
        }
    }
    Ok(())
}

/// The user whose call it was: `chatcmpl-u2h1c7` is user 2's.
fn owner(request_id: &str) -> Option<String> {
    let number = request_id.strip_prefix("chatcmpl-u")?.split('h').next()?.parse().ok()?;
    Some(crate::world::username(number))
}
