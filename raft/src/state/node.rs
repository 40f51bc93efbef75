//! What the cluster remembers of each node, and the end of one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Outcome, State};
use crate::command::{CommandRefusal, QuotaGrant, Reply};
use crate::ids::NodeId;

/// A node's last quota batch and its answer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NodeLedger {
    /// The node's current incarnation.
    pub incarnation: u64,
    /// Its last batch.
    pub sequence: u64,
    /// What it was answered.
    pub reply: Vec<QuotaGrant>,
    /// The last batch of each earlier incarnation of which the node may still tell.
    pub earlier: BTreeMap<u64, u64>,
    /// Of incarnations before this one nothing is known any more, and nothing can be told.
    pub earlier_from: u64,
}

/// Incarnations of one node that ended before they could tell what the one before them had left.
const EARLIER_MAX: usize = 64;

impl NodeLedger {
    /// The last batch of an incarnation, if it is remembered and sent any.
    pub fn last_of(&self, incarnation: u64) -> Option<u64> {
        if incarnation == self.incarnation { Some(self.sequence) } else { self.earlier.get(&incarnation).copied() }
    }

    /// The same once `incarnation` has begun.
    pub(super) fn begin(&self, incarnation: u64) -> NodeLedger {
        let mut next = NodeLedger { incarnation, ..self.clone() };
        if self.incarnation > 0 {
            next.earlier.insert(self.incarnation, self.sequence);
        }
        if next.earlier.len() > EARLIER_MAX
            && let Some((gone, _)) = next.earlier.pop_first()
        {
            next.earlier_from = gone + 1;
        }
        next
    }

    /// Nothing more will be told of earlier incarnations.
    pub(super) fn forget_earlier(&mut self) {
        self.earlier.clear();
        self.earlier_from = self.incarnation;
    }
}

impl State {
    /// How many nodes share what is free: those that have sent a batch and were not taken out.
    pub fn sharers(&self) -> u64 {
        self.nodes.keys().filter(|node| !self.retired.contains(*node)).count() as u64
    }

    /// Nobody knows what the node gave out of what it holds, so that stays held until the windows end. Nobody waits for it to
    /// come back, but if the node still tells, it counts.
    pub(super) fn retire_node(&mut self, node: NodeId) -> Result<Outcome, CommandRefusal> {
        if self.retired.contains(&node) {
            return Ok(Outcome::unchanged(Reply::Done));
        }
        // Who is a member is not known here. Two removals at once that leave nobody are caught all the same.
        if self.nodes.contains_key(&node) && self.sharers() == 1 {
            return Err(CommandRefusal::LastNode(node));
        }
        self.retired.insert(node);
        self.orphan(node);
        Ok(Outcome::changed(Reply::Done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, EarlierIncarnations, QuotaBatch};
    use crate::state::testing::Log;

    fn batch(node: u64) -> Command {
        Command::Quota(QuotaBatch {
            node: NodeId(node),
            incarnation: 1,
            sequence: 1,
            entries: Vec::new(),
            usage: Vec::new(),
            earlier: EarlierIncarnations::default(),
        })
    }

    #[test]
    fn a_node_is_taken_out_once_and_for_all_unless_it_is_the_last() {
        let mut log = Log::default();
        let retire = |node| Command::RetireNode { node: NodeId(node) };
        let last = |node| (Reply::Refused(CommandRefusal::LastNode(NodeId(node))), false);
        let (done, told) = ((Reply::Done, true), (Reply::Quota(Vec::new()), true));
        // What is asked and answered; who is out and how many share then.
        let mut step = |command, expected: (Reply, bool), retired: &[u64], sharers: u64| {
            let outcome = log.apply(command);
            assert_eq!((outcome.reply, outcome.changed), expected);
            assert_eq!(log.state.retired.iter().map(|node| node.0).collect::<Vec<_>>(), retired);
            assert_eq!(log.state.sharers(), sharers);
        };
        // The ledger has never heard of this one: perhaps it never started.
        step(retire(9), done.clone(), &[9], 0);
        step(batch(1), told.clone(), &[9], 1);
        step(retire(1), last(1), &[9], 1);
        step(batch(2), told.clone(), &[9], 2);
        step(retire(1), done.clone(), &[1, 9], 1);
        step(retire(1), (Reply::Done, false), &[1, 9], 1);
        step(retire(2), last(2), &[1, 9], 1);
        // Who is out does not come back by telling something.
        step(batch(9), told.clone(), &[1, 9], 1);
        step(retire(2), last(2), &[1, 9], 1);
        step(batch(3), told, &[1, 9], 2);
        step(retire(3), done, &[1, 3, 9], 1);
        assert_eq!(State::from_bytes(&log.state.to_bytes()).unwrap(), log.state);
    }
}
