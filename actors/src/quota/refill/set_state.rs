//! What the actor knows of one set beside the book: who waits, how fast tokens go, what the ledger last said.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use raft::Timestamp;
use tokio::time::Instant;

use super::decide::Reading;
use super::moment::Moment;
use super::rate::Rate;
use super::reading::{self, LastRefusal};
use crate::quota::allowance::{Amount, Meter, MeterSet, Rule, Slot, Slots, Waiter};

/// A set in the actor's care.
pub(super) struct Tended {
    pub(super) set: Arc<MeterSet>,
    pub(super) waiters: VecDeque<Waiter>,
    /// Whether a draw for it is in flight.
    pub(super) is_drawing: bool,
    /// One for each slot, in order.
    pub(super) notes: Vec<Note>,
    /// What calls take.
    pub(super) rate: Rate,
    /// What they had taken when that was measured.
    pub(super) taken: Amount,
    pub(super) measured: Instant,
    /// Since when `Note::lowest` has been watched.
    pub(super) watched_since: Instant,
    /// Whether anything was taken since then.
    pub(super) was_used: bool,
    /// When something was last in it.
    pub(super) last_busy: Instant,
}

/// What is known of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
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

impl Note {
    fn new(now: Instant) -> Note {
        Note { refusal: None, is_wanting: false, lowest: u64::MAX, surplus: 0, others: (0, now) }
    }
}

impl Tended {
    pub(super) fn new(set: Arc<MeterSet>, now: Instant) -> Tended {
        let notes = vec![Note::new(now); set.slots.load().slots.len()];
        let taken = set.taken();
        Tended {
            set,
            waiters: VecDeque::new(),
            is_drawing: false,
            notes,
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
    pub(super) fn follow_limits(&mut self, moment: &Moment) {
        let before = self.set.slots.load_full();
        let limits = reading::limits_in(&moment.view, &self.set.key);
        if before.limits == limits {
            return;
        }
        let after = Slots::of(&self.set.key, &self.set.party, limits, &before);
        self.notes = vec![Note::new(moment.instant); after.slots.len()];
        let stays = |slot: &&Slot| after.slots.iter().any(|kept| Arc::ptr_eq(&kept.meter, &slot.meter));
        for gone in before.slots.iter().filter(|slot| !stays(slot)) {
            self.retire(&gone.rule, &gone.meter);
        }
        self.set.slots.store(Arc::new(after));
    }

    /// Puts a meter aside until nothing is in it any more.
    fn retire(&self, rule: &Arc<Rule>, meter: &Arc<Meter>) {
        meter.retire();
        if meter.number != 0 {
            self.set.retired().push((rule.clone(), meter.clone()));
        }
    }

    /// Gives the slot at `at` the window `number`, unless it has it already.
    pub(super) fn enter_window(&mut self, at: usize, number: u64, ends: Timestamp) {
        let slots = self.set.slots.load_full();
        let Some(slot) = slots.slots.get(at).filter(|slot| slot.meter.number != number) else { return };
        let meter = Arc::new(Meter::new(number, ends));
        self.update(|slots| slots[at] = Slot { meter, ..Slot::new(slot.rule.clone()) });
        slot.meter.lapse();
        self.retire(&slot.rule, &slot.meter);
        self.notes[at] = Note { is_wanting: false, lowest: u64::MAX, surplus: 0, ..self.notes[at] };
    }

    pub(super) fn readings(&self, moment: &Moment) -> Vec<Reading> {
        let slots = self.set.slots.load();
        let notes = slots.slots.iter().zip(&self.notes);
        notes
            .map(|(slot, note)| {
                reading::read(&moment.view, slot, moment.node, moment.now, note.refusal, moment.instant)
            })
            .collect()
    }

    /// Leaves windows that are over and enters those that others have opened, so that callers are told the truth and need not ask
    /// the ledger for what is spent already.
    pub(super) fn follow_windows(&mut self, moment: &Moment) {
        let slots = self.set.slots.load_full();
        for (at, slot) in slots.slots.iter().enumerate() {
            let is_over = reading::is_over(&moment.view, slot);
            match reading::current_window(&moment.view, slot) {
                Some(window) if is_over || slot.meter.number == 0 => self.enter_window(at, window.number, window.ends),
                None if is_over => self.enter_window(at, 0, Timestamp::default()),
                Some(_) | None => {}
            }
        }
        self.set.retired().retain(|(_, meter)| !meter.is_empty());
        self.watch_others(moment);
    }

    fn watch_others(&mut self, moment: &Moment) {
        let mut changed = false;
        let mut slots = self.set.slots.load().slots.clone();
        for (slot, note) in slots.iter_mut().zip(&mut self.notes) {
            let before = (slot.settled, slot.elsewhere);
            reading::refresh(&moment.view, slot, moment.node);
            changed |= before != (slot.settled, slot.elsewhere);
            if note.others.0 != slot.elsewhere {
                note.others = (slot.elsewhere, moment.instant);
            }
        }
        if changed {
            self.update(|published| *published = slots);
        }
    }

    /// Copies what the ledger says into the published slots.
    pub(super) fn refresh(&mut self, moment: &Moment) {
        self.watch_others(moment);
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
            && !self.set.somebody_waits()
            && self.set.slots.load().slots.iter().all(|slot| slot.meter.is_empty())
            && self.set.retired().is_empty()
            && self.notes.iter().all(|note| !note.is_wanting)
    }

    /// Whether it has been empty for so long that it can be forgotten.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        /// Longer than most pauses between two calls of somebody who is at work.
        const KEPT: Duration = Duration::from_secs(30);
        !self.is_drawing && self.is_empty() && self.set.tally().is_empty() && now - self.last_busy >= KEPT
    }
}
