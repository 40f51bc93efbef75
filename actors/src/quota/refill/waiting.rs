//! Calls that wait in a set: which are answered now, and what the others want from the ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::decide::{self, Prospect, Reading};
use super::moment::Moment;
use super::set_state::{Note, Tended};
use crate::Settings;
use crate::quota::allowance::{self, Allowance, Amount, Hold, QuotaRefusal, Slot, Slots, Waiter};

/// What a set with waiting calls wants from the ledger.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Nothing: it can only wait.
    Nothing,
    /// So many tokens of each slot.
    Draw(Vec<u64>),
}

impl Wish {
    fn of(tokens: Vec<u64>) -> Wish {
        if tokens.iter().all(|tokens| *tokens == 0) { Wish::Nothing } else { Wish::Draw(tokens) }
    }
}

impl Tended {
    /// Answers every waiting call that can be answered now, or has waited long enough, in order.
    pub(super) fn serve(&mut self, allowance: &Arc<Allowance>, moment: &Moment) {
        while let Some(waiter) = self.waiters.front() {
            if waiter.is_gone() {
                self.waiters.pop_front();
                continue;
            }
            let Some(answer) = self.answer_to(waiter, allowance, moment) else { return };
            if let Some(waiter) = self.waiters.pop_front() {
                waiter.answer(answer);
            }
        }
    }

    /// What the first waiting call is told; `None`: it waits on.
    fn answer_to(
        &self,
        waiter: &Waiter,
        allowance: &Arc<Allowance>,
        moment: &Moment,
    ) -> Option<Result<Hold, QuotaRefusal>> {
        let slots = self.set.slots.load_full();
        if !slots.stand_for(&waiter.permit.subscription().limits) {
            return Some(Err(QuotaRefusal::Changed));
        }
        if self.set.take(&slots, waiter.need) {
            return Some(Ok(Hold::new(allowance, self.set.clone(), slots, waiter.need)));
        }
        let exhausted =
            |slot, is_spent| Some(Err(allowance::exhausted(&waiter.permit, slot, waiter.need, moment.now, is_spent)));
        let obstacle = self.obstacle(&slots, waiter.need, moment);
        // Nothing is final while a draw is on its way.
        if let Some((spent, Prospect::Spent)) = obstacle
            && !self.is_drawing
        {
            return exhausted(spent, true);
        }
        if moment.instant - waiter.since < self.wait_max(obstacle.is_some(), &allowance.settings, moment) {
            return None;
        }
        match obstacle {
            // A draw may be on its way, as nearly always when many wait: what is known now is the truest answer there is.
            Some((slot, _)) => exhausted(slot, false),
            None => Some(Err(QuotaRefusal::Unavailable)),
        }
    }

    /// The limit for which no draw can get `need`, by what is known: rather one that is spent than one that is held.
    fn obstacle<'a>(&self, slots: &'a Slots, need: Amount, moment: &Moment) -> Option<(&'a Slot, Prospect)> {
        if self.is_drawing && moment.is_answer_due {
            return None;
        }
        let readings = self.readings(moment);
        let prospect = |(slot, reading): (&'a Slot, &Reading)| (slot, reading.prospect(slot.share_of(need)));
        let prospects: Vec<_> = slots.slots.iter().zip(&readings).map(prospect).collect();
        let first = |wanted| prospects.iter().find(|(_, prospect)| *prospect == wanted).copied();
        first(Prospect::Spent).or_else(|| first(Prospect::Held))
    }

    /// When the first waiting call will have waited long enough, as things stand.
    pub(super) fn deadline(&self, settings: &Settings, moment: &Moment) -> Option<Instant> {
        let first = self.waiters.front()?;
        let has_obstacle = self.obstacle(&self.set.slots.load(), first.need, moment).is_some();
        Some(first.since + self.wait_max(has_obstacle, settings, moment))
    }

    /// How long a call waits: for others to give back what it needs if there is an obstacle, for the ledger to answer if there is none.
    fn wait_max(&self, has_obstacle: bool, settings: &Settings, moment: &Moment) -> Duration {
        if has_obstacle { self.patience(settings, moment) } else { settings.ledger_wait }
    }

    /// What the waiting calls want from the ledger.
    pub(super) fn wish(&self, moment: &Moment) -> Wish {
        let Some(first) = self.waiters.front().filter(|_| !self.is_drawing) else { return Wish::Nothing };
        let slots = self.set.slots.load();
        let readings = self.readings(moment);
        let needs_of = |waiter: &Waiter| slots.slots.iter().map(|slot| slot.share_of(waiter.need)).collect();
        let needs: Vec<u64> = needs_of(first);
        let is_held = |(need, reading): (&u64, &Reading)| reading.prospect(*need) == Prospect::Held;
        if !needs.iter().zip(&readings).any(is_held) {
            let (_, needs) = decide::servable(self.waiters.iter().map(needs_of), &readings);
            return Wish::of(needs.iter().zip(&readings).map(|(need, reading)| reading.short(*need)).collect());
        }
        // Only other nodes, or calls in progress, can help. A draw that will be refused asks the others to give back.
        let recalls = needs.iter().zip(&readings).zip(&self.notes).map(|((need, reading), note)| {
            let is_new = is_held((need, reading)) && !note.is_wanting && reading.is_worth_recalling(*need);
            if is_new { reading.short(*need) } else { 0 }
        });
        Wish::of(recalls.collect())
    }

    /// How long a call waits for tokens that others hold.
    fn patience(&self, settings: &Settings, moment: &Moment) -> Duration {
        let held_wait = settings.held_wait;
        let unmoved = |note: &Note| moment.instant - note.others.1 > held_wait;
        let readings = self.readings(moment);
        // What others hold without ever giving any back (a node that is gone, a very long call) is not waited for again and again.
        let is_stuck = !self.is_drawing
            && readings.iter().all(|reading| reading.held == 0)
            && readings.iter().zip(&self.notes).any(|(reading, note)| reading.others > 0 && unmoved(note));
        if is_stuck { settings.recall_wait.min(held_wait) } else { held_wait }
    }
}
