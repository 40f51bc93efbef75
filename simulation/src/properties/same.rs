//! SAME: two nodes that applied equally many entries have equal states.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::View;

use super::Violation;
use crate::world::Observation;

/// States older than so many others are not compared any more.
const KEPT: usize = 512;

/// The first state seen at each index, and whose it was.
#[derive(Default)]
pub(super) struct States(BTreeMap<u64, (usize, Arc<View>)>);

impl States {
    pub(super) fn check(&mut self, seen: &Observation) -> Result<(), Violation> {
        let index = seen.view.applied;
        let (other, view) = self.0.entry(index).or_insert_with(|| (seen.node, seen.view.clone()));
        let is_same = Arc::ptr_eq(view, &seen.view) || ***view == **seen.view;
        let other = *other;
        while self.0.len() > KEPT {
            self.0.pop_first();
        }
        if is_same {
            return Ok(());
        }
        Err(Violation::new("SAME", format!("the states of nodes {other} and {} differ at index {index}", seen.node)))
    }
}
