//! VIEW: what a node knows never goes back while it lives.

use std::collections::BTreeMap;

use raft::Timestamp;

use super::Violation;
use crate::world::Observation;

/// By node and start: the last index and time.
#[derive(Default)]
pub(super) struct Views(BTreeMap<(usize, u32), (u64, Timestamp)>);

impl Views {
    pub(super) fn check(&mut self, seen: &Observation) -> Result<(), Violation> {
        let now = (seen.view.applied, seen.view.time);
        let before = self.0.insert((seen.node, seen.start), now).unwrap_or_default();
        if before.0 <= now.0 && before.1 <= now.1 {
            return Ok(());
        }
        let text = format!(
            "node {} went from index {} at {} ms back to {} at {} ms",
            seen.node, before.0, before.1.0, now.0, now.1.0
        );
        Err(Violation::new("VIEW", text))
    }
}
