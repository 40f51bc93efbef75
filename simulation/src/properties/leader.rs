//! LEADER: whoever leads in a term is replaced within it only by a node with a higher number, and no node forgets a term.
//!
//! Votes are ordered by term and node, so two nodes may lead in one term, one after the other: the second has the votes of a
//! quorum, and the first can commit nothing any more. The first may learn that it was elected when the second was, too: a vote
//! that was granted to it before takes that long to arrive, and no longer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Violation;
use crate::trace;
use crate::world::{Observation, Shared};

/// Longer than a candidate waits for a vote.
const VOTE_WITHIN: Duration = Duration::from_secs(1);

/// By term: those that led, in the order in which they said so first, and when.
#[derive(Default)]
pub(super) struct Leaders(BTreeMap<u64, Vec<(usize, Duration)>>);

impl Leaders {
    pub(super) fn check(&mut self, shared: &Shared, seen: &Observation) -> Result<(), Violation> {
        let slot = &shared.nodes[seen.node - 1];
        // A node that has just started says that it is in term 0.
        if (1..slot.term.get()).contains(&seen.term) {
            let text = format!("node {} is in term {} after it was in term {}", seen.node, seen.term, slot.term.get());
            return Err(Violation::new("LEADER", text));
        }
        slot.note_term(seen.term);
        if seen.leader != Some(seen.node) {
            return Ok(());
        }
        let leaders = self.0.entry(seen.term).or_default();
        if leaders.iter().any(|(leader, _)| *leader == seen.node) {
            return Ok(());
        }
        let now = trace::now();
        let is_after = |(leader, since): &&(usize, Duration)| *leader > seen.node && now > *since + VOTE_WITHIN;
        let before = leaders.iter().find(is_after).copied();
        leaders.push((seen.node, now));
        match before {
            Some((before, _)) => {
                let text = format!("node {} leads in term {} after node {before} did", seen.node, seen.term);
                Err(Violation::new("LEADER", text))
            }
            None => Ok(()),
        }
    }

    pub(super) fn terms(&self) -> u64 {
        self.0.len() as u64
    }
}
