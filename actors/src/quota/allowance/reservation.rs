//! A reservation: what is held for one call, settled exactly once.

use std::fmt;
use std::sync::Arc;

use raft::journal::{CallId, EndedCall, NoteNumber};
use raft::resources::{Enforcement, Unit};
use smallvec::SmallVec;
use tokio::time::timeout;

use super::amount::Amount;
use super::charge::Charge;
use super::hold::{Hold, Holds};
use super::limits::Limits;
use super::notice::Notice;
use super::refusal::QuotaRefusal;
use super::slots::{Granted, Slot};
use super::standing::{self, LimitStanding};
use super::{Allowance, note};
use crate::routing::Permit;

/// What a call holds in every limit of its permit. Dropping it charges what was last observed and returns the rest: exactly once, whatever
/// happened.
pub struct Reservation {
    allowance: Arc<Allowance>,
    permit: Permit,
    /// One for each limit subject that the call counts for: at least one, because every subscription has limits.
    holds: Holds,
    need: Amount,
    /// What it can use at most, as far as that is known.
    ceiling: Amount,
    charge: Charge,
    call: CallId,
    /// That this is held.
    note: NoteNumber,
}

impl Reservation {
    /// Has it noted that `holds` of `need` are held.
    pub(super) fn new(allowance: &Arc<Allowance>, permit: Permit, holds: Holds, need: Amount) -> Reservation {
        let call = allowance.ledger.journal().next_call();
        let note = note::open(&allowance.ledger, call, &permit, &holds, need);
        let ceiling = Amount { input: u64::MAX, output: u64::MAX, requests: 1 };
        let charge = Charge::default();
        Reservation { allowance: allowance.clone(), permit, holds, need, ceiling, charge, call, note }
    }

    /// Waits until it is noted what the call holds, so that it is known even if this process is killed: only then may it be sent to a
    /// replica. Errors: [`QuotaRefusal::Unavailable`], the disk does not answer.
    pub async fn noted(&mut self) -> Result<(), QuotaRefusal> {
        let written = self.allowance.ledger.journal().written(self.note);
        match timeout(self.allowance.settings.ledger_wait, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.allowance.notices.send(Notice::JournalFailed(error));
                Err(QuotaRefusal::Unavailable)
            }
            Err(_) => Err(QuotaRefusal::Unavailable),
        }
    }

    /// What would be charged if the call ended now. Starts at nothing: a call that never reached a replica costs nothing.
    pub fn observe(&mut self, charge: Charge) {
        self.charge = self.believed(charge);
        self.holds.iter_mut().for_each(|hold| hold.observed = self.charge.amount);
    }

    /// What was last observed, as far as it can be true.
    pub fn charge(&self) -> Charge {
        self.charge
    }

    /// The call can use no more than this. What a replica reports beyond it is recorded and not charged.
    pub fn cannot_exceed(&mut self, ceiling: Amount) {
        self.ceiling = ceiling;
    }

    /// Nothing is used beyond the ceiling, and under a hard limit nothing beyond what is held: a replica that says otherwise was told to
    /// stop before.
    fn believed(&self, charge: Charge) -> Charge {
        let hard = |counts: fn(Unit) -> bool| {
            let limits = &self.permit.subscription().limits;
            limits.iter().any(|limit| limit.enforcement == Enforcement::Hard && counts(limit.unit))
        };
        let told = charge.amount;
        let most = |ceiling: u64, is_hard: bool, held: u64| if is_hard { ceiling.min(held) } else { ceiling };
        let input = told.input.min(most(self.ceiling.input, hard(Unit::counts_input), self.need.input));
        let output = told.output.min(most(self.ceiling.output, hard(Unit::counts_output), self.need.output));
        let beyond = Amount { input: told.input - input, output: told.output - output, requests: 0 };
        let is_absurd = charge.is_absurd || beyond != Amount::default();
        Charge { amount: Amount { input, output, ..told }, is_absurd, beyond, ..charge }
    }

    /// Lets go what was held for a prompt beyond its `input` tokens, now that these are known. Returns how many tokens that was.
    pub fn know_input(&mut self, input: u64) -> u64 {
        let before = self.need;
        if input >= before.input {
            return 0;
        }
        self.need.input = input;
        let held: SmallVec<[Granted; 1]> = self.holds.iter_mut().map(|hold| hold.shrink(self.need)).collect();
        // Noted first: whoever gets what comes free is noted later.
        self.note = note::open(&self.allowance.ledger, self.call, &self.permit, &self.holds, self.need);
        for (hold, held) in self.holds.iter().zip(&held) {
            hold.slots.give_back(held, &hold.granted);
            self.allowance.mark(&hold.set);
        }
        before.total() - self.need.total()
    }

    /// How much more would be charged of a hard limit than is held of it: nothing, or something here is wrong. In the unit of the limit.
    pub fn overshoot(&self) -> u64 {
        let slots = self.holds.iter().flat_map(Hold::parts).filter(|(slot, _)| slot.rule.is_hard);
        let beyond = |(slot, held): (&Slot, u64)| slot.rule.used_of(self.charge.amount).saturating_sub(held);
        slots.map(beyond).max().unwrap_or(0)
    }

    /// For whom.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// What it is taken to need: what is held, but of a limit that had only a rest.
    pub fn need(&self) -> Amount {
        self.need
    }

    /// Ends the call. `output` (tokens) teaches the output estimate, if it can be believed. Returns where its limits stand from now on.
    pub fn settle(mut self, charge: Charge, output: Option<u64>) -> Limits {
        self.observe(charge);
        if let (Some(output), Some(hold), false) = (output, self.holds.first(), self.charge.is_absurd) {
            hold.set.size.learn(output);
        }
        let sets = self.holds.iter().map(|hold| hold.set.clone()).collect();
        Limits { sets, allowance: self.allowance.clone(), note: self.end(), written: None }
    }

    /// Ends it, once: notes what was used, then lets go what is held, so that whoever gets it is noted later.
    fn end(&mut self) -> Option<NoteNumber> {
        if self.holds.is_empty() {
            return None;
        }
        let (call, sum) = (self.call, self.charge.sum());
        let slots = self.holds.iter().flat_map(|hold| &hold.slots.slots);
        let used = slots.map(|slot| slot.rule.used_of(self.charge.amount)).collect();
        let note = self.allowance.ledger.journal().end(EndedCall { call, sum, used });
        for (part, hold) in (0..).zip(self.holds.drain(..)) {
            let set = hold.set.clone();
            let mut tally = set.tally();
            if let Some(sum) = &sum {
                tally.add(&self.permit, sum, (call, part));
            }
            drop(hold);
        }
        Some(note)
    }

    /// Where each limit stands for this caller now, this reservation counted as used; the tightest first.
    pub fn standing(&self) -> Vec<LimitStanding> {
        standing::of_holds(&self.holds, self.allowance.ledger.now())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // What is noted is noted in order, so nobody need wait for this.
        self.end();
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("need", &self.need).finish_non_exhaustive()
    }
}
