//! What the actor knows of one set beside the local allowance: who waits, how fast tokens go, what the ledger last said.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use raft::Timestamp;
use tokio::time::Instant;

use super::decide::Reading;
use super::ledger_snapshot::LedgerSnapshot;
use super::rate::Rate;
use super::reading::{self, LastRefusal};
use crate::quota::allowance::{Amount, LocalMeter, MeterSet, Rule, Slot, Slots, Waiter};

/// What the actor knows of one set.
pub(super) struct SetState {
    pub(super) set: Arc<MeterSet>,
    pub(super) waiters: VecDeque<Waiter>,
    /// Whether an acquire for it is in flight.
    pub(super) is_acquiring: bool,
    /// One for each slot, in order.
    pub(super) slot_states: Vec<SlotState>,
    /// What calls take.
    pub(super) rate: Rate,
    /// What they had taken when that was measured.
    pub(super) taken: Amount,
    pub(super) measured: Instant,
    /// Since when `SlotState::lowest` has been watched.
    pub(super) watched_since: Instant,
    /// Whether anything was taken since then.
    pub(super) was_used: bool,
    /// When something was last in it.
    pub(super) last_busy: Instant,
}

/// What is known of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotState {
    pub(super) refusal: Option<LastRefusal>,
    /// Whether the ledger has noted that this node wants tokens of it.
    pub(super) is_wanting: bool,
    /// The fewest free tokens while watched.
    pub(super) lowest: u64,
    /// To be given back with the next batch.
    pub(super) surplus: u64,
    /// What other nodes hold, and since when it has been just that.
    pub(super) others: (u64, Instant),
}

impl SlotState {
    fn new(now: Instant) -> SlotState {
        SlotState { refusal: None, is_wanting: false, lowest: u64::MAX, surplus: 0, others: (0, now) }
    }

    /// Whether the ledger has just refused an acquire: what it said of what others hold stands, whoever else wants the same.
    pub(super) fn is_just_refused(&self, now: Instant) -> bool {
        self.refusal.is_some_and(|refusal| refusal.stands(now))
    }

    /// Whether the ledger is to hear that nobody here waits any more. Not at once: who comes next would only ask again.
    pub(super) fn is_to_give_up(&self, now: Instant) -> bool {
        self.is_wanting && !self.is_just_refused(now)
    }
}

impl SetState {
    pub(super) fn new(set: Arc<MeterSet>, now: Instant) -> SetState {
        let slot_states = vec![SlotState::new(now); set.slots.load().slots.len()];
        let taken = set.taken();
        SetState {
            set,
            waiters: VecDeque::new(),
            is_acquiring: false,
            slot_states,
            rate: Rate::default(),
            taken,
            measured: now,
            watched_since: now,
            was_used: false,
            last_busy: now,
        }
    }

    /// Publishes slots changed by `change`.
    pub(super) fn update(&self, change: impl FnOnce(&mut Vec<Slot>)) {
        let before = self.set.slots.load();
        let mut slots = before.slots.clone();
        change(&mut slots);
        self.set.slots.store(Arc::new(Slots { limits: before.limits.clone(), slots }));
    }

    /// Takes over the limits that the View says. Meters of limits that are gone give back what they hold.
    pub(super) fn follow_limits(&mut self, snapshot: &LedgerSnapshot) {
        let before = self.set.slots.load_full();
        let limits = reading::limits_in(&snapshot.view, &self.set.key);
        if before.limits == limits {
            return;
        }
        let after = Slots::of(&self.set.key, &self.set.limit_subject, limits, &before);
        self.slot_states = vec![SlotState::new(snapshot.instant); after.slots.len()];
        let stays = |slot: &&Slot| after.slots.iter().any(|kept| Arc::ptr_eq(&kept.meter, &slot.meter));
        for gone in before.slots.iter().filter(|slot| !stays(slot)) {
            self.close(&gone.rule, &gone.meter);
        }
        self.set.slots.store(Arc::new(after));
    }

    /// Puts a meter aside until nothing is in it any more.
    fn close(&self, rule: &Arc<Rule>, meter: &Arc<LocalMeter>) {
        meter.close();
        if meter.number != 0 {
            self.set.closed().push((rule.clone(), meter.clone()));
        }
    }

    /// Gives the slot at `at` the window `number`, unless it has it already.
    pub(super) fn enter_window(&mut self, at: usize, number: u64, ends: Timestamp) {
        let slots = self.set.slots.load_full();
        let Some(slot) = slots.slots.get(at).filter(|slot| slot.meter.number != number) else { return };
        let meter = Arc::new(LocalMeter::new(number, ends));
        self.update(|slots| slots[at] = Slot { meter, ..Slot::new(slot.rule.clone()) });
        slot.meter.lapse();
        self.close(&slot.rule, &slot.meter);
        self.slot_states[at] = SlotState { is_wanting: false, lowest: u64::MAX, surplus: 0, ..self.slot_states[at] };
    }

    pub(super) fn readings(&self, snapshot: &LedgerSnapshot) -> Vec<Reading> {
        let slots = self.set.slots.load();
        let slot_states = slots.slots.iter().zip(&self.slot_states);
        slot_states.map(|(slot, slot_state)| reading::read(snapshot, &self.set, slot, slot_state.refusal)).collect()
    }

    /// Leaves windows that are over and enters those that others have opened, so that callers are told the truth and need not ask
    /// the ledger for what is spent already.
    pub(super) fn follow_windows(&mut self, snapshot: &LedgerSnapshot) {
        let slots = self.set.slots.load_full();
        for (at, slot) in slots.slots.iter().enumerate() {
            let is_over = reading::is_over(&snapshot.view, slot);
            match reading::current_window(&snapshot.view, slot) {
                Some(window) if is_over || slot.meter.number == 0 => self.enter_window(at, window.number, window.ends),
                None if is_over => self.enter_window(at, 0, Timestamp::default()),
                Some(_) | None => {}
            }
        }
        self.set.closed().retain(|(_, meter)| !meter.is_empty());
        self.watch_others(snapshot);
    }

    fn watch_others(&mut self, snapshot: &LedgerSnapshot) {
        let mut changed = false;
        let mut slots = self.set.slots.load().slots.clone();
        for (slot, slot_state) in slots.iter_mut().zip(&mut self.slot_states) {
            let before = (slot.settled, slot.elsewhere, slot.debt);
            reading::refresh(&snapshot.view, slot, snapshot.node);
            changed |= before != (slot.settled, slot.elsewhere, slot.debt);
            if slot_state.others.0 != slot.elsewhere {
                slot_state.others = (slot.elsewhere, snapshot.instant);
            }
        }
        if changed {
            self.update(|published| *published = slots);
        }
    }

    /// Copies what the ledger says into the published slots.
    pub(super) fn refresh(&mut self, snapshot: &LedgerSnapshot) {
        self.watch_others(snapshot);
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
            && !self.set.somebody_waits()
            && self.set.slots.load().slots.iter().all(|slot| slot.meter.is_empty())
            && self.set.closed().is_empty()
            && self.slot_states.iter().all(|slot_state| !slot_state.is_wanting)
    }

    /// Whether it has been empty for so long that it can be forgotten.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        /// Longer than most pauses between two calls of somebody who is at work.
        const KEPT: Duration = Duration::from_secs(30);
        !self.is_acquiring && self.is_empty() && self.set.tally().is_empty() && now - self.last_busy >= KEPT
    }
}
