//! REVOKED: a key is never admitted after its revocation returned, and a node admits nobody after it was taken out.

use super::Violation;
use crate::world::{Call, Ended, Shared};

pub(super) fn check(shared: &Shared) -> Result<(), Violation> {
    shared.calls.borrow().iter().try_for_each(|call| check_call(shared, call))
}

fn check_call(shared: &Shared, call: &Call) -> Result<(), Violation> {
    let violation = |what: &str, when| {
        let Call { id, node, began, ended, .. } = call;
        let text = format!("call {id} began at {began:?} on node {node}, after {what} at {when:?}: {ended:?}");
        Err(Violation::new("REVOKED", text))
    };
    if let Some(revoked) = shared.keys.borrow()[call.key].revoked
        && call.began > revoked
        && is_admitted(shared, call)
    {
        return violation("the revocation of its key had returned", revoked);
    }
    match shared.nodes[call.node - 1].taken_out.get() {
        Some(taken_out) if call.began > taken_out && is_admitted(shared, call) => {
            violation("that was taken out", taken_out)
        }
        Some(_) | None => Ok(()),
    }
}

/// 403 is what a revoked key gets; with 503 the node says that it does not know enough. Of a call that broke off the engines know.
fn is_admitted(shared: &Shared, call: &Call) -> bool {
    let seems_so = match &call.ended {
        Some((_, Ended::Answered { .. } | Ended::HungUp)) => true,
        Some((_, Ended::Refused(status))) => !matches!(status, 403 | 503),
        Some((_, Ended::Broken(_))) | None => false,
    };
    seems_so || shared.engines.iter().any(|engine| !engine.tokens_of(&call.id).is_empty())
}
