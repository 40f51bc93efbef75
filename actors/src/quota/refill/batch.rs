//! Batches: what is put into one, and what its answer means for the local allowance.

use std::sync::Arc;
use std::time::Duration;

use raft::command::{Acquire, QuotaEntry, QuotaGrant};
use raft::journal::CallPart;
use raft::state::{MeterId, Subject, UsageRow};

use super::decide;
use super::ledger_snapshot::LedgerSnapshot;
use super::outbox::Sent;
use super::reading::{self, LastRefusal};
use super::set_state::SetState;
use super::waiting::Demand;
use crate::quota::allowance::{LocalMeter, Rule, Slot};

/// So long a refused acquire stands: against this node's clock if that says that the window is over, and for whoever else wants what the
/// ledger said that others hold.
const REFUSAL_STANDS: Duration = Duration::from_millis(100);

/// The size of one batch, about: a quarter of what the log takes in one entry. The rest goes with the next batch.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// A batch being put together.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) entries: Vec<QuotaEntry>,
    pub(super) sent: Vec<Sent>,
    pub(super) usage: Vec<UsageRow>,
    pub(super) parts: Vec<CallPart>,
    /// Its size, about.
    bytes: usize,
}

impl Draft {
    /// Adds what there is to tell of a set, and returns whether that was all. `gives_all`: the node is leaving, so everything unused
    /// goes back.
    pub(super) fn add(&mut self, state: &mut SetState, snapshot: &LedgerSnapshot, gives_all: bool) -> bool {
        // Before anything is read: what happens from now on asks for the next batch.
        state.set.unmark();
        let set = state.set.clone();
        let mut tally = set.tally();
        let taken = tally.take(BATCH_BYTES_MAX.saturating_sub(self.bytes), snapshot.now);
        self.usage.extend(taken.rows);
        self.parts.extend(taken.parts);
        self.bytes += taken.bytes;
        if !tally.is_empty() {
            // What limits are charged goes with the last row, never before it.
            return false;
        }
        for (rule, meter) in state.set.closed().iter().filter(|(_, meter)| meter.has_news()) {
            let (spent, returned) = match meter.is_lapsed() {
                true => (0, 0),
                false => (meter.start_report(), meter.take_free(u64::MAX)),
            };
            self.push(state, rule, meter, Told { spent, returned, acquire: None });
        }
        state.measure(snapshot.instant);
        let slots = state.set.slots.load_full();
        let given = |(at, slot): (usize, &Slot)| slot.meter.take_free(to_give(state, at, slot, snapshot, gives_all));
        let given: Vec<u64> = slots.slots.iter().enumerate().map(given).collect();
        let acquires = acquires(state, &slots.slots, snapshot, gives_all);
        for (at, (slot, acquire)) in slots.slots.iter().zip(acquires).enumerate() {
            let returned = given[at];
            let told = Told { spent: slot.meter.start_report(), returned, acquire };
            let must_stop_wanting = acquire.is_none()
                && match gives_all {
                    true => state.slot_states[at].is_wanting,
                    false => state.slot_states[at].is_to_give_up(snapshot.instant),
                };
            if told.is_something() || slot.meter.has_news() || must_stop_wanting {
                self.push(state, &slot.rule, &slot.meter, told);
            }
            state.slot_states[at].surplus = 0;
            state.is_acquiring |= acquire.is_some();
        }
        true
    }

    /// Whether nothing else fits into it.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.usage.is_empty() && self.parts.is_empty()
    }

    /// Adds a row of an earlier incarnation's calls, or an entry about them.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    fn push(&mut self, state: &SetState, rule: &Rule, meter: &Arc<LocalMeter>, told: Told) {
        let Told { spent, returned, acquire } = told;
        let is_of_window = spent > 0 || returned > 0;
        let window = if is_of_window { meter.number } else { 0 };
        self.bytes += size(&rule.id);
        self.entries.push(QuotaEntry {
            meter: (*rule.id).clone(),
            window,
            spent,
            returned,
            excess: meter.take_excess(),
            acquire,
        });
        self.sent.push(Sent { set: state.set.clone(), meter: meter.clone(), spent, acquire });
    }
}

