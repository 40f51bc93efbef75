//! Sending: when a batch goes to the ledger, and what its answer leads to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor::ActorProcessingErr;
use raft::command::{QuotaBatch, QuotaGrant};
use raft::{Applied, CommandRefusal, ProposeError, Reply};
use tracing::warn;

use super::actor::{QuotaMessage, Running, TICK};
use super::batch::{self, Draft};
use super::outbox::InFlight;
use crate::quota::allowance::Notice;
use crate::supervisor::Fatal;

/// Between two batches for which nobody waits: at most twenty a second. Each is a synced write on a quorum of disks, and what a
/// batch says is known to others this much later at worst.
const PACE: Duration = Duration::from_millis(50);
/// Before a batch is sent again that this node was too busy to send.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

impl Running {
    /// Sends a batch if there is reason to and none is in flight, and sees to it that time passes.
    pub(super) fn proceed(&mut self) {
        if !self.sets.is_empty() {
            self.wake_by(self.ticked_at + TICK);
        }
        if self.outbox.in_flight().is_some() {
            return;
        }
        let paced = self.proposed_at.map_or(self.snapshot.instant, |proposed| proposed + PACE);
        let is_due = !self.urgent.is_empty() || !self.drains.is_empty() || paced <= self.snapshot.instant;
        let has_past = self.outbox.past().advance(&self.allowance.ledger, &self.snapshot);
        if (has_past || !self.pending.is_empty()) && !is_due {
            self.wake_by(paced);
        } else if is_due {
            self.send_batch();
        }
        if self.outbox.in_flight().is_none() && self.pending.is_empty() {
            for done in self.drains.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    /// Everything there is to tell and to acquire, in one batch.
    fn send_batch(&mut self) {
        let mut draft = Draft::default();
        // Those for whom somebody waits come first.
        while !draft.is_full()
            && let Some(id) = self.urgent.pop_first()
        {
            self.put_into(&mut draft, id);
        }
        while !draft.is_full()
            && let Some(id) = self.pending.next()
        {
            self.put_into(&mut draft, id);
        }
        let past = self.outbox.past().fill(&mut draft, &self.snapshot);
        // The first one says, if nothing else, that what an earlier incarnation of this node held will not come back from it.
        let is_first = self.outbox.is_first();
        if draft.is_empty() && past.is_empty() && !is_first {
            return;
        }
        let batch = QuotaBatch {
            node: self.snapshot.node,
            incarnation: self.allowance.ledger.incarnation(),
            sequence: self.outbox.next_sequence(),
            entries: draft.entries,
            usage: draft.usage,
            earlier: past.told.clone(),
        };
        let is_noted = AtomicBool::new(false);
        let in_flight = Arc::new(InFlight { batch, sent: draft.sent, parts: draft.parts, past, is_noted });
        self.outbox.set_in_flight(Some(in_flight.clone()));
        self.proposed_at = self.pending.is_empty().then_some(self.snapshot.instant);
        self.propose(&in_flight, Duration::ZERO);
    }

    /// Puts into a batch what there is to tell of a set, or as much as fits.
    fn put_into(&mut self, draft: &mut Draft, id: u64) {
        self.pending.remove(id);
        self.urgent.remove(&id);
        if let Some(state) = self.sets.get_mut(&id)
            && !draft.add(state, &self.snapshot, self.is_leaving)
        {
            self.pending.insert(id);
        }
    }

    pub(super) fn propose(&mut self, in_flight: &InFlight, pause: Duration) {
        while self.tasks.try_join_next().is_some() {}
        let (ledger, myself) = (self.allowance.ledger.clone(), self.myself.clone());
        let batch = in_flight.batch.clone();
        let noted = (!in_flight.is_noted.swap(true, Ordering::AcqRel))
            .then(|| ledger.journal().tell(in_flight.batch.sequence, in_flight.parts.clone()));
        self.tasks.spawn(async move {
            if let Some(noted) = noted
                && let Err(error) = ledger.journal().written(noted).await
            {
                // If the actor is gone, its successor is told so by whoever notes something next.
                let _ = myself.send_message(QuotaMessage::Notice(Notice::JournalFailed(error)));
                return;
            }
            tokio::time::sleep(pause).await;
            let answer = ledger.send(batch).await;
            // If the actor is gone, its successor finds the batch in the outbox and sends it again.
            let _ = myself.send_message(QuotaMessage::Answered(answer));
        });
    }

    pub(super) fn answered(&mut self, answer: Result<Applied, ProposeError>) -> Result<(), ActorProcessingErr> {
        let Some(in_flight) = self.outbox.in_flight() else { return Ok(()) };
        match answer {
            Ok(Applied { reply: Reply::Quota(grants), .. }) if grants.len() == in_flight.sent.len() => {
                self.outbox.set_in_flight(None);
                self.allowance.ledger.journal().confirm(in_flight.batch.sequence);
                self.outbox.past().confirmed(&in_flight.past, &self.allowance.ledger);
                self.take_answers(&in_flight, &grants);
                Ok(())
            }
            Ok(Applied { reply: Reply::Refused(refusal @ CommandRefusal::StaleBatch { .. }), .. }) => {
                Err(Fatal(format!("{refusal}: something else runs as this node")).into())
            }
            Ok(Applied { reply, .. }) => {
                Err(Fatal(format!("the ledger gave an answer that fits no batch: {reply:?}")).into())
            }
            Err(error @ ProposeError::Unknown(_)) => {
                warn!(%error, sequence = in_flight.batch.sequence, "the quota ledger does not answer; asking again");
                self.propose(&in_flight, Duration::ZERO);
                Ok(())
            }
            Err(ProposeError::Busy(_)) => {
                self.propose(&in_flight, BUSY_PAUSE);
                Ok(())
            }
            Err(ProposeError::Stopping | ProposeError::Retired) => {
                self.refuse_all();
                self.drains.clear();
                Ok(())
            }
            Err(error @ ProposeError::TooLarge { .. }) => Err(Fatal(error.to_string()).into()),
        }
    }

    fn take_answers(&mut self, in_flight: &InFlight, grants: &[QuotaGrant]) {
        let mut served = BTreeSet::new();
        for sent in &in_flight.sent {
            self.state_of(&sent.set).state.is_acquiring = false;
        }
        for ((entry, sent), grant) in in_flight.batch.entries.iter().zip(&in_flight.sent).zip(grants) {
            let context = self.state_of(&sent.set);
            batch::take_answer(context.state, context.snapshot, entry, sent, *grant);
            served.insert(sent.set.id);
        }
        for id in served {
            self.serve(id);
        }
    }
}
