//! Calls that wait in a set: which are answered now, and what the others want from the ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::decide::{self, Prospect, Reading};
use super::ledger_snapshot::LedgerSnapshot;
use super::reading;
use super::set_state::{SetState, SlotState};
use crate::Settings;
use crate::quota::allowance::{Allowance, Amount, Granted, Hold, Obstacle, QuotaRefusal, Slot, Slots, Waiter};

/// What a set with waiting calls wants from the ledger.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Demand {
    /// Nothing: it can only wait.
    Nothing,
    /// So many tokens of each slot.
    Acquire(Vec<u64>),
}

impl Demand {
    fn of(tokens: Vec<u64>) -> Demand {
        if tokens.iter().all(|tokens| *tokens == 0) { Demand::Nothing } else { Demand::Acquire(tokens) }
    }
}

impl SetState {
    /// Answers every waiting call that can be answered now, or has waited long enough, in order.
    pub(super) fn serve(&mut self, allowance: &Arc<Allowance>, snapshot: &LedgerSnapshot) {
        while let Some(waiter) = self.waiters.front() {
            if waiter.is_gone() {
                self.waiters.pop_front();
                continue;
            }
            let Some(answer) = self.answer_to(waiter, allowance, snapshot) else { return };
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
        snapshot: &LedgerSnapshot,
    ) -> Option<Result<Hold, QuotaRefusal>> {
        let slots = self.set.slots.load_full();
        if !slots.stand_for(&waiter.permit.subscription().limits) {
            return Some(Err(QuotaRefusal::Changed));
        }
        if let Some(granted) = self.take(&slots, waiter.need, snapshot) {
            return Some(Ok(Hold::new(allowance, self.set.clone(), slots, granted)));
        }
        let exhausted = |slot, is_spent| {
            let silent = reading::holders(snapshot, slot).filter(|node| allowance.ledger.is_silent(*node)).collect();
            let obstacle = Obstacle { slot, is_spent, silent };
            Some(Err(obstacle.refusal(&waiter.permit, waiter.need, snapshot.now)))
        };
        let obstacle = self.obstacle(&slots, waiter.need, snapshot);
        // Nothing is final while an acquire is on its way.
        if let Some((spent, Prospect::Spent)) = obstacle
            && !self.is_acquiring
        {
            return exhausted(spent, true);
        }
        if snapshot.instant - waiter.since < self.wait_max(obstacle.is_some(), &allowance.settings, snapshot) {
            return None;
        }
        match obstacle {
            // An acquire may be on its way, as nearly always when many wait: what is known now is the truest answer there is.
            Some((slot, _)) => exhausted(slot, false),
            None => Some(Err(QuotaRefusal::Unavailable)),
        }
    }

    /// Reserves `need`, or the rest of limits of which the ledger has no more to give and nobody else holds anything.
    fn take(&self, slots: &Slots, need: Amount, snapshot: &LedgerSnapshot) -> Option<Granted> {
        if let Some(granted) = self.set.take(slots, need) {
            return Some(granted);
        }
        // An acquire that is on its way may bring more than the rest that is here.
        if self.is_acquiring {
            return None;
        }
        let readings = self.readings(snapshot);
        let has_rest = |at: usize| readings[at].prospect(slots.slots[at].share_of(need)) == Prospect::Rest;
        self.set.take_or_rest(slots, need, has_rest)
    }

    /// The limit for which no acquire can get `need`, by what is known: rather one that is spent than one that is held.
    fn obstacle<'a>(&self, slots: &'a Slots, need: Amount, snapshot: &LedgerSnapshot) -> Option<(&'a Slot, Prospect)> {
        if self.is_acquiring && snapshot.is_answer_due {
            return None;
        }
        let readings = self.readings(snapshot);
        let prospect = |(slot, reading): (&'a Slot, &Reading)| (slot, reading.prospect(slot.share_of(need)));
        let prospects: Vec<_> = slots.slots.iter().zip(&readings).map(prospect).collect();
        let first = |wanted| prospects.iter().find(|(_, prospect)| *prospect == wanted).copied();
        first(Prospect::Spent).or_else(|| first(Prospect::Held))
    }

    /// When the first waiting call will have waited long enough, as things stand.
    pub(super) fn deadline(&self, settings: &Settings, snapshot: &LedgerSnapshot) -> Option<Instant> {
        let first = self.waiters.front()?;
        let has_obstacle = self.obstacle(&self.set.slots.load(), first.need, snapshot).is_some();
        let refused_at = first.since + self.wait_max(has_obstacle, settings, snapshot);
        // What the ledger refused is asked for again when that does not stand any more.
        let stands = |slot_state: &SlotState| {
            slot_state.refusal.filter(|refusal| !slot_state.is_wanting && refusal.stands(snapshot.instant))
        };
        let again = self.slot_states.iter().filter_map(stands).map(|refusal| refusal.until).min();
        Some(again.map_or(refused_at, |again| again.min(refused_at)))
    }

    /// How long a call waits: for others to give back what it needs if there is an obstacle, for the ledger to answer if there is none.
    fn wait_max(&self, has_obstacle: bool, settings: &Settings, snapshot: &LedgerSnapshot) -> Duration {
        if has_obstacle { self.patience(settings, snapshot) } else { settings.ledger_wait }
    }

    /// What the waiting calls want from the ledger.
    pub(super) fn demand(&self, snapshot: &LedgerSnapshot) -> Demand {
        let Some(first) = self.waiters.front().filter(|_| !self.is_acquiring) else { return Demand::Nothing };
        let slots = self.set.slots.load();
        let readings = self.readings(snapshot);
        let needs_of = |waiter: &Waiter| slots.slots.iter().map(|slot| slot.share_of(waiter.need)).collect();
        let needs: Vec<u64> = needs_of(first);
        let is_held = |(need, reading): (&u64, &Reading)| reading.prospect(*need) == Prospect::Held;
        if !needs.iter().zip(&readings).any(is_held) {
            let (_, needs) = decide::servable(self.waiters.iter().map(needs_of), &readings);
            let short = |(need, reading): (&u64, &Reading)| match reading.prospect(*need) {
                Prospect::Rest => 0,
                _ => reading.short(*need),
            };
            return Demand::of(needs.iter().zip(&readings).map(short).collect());
        }
        // Only other nodes, or calls in progress, can help. An acquire that will be refused asks the others to give back.
        let recalls = needs.iter().zip(&readings).zip(&self.slot_states).map(|((need, reading), slot_state)| {
            let is_asked = slot_state.is_wanting || slot_state.is_just_refused(snapshot.instant);
            let is_new = is_held((need, reading)) && !is_asked && reading.is_worth_recalling(*need);
            if is_new { reading.short(*need) } else { 0 }
        });
        Demand::of(recalls.collect())
    }

    /// How long a call waits for tokens that others hold.
    fn patience(&self, settings: &Settings, snapshot: &LedgerSnapshot) -> Duration {
        let held_wait = settings.held_wait;
        let unmoved = |slot_state: &SlotState| snapshot.instant - slot_state.others.1 > held_wait;
        let readings = self.readings(snapshot);
        // What others hold without ever giving any back (a node that is gone, a very long call) is not waited for again and again.
        let is_stuck = !self.is_acquiring
            && readings.iter().all(|reading| reading.held == 0)
            && readings
                .iter()
                .zip(&self.slot_states)
                .any(|(reading, slot_state)| reading.others > 0 && unmoved(slot_state));
        if is_stuck { settings.recall_wait.min(held_wait) } else { held_wait }
    }
}
