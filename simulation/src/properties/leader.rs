//! LEADER: whoever leads in a term is replaced within it only by a node with a higher number.
//!
//! Votes are ordered by term and node, so two nodes may lead in one term, one after the other: the second has the votes of a
//! quorum, and the first can commit nothing any more.

use std::collections::BTreeMap;

use super::Violation;
use crate::world::Observation;

/// By term: those that led, in the order in which they said so first.
#[derive(Default)]
pub(super) struct Leaders(BTreeMap<u64, Vec<usize>>);

impl Leaders {
    pub(super) fn check(&mut self, seen: &Observation) -> Result<(), Violation> {
        if seen.leader != Some(seen.node) {
            return Ok(());
        }
        let leaders = self.0.entry(seen.term).or_default();
        if leaders.contains(&seen.node) {
            return Ok(());
        }
        let before = leaders.last().copied();
        leaders.push(seen.node);
        match before {
            Some(before) if before > seen.node => {
                let text = format!("node {} leads in term {} after node {before} did", seen.node, seen.term);
                Err(Violation::new("LEADER", text))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn terms(&self) -> u64 {
        self.0.len() as u64
    }
}
