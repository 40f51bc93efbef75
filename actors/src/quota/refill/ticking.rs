//! Time passing over a set: how fast its calls take, what goes back, what is acquired ahead.

use std::time::Duration;

use tokio::time::Instant;

use super::decide::{self, Reading};
use super::ledger_snapshot::LedgerSnapshot;
use super::rate::Rate;
use super::set_state::SetState;
use crate::quota::allowance::Slot;

impl SetState {
    /// Looks at what has happened since the last tick. Whether the ledger should hear of it.
    pub(super) fn tick(&mut self, idle_return: Duration, snapshot: &LedgerSnapshot) -> bool {
        self.measure(snapshot.instant);
        // Calls that were refused ask for no batch of their own.
        let mut has_news = !self.set.tally().is_empty();
        has_news |= self.waiters.is_empty()
            && self.slot_states.iter().any(|slot_state| slot_state.is_to_give_up(snapshot.instant));
        if self.is_empty() && !self.was_used {
            return has_news;
        }
        self.follow_windows(snapshot);
        let slots = self.set.slots.load_full();
        let rate = self.rate();
        for (slot, slot_state) in slots.slots.iter().zip(&mut self.slot_states) {
            slot_state.lowest = slot_state.lowest.min(slot.meter.free());
            slot.meter.set_low_water(decide::low_water(slot.meter.free(), rate.of_slot(slot)));
        }
        if snapshot.instant - self.watched_since >= idle_return {
            if !self.was_used {
                self.rate = Rate::default();
            }
            let rate = self.rate();
            for (slot, slot_state) in slots.slots.iter().zip(&mut self.slot_states) {
                slot_state.surplus = decide::surplus(slot_state.lowest, rate.of_slot(slot));
                has_news |= slot_state.surplus > 0;
                slot_state.lowest = u64::MAX;
            }
            self.watched_since = snapshot.instant;
            self.was_used = false;
        }
        let closed_has_news = self.set.closed().iter().any(|(_, meter)| meter.has_news());
        has_news
            || closed_has_news
            || self.wants_top_up(snapshot)
            || slots.slots.iter().any(|slot| slot.meter.has_news())
    }

    /// What to acquire ahead for: nothing for somebody who calls now and then, for whom it would only travel back.
    pub(super) fn rate(&self) -> Rate {
        /// Calls a second of somebody who is at work.
        const BUSY: f64 = 2.0;
        if self.rate.requests < BUSY { Rate::default() } else { self.rate }
    }

    /// Brings the rate up to date, unless that was just done.
    pub(super) fn measure(&mut self, now: Instant) {
        /// Shorter intervals say little.
        const INTERVAL_MIN: Duration = Duration::from_millis(20);
        if now - self.measured < INTERVAL_MIN {
            return;
        }
        let taken = self.set.taken();
        let has_called = taken.requests > self.taken.requests;
        self.rate = self.rate.next(self.taken, taken, now - self.measured);
        self.was_used |= has_called;
        (self.taken, self.measured) = (taken, now);
        if has_called || !self.is_empty() {
            self.last_busy = now;
        }
    }

    fn wants_top_up(&self, snapshot: &LedgerSnapshot) -> bool {
        let sharers = snapshot.view.sharers();
        let slots = self.set.slots.load();
        let (rate, readings) = (self.rate(), self.readings(snapshot));
        let wants = |(slot, reading): (&Slot, &Reading)| {
            slot.meter.number != 0 && reading.top_up(rate.of_slot(slot), sharers).is_some()
        };
        self.waiters.is_empty() && !self.is_acquiring && slots.slots.iter().zip(&readings).any(wants)
    }
}
