//! REVOKED: a key is never admitted after its revocation returned.

use super::Violation;
use crate::world::{Ended, Shared};

pub(super) fn check(shared: &Shared) -> Result<(), Violation> {
    let keys = shared.keys.borrow();
    for call in shared.calls.borrow().iter() {
        let Some(revoked) = keys[call.key].revoked else { continue };
        // 403 is what a revoked key gets; with 503 the node says that it does not know enough.
        let admitted = match &call.ended {
            Some((_, Ended::Answered { .. } | Ended::HungUp)) => true,
            Some((_, Ended::Refused(status))) => !matches!(status, 403 | 503),
            Some((_, Ended::Broken(_))) | None => false,
        };
        let produced = shared.engines.iter().any(|engine| {
            engine.records.borrow().iter().any(|record| record.request_id == format!("chatcmpl-{}", call.id))
        });
        if call.began > revoked && (admitted || produced) {
            let text = format!(
                "call {} began at {:?} on node {}, after the revocation of its key had returned at {revoked:?}: {:?}",
                call.id, call.began, call.node, call.ended
            );
            return Err(Violation::new("REVOKED", text));
        }
    }
    Ok(())
}