/// The size of an entry about a meter, about.
pub(super) fn size(meter: &MeterId) -> usize {
    /// Numbers and lengths of one entry, at most, and the id of a key.
    const FIXED_BYTES: usize = 96;
    let MeterId { subscription, model, limit: _, subject } = meter;
    let names = [&subscription.0, &subscription.1, &model.0, &model.1].map(String::len).iter().sum::<usize>();
    FIXED_BYTES + names + if let Subject::User(name) = subject { name.len() } else { 0 }
}

#[derive(Clone, Copy)]
struct Told {
    spent: u64,
    returned: u64,
    acquire: Option<Acquire>,
}

impl Told {
    fn is_something(&self) -> bool {
        self.spent > 0 || self.returned > 0 || self.acquire.is_some()
    }
}

/// What to acquire of each slot: what waiting calls need and some more, or a top-up.
fn acquires(state: &SetState, slots: &[Slot], snapshot: &LedgerSnapshot, gives_all: bool) -> Vec<Option<Acquire>> {
    let nothing = vec![None; slots.len()];
    if gives_all || state.is_acquiring {
        return nothing;
    }
    let readings = state.readings(snapshot);
    let sharers = snapshot.view.sharers();
    let Some(first) = state.waiters.front() else {
        let top_up = |(slot, reading): (&Slot, &decide::Reading)| {
            let is_spared = slot.meter.number == 0 || snapshot.view.recalled.contains(&*slot.rule.id);
            if is_spared { None } else { reading.top_up(state.rate().of_slot(slot), sharers) }
        };
        return slots.iter().zip(&readings).map(top_up).collect();
    };
    let demanded = match state.demand(snapshot) {
        Demand::Nothing => vec![0; slots.len()],
        Demand::Acquire(tokens) => tokens,
    };
    let acquire = |at: usize| {
        let (slot, slot_state) = (&slots[at], &state.slot_states[at]);
        // A demand that the ledger has noted is kept up as long as somebody waits: an entry without an acquire would end it.
        let kept = if slot_state.is_wanting { readings[at].short(slot.share_of(first.need)) } else { 0 };
        let need = demanded[at].max(kept);
        let (extra, alone) = (decide::extra(state.rate().of_slot(slot)), readings[at].takes_rest());
        (need > 0).then_some(Acquire { need, extra, alone })
    };
    (0..slots.len()).map(acquire).collect()
}

/// How many free tokens of a slot go back.
fn to_give(state: &SetState, at: usize, slot: &Slot, snapshot: &LedgerSnapshot, gives_all: bool) -> u64 {
    if slot.meter.number == 0 {
        return 0;
    }
    if gives_all {
        return u64::MAX;
    }
    if !state.waiters.is_empty() {
        // Two nodes that each hold a part of what both wait for would wait for each other: the higher one gives way.
        return if reading::is_wanted_before(&snapshot.view, slot, snapshot.node) { u64::MAX } else { 0 };
    }
    let is_recalled = snapshot.view.recalled.contains(&*slot.rule.id);
    if is_recalled { u64::MAX } else { state.slot_states[at].surplus }
}

/// Records the answer to one entry.
pub(super) fn take_answer(
    state: &mut SetState,
    snapshot: &LedgerSnapshot,
    entry: &QuotaEntry,
    sent: &Sent,
    grant: QuotaGrant,
) {
    let slots = state.set.slots.load_full();
    let at = slots.slots.iter().position(|slot| *slot.rule.id == entry.meter);
    let is_current = |at: &usize| Arc::ptr_eq(&slots.slots[*at].meter, &sent.meter) || sent.acquire.is_some();
    if let Some(at) = at.filter(is_current) {
        state.enter_window(at, grant.window, grant.ends);
        let slots = state.set.slots.load_full();
        let meter = &slots.slots[at].meter;
        meter.grant(grant.granted);
        meter.set_low_water(decide::low_water(meter.free(), state.rate().of_slot(&slots.slots[at])));
        let was_refused = sent.acquire.is_some() && grant.granted == 0;
        let slot_state = &mut state.slot_states[at];
        slot_state.is_wanting = was_refused;
        if sent.acquire.is_some() {
            let until = snapshot.instant + REFUSAL_STANDS;
            slot_state.refusal = was_refused.then_some(LastRefusal { window: grant.window, until });
        }
    }
    sent.meter.reported(sent.spent);
    // The View has what was answered: whoever proposes is answered when its node has applied it.
    state.refresh(snapshot);
}
