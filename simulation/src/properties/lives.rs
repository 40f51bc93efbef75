//! LIVES: every start of a node counts as a later incarnation than those before it, so what an earlier one held is not taken for its own.

use std::collections::BTreeMap;

use super::Violation;
use crate::world::Observation;

/// By node: the last start that was seen, and its incarnation.
#[derive(Default)]
pub(super) struct Lives(BTreeMap<usize, (u32, u64)>);

impl Lives {
    pub(super) fn check(&mut self, seen: &Observation) -> Result<(), Violation> {
        let now = (seen.start, seen.incarnation);
        let Some(before) = self.0.insert(seen.node, now) else { return Ok(()) };
        if before == now || (before.0 < now.0 && before.1 < now.1) {
            return Ok(());
        }
        let text = format!(
            "start {} of node {} is incarnation {}, and its start {} was incarnation {}",
            now.0, seen.node, now.1, before.0, before.1
        );
        Err(Violation::new("LIVES", text))
    }
}
