//! LIVE: when nothing breaks any more, calls are served, what was held is settled, and every node knows the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use raft::View;

use super::{Violation, ends, growth};
use crate::plan::UNLIMITED;
use crate::world::{Call, Ended, Observation, Phase, Shared, wall};

/// So long after the last fault a call may still fail: replicas are probed, elections are held.
const RECOVERY: Duration = Duration::from_secs(8);

/// What each node said last.
#[derive(Default)]
pub(super) struct Liveness {
    last: BTreeMap<usize, Observation>,
    asked_again: bool,
}

impl Liveness {
    pub(super) fn note(&mut self, seen: Observation) {
        self.last.insert(seen.node, seen);
    }

    /// A node's state at the end.
    pub(super) fn state(&self) -> Option<Arc<View>> {
        self.last.values().max_by_key(|seen| seen.view.applied).map(|seen| seen.view.clone())
    }

    pub(super) fn check(&mut self, shared: &Shared) -> Result<(), Violation> {
        let fail = |text: String| Err(Violation::new("LIVE", text));
        if let Some(call) = shared.calls.borrow().iter().find(|call| call.ended.is_none()) {
            return fail(format!("call {} on node {} never ended", call.id, call.node));
        }
        if let Some(call) = shared.admin.borrow().iter().find(|call| call.ended.is_none()) {
            return fail(format!("the administrators' call {:?} never ended", call.op));
        }
        let alive = shared.cluster_nodes();
        if let Some(lost) =
            shared.nodes.iter().position(|slot| slot.will_be_replaced() && slot.successor.get().is_none())
        {
            return fail(format!("no other node has taken the place of node {}", lost + 1));
        }
        let mut heads = Vec::new();
        for node in alive.iter().copied() {
            let slot = &shared.nodes[node - 1];
            let runs = slot.actors.borrow().is_some();
            let Some(seen) = self.last.get(&node).filter(|seen| runs && seen.start == slot.starts.get()) else {
                return fail(format!("node {node} does not run"));
            };
            if !seen.may_serve || seen.leader.is_none() {
                return fail(format!("node {node} does not serve; leader {:?}, term {}", seen.leader, seen.term));
            }
            if seen.members != alive {
                return fail(format!("node {node} says that {:?} are in the cluster, not {alive:?}", seen.members));
            }
            ends::check_at_rest(seen)?;
            growth::check_at_rest(shared, seen)?;
            for (id, meter) in &seen.view.meters {
                // The state clock stands still while nothing is written: a window may be over that it still has.
                let open = meter.window.iter().filter(|window| window.ends > wall());
                let granted = open.flat_map(|window| &window.granted);
                // What a lost node held comes free when the window ends.
                let held: u64 =
                    granted.filter(|(node, _)| alive.contains(&(node.0 as usize))).map(|(_, held)| held).sum();
                if held > 0 {
                    let held = id.limit.unit.written(held);
                    return fail(format!("{held} of {} are still held", id.subject));
                }
            }
            heads.push((node, seen.leader, seen.term, seen.view.applied));
        }
        if heads.windows(2).any(|pair| (pair[0].1, pair[0].2, pair[0].3) != (pair[1].1, pair[1].2, pair[1].3)) {
            return fail(format!("nodes do not agree on (node, leader, term, index): {heads:?}"));
        }
        // What engines did is asked for once all is quiet, and so is what nodes know: they last said it before the last call ended.
        if !std::mem::replace(&mut self.asked_again, true) {
            self.last.clear();
            shared.engines.iter().for_each(|engine| engine.ask_for_records());
            return fail("engines were not asked what they did".to_owned());
        }
        if shared.engines.iter().any(|engine| engine.has_orders()) {
            return fail("an engine does not answer".to_owned());
        }
        Ok(())
    }
}

/// Calls that began when everything had been well for a while.
pub(super) fn served(shared: &Shared) -> Result<(), Violation> {
    let Some(calm) = shared.began(Phase::Calm) else { return Ok(()) };
    let calls = shared.calls.borrow();
    let late: Vec<&Call> = calls.iter().filter(|call| call.began >= calm + RECOVERY).collect();
    let is_answered = |call: &&Call| matches!(call.ended, Some((_, Ended::Answered { .. })));
    if shared.plan.limit == UNLIMITED && !late.is_empty() && !late.iter().any(is_answered) {
        return Err(Violation::new("LIVE", "no call that began when all was well was answered".to_owned()));
    }
    for call in late {
        let lost = shared.nodes[call.node - 1].is_lost.get();
        let failed = match &call.ended {
            Some((_, Ended::Broken(_))) | None => true,
            Some((_, Ended::Refused(403))) => shared.keys.borrow()[call.key].revoking.is_none(),
            Some((_, Ended::Refused(429))) => shared.plan.limit == UNLIMITED && !shared.plan.has_many_limits,
            Some((_, Ended::Refused(_))) => true,
            Some((_, Ended::Answered { .. } | Ended::HungUp)) => false,
        };
        if failed && !lost {
            let text =
                format!("call {} on node {} began when all was well, and failed: {:?}", call.id, call.node, call.ended);
            return Err(Violation::new("LIVE", text));
        }
    }
    Ok(())
}
