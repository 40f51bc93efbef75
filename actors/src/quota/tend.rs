//! What the actor knows of one set beside the book: who waits, how fast tokens go, what the ledger last said.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use raft::{NodeId, Timestamp, View};
use tokio::time::Instant;

use super::amount::{Amount, Rate};
use super::book::{MeterSet, Rule, Slot, Slots};
use super::decide::{self, Prospect, Reading};
use super::meter::Meter;
use super::queue::{self, Waiter};
use super::reading::{self, LastRefusal};
use super::reservation::Hold;
use super::{QuotaRefusal, Shared};

/// A set in the actor's care.
pub(super) struct Tended {
    pub(super) set: Arc<MeterSet>,
    pub(super) waiters: VecDeque<Waiter>,
    /// Whether a draw for it is in flight.
    pub(super) is_drawing: bool,
    /// One for each slot, in order.
    pub(super) notes: Vec<Note>,
    /// What calls take.
    rate: Rate,
    /// What they had taken when that was measured.
    taken: Amount,
    measured: Instant,
    /// Since when `Note::lowest` has been watched.
    watched_since: Instant,
    /// Whether anything was taken since then.
    was_used: bool,
    /// When something was last in it.
    last_busy: Instant,
}

/// What is known of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    pub(super) refusal: Option<LastRefusal>,
    /// Whether the ledger has noted that this node wants tokens of it.
    pub(super) is_wanting: bool,
    /// The fewest free tokens while watched.
    lowest: u64,
    /// To be given back with the next batch.
    pub(super) surplus: u64,
    /// What other nodes hold, and since when it has been just that.
    others: (u64, Instant),
}

impl Note {
    fn new(now: Instant) -> Note {
        Note { refusal: None, is_wanting: false, lowest: u64::MAX, surplus: 0, others: (0, now) }
    }
}

/// What is known at one moment.
pub(super) struct Moment {
    pub(super) view: Arc<View>,
    pub(super) node: NodeId,
    pub(super) now: Timestamp,
    pub(super) instant: Instant,
    /// Whether the batch in flight is in the View. Until its answer is handled, what it draws is neither in the book nor available.
    pub(super) is_answer_due: bool,
}

/// What a set with waiting calls wants from the ledger.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Nothing: it can only wait.
    Nothing,
    /// So many tokens of each slot.
    Draw(Vec<u64>),
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

    // === Waiting calls ===

    /// Answers every waiting call that can be answered now, or has waited long enough, in order.
    pub(super) fn serve(&mut self, shared: &Arc<Shared>, moment: &Moment) {
        while let Some(waiter) = self.waiters.front() {
            if waiter.is_gone() {
                self.waiters.pop_front();
                continue;
            }
            let Some(answer) = self.answer_to(waiter, shared, moment) else { return };
            if let Some(waiter) = self.waiters.pop_front() {
                waiter.answer(answer);
            }
        }
    }

    /// What the first waiting call is told; `None`: it waits on.
    fn answer_to(&self, waiter: &Waiter, shared: &Arc<Shared>, moment: &Moment) -> Option<Result<Hold, QuotaRefusal>> {
        let slots = self.set.slots.load_full();
        if !slots.stand_for(&waiter.permit.subscription().limits) {
            return Some(Err(QuotaRefusal::Changed));
        }
        if self.set.take(&slots, waiter.need) {
            return Some(Ok(Hold::new(shared, self.set.clone(), slots, waiter.need)));
        }
        let exhausted =
            |slot, is_spent| Some(Err(queue::exhausted(&waiter.permit, slot, waiter.need, moment.now, is_spent)));
        let obstacle = self.obstacle(&slots, waiter.need, moment);
        // Nothing is final while a draw is on its way.
        if let Some((spent, Prospect::Spent)) = obstacle
            && !self.is_drawing
        {
            return exhausted(spent, true);
        }
        if moment.instant - waiter.since < self.wait_max(obstacle.is_some(), shared, moment) {
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
    pub(super) fn deadline(&self, shared: &Shared, moment: &Moment) -> Option<Instant> {
        let first = self.waiters.front()?;
        let has_obstacle = self.obstacle(&self.set.slots.load(), first.need, moment).is_some();
        Some(first.since + self.wait_max(has_obstacle, shared, moment))
    }

    /// How long a call waits: for others to give back what it needs if there is an obstacle, for the ledger to answer if there is none.
    fn wait_max(&self, has_obstacle: bool, shared: &Shared, moment: &Moment) -> Duration {
        if has_obstacle { self.patience(shared, moment) } else { shared.settings.ledger_wait }
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
    fn patience(&self, shared: &Shared, moment: &Moment) -> Duration {
        let held_wait = shared.settings.held_wait;
        let unmoved = |note: &Note| moment.instant - note.others.1 > held_wait;
        let readings = self.readings(moment);
        // What others hold without ever giving any back (a node that is gone, a very long call) is not waited for again and again.
        let is_stuck = !self.is_drawing
            && readings.iter().all(|reading| reading.held == 0)
            && readings.iter().zip(&self.notes).any(|(reading, note)| reading.others > 0 && unmoved(note));
        if is_stuck { shared.settings.recall_wait.min(held_wait) } else { held_wait }
    }

    // === Time passing ===

    /// Looks at what has happened since the last tick. Whether the ledger should hear of it.
    pub(super) fn tick(&mut self, shared: &Shared, moment: &Moment) -> bool {
        self.measure(moment.instant);
        // Calls that were refused ask for no batch of their own.
        let mut has_news = !self.set.tally().is_empty();
        if self.is_empty() && !self.was_used {
            return has_news;
        }
        self.follow_windows(moment);
        let slots = self.set.slots.load_full();
        let rate = self.rate();
        for (slot, note) in slots.slots.iter().zip(&mut self.notes) {
            note.lowest = note.lowest.min(slot.meter.free());
            slot.meter.set_low_water(decide::low_water(slot.meter.free(), slot.rate(rate)));
        }
        if moment.instant - self.watched_since >= shared.settings.idle_return {
            if !self.was_used {
                self.rate = Rate::default();
            }
            let rate = self.rate();
            for (slot, note) in slots.slots.iter().zip(&mut self.notes) {
                note.surplus = decide::surplus(note.lowest, slot.rate(rate));
                has_news |= note.surplus > 0;
                note.lowest = u64::MAX;
            }
            self.watched_since = moment.instant;
            self.was_used = false;
        }
        let retired_has_news = self.set.retired().iter().any(|(_, meter)| meter.has_news());
        has_news
            || retired_has_news
            || self.wants_top_up(moment)
            || slots.slots.iter().any(|slot| slot.meter.has_news())
    }

    /// What to draw ahead for: nothing for somebody who calls now and then, for whom it would only travel back.
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

    fn wants_top_up(&self, moment: &Moment) -> bool {
        let sharers = moment.view.sharers();
        let slots = self.set.slots.load();
        let (rate, readings) = (self.rate(), self.readings(moment));
        let wants = |(slot, reading): (&Slot, &Reading)| {
            slot.meter.number != 0 && reading.top_up(slot.rate(rate), sharers).is_some()
        };
        self.waiters.is_empty() && !self.is_drawing && slots.slots.iter().zip(&readings).any(wants)
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

impl Wish {
    fn of(tokens: Vec<u64>) -> Wish {
        if tokens.iter().all(|tokens| *tokens == 0) { Wish::Nothing } else { Wish::Draw(tokens) }
    }
}
