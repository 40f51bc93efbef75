//! Batches: what is put into one, and what its answer means for the book.

use std::sync::Arc;
use std::time::Duration;

use raft::command::{Draw, QuotaEntry, QuotaGrant};
use raft::journal::CallPart;
use raft::state::{MeterId, Subject, UsageRow};

use super::decide;
use super::moment::Moment;
use super::outbox::Sent;
use super::reading::{self, LastRefusal};
use super::set_state::Tended;
use super::waiting::Wish;
use crate::quota::allowance::{Meter, Rule, Slot};

/// So long the ledger's word that a window is still open stands against this node's clock.
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
    pub(super) fn add(&mut self, tended: &mut Tended, moment: &Moment, gives_all: bool) -> bool {
        // Before anything is read: what happens from now on asks for the next batch.
        tended.set.unmark();
        let set = tended.set.clone();
        let mut tally = set.tally();
        let taken = tally.take(BATCH_BYTES_MAX.saturating_sub(self.bytes), moment.now);
        self.usage.extend(taken.rows);
        self.parts.extend(taken.parts);
        self.bytes += taken.bytes;
        if !tally.is_empty() {
            // What limits are charged goes with the last row, never before it.
            return false;
        }
        for (rule, meter) in tended.set.retired().iter().filter(|(_, meter)| meter.has_news()) {
            let (spent, returned) = match meter.is_lapsed() {
                true => (0, 0),
                false => (meter.start_report(), meter.take_free(u64::MAX)),
            };
            self.push(tended, rule, meter, Told { spent, returned, draw: None });
        }
        tended.measure(moment.instant);
        let slots = tended.set.slots.load_full();
        let given = |(at, slot): (usize, &Slot)| slot.meter.take_free(to_give(tended, at, slot, moment, gives_all));
        let given: Vec<u64> = slots.slots.iter().enumerate().map(given).collect();
        let draws = draws(tended, &slots.slots, moment, gives_all);
        for (at, (slot, draw)) in slots.slots.iter().zip(draws).enumerate() {
            let returned = given[at];
            let told = Told { spent: slot.meter.start_report(), returned, draw };
            let must_stop_wanting = tended.notes[at].is_wanting && draw.is_none();
            if told.is_something() || slot.meter.has_news() || must_stop_wanting {
                self.push(tended, &slot.rule, &slot.meter, told);
            }
            tended.notes[at].surplus = 0;
            tended.is_drawing |= draw.is_some();
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

    /// Adds a row of an earlier life's calls, or an entry about them.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    fn push(&mut self, tended: &Tended, rule: &Rule, meter: &Arc<Meter>, told: Told) {
        let Told { spent, returned, draw } = told;
        let is_of_window = spent > 0 || returned > 0;
        let window = if is_of_window { meter.number } else { 0 };
        self.bytes += size(&rule.id);
        self.entries.push(QuotaEntry {
            meter: (*rule.id).clone(),
            window,
            spent,
            returned,
            excess: meter.take_excess(),
            draw,
        });
        self.sent.push(Sent { set: tended.set.clone(), meter: meter.clone(), spent, draw });
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
    draw: Option<Draw>,
}

impl Told {
    fn is_something(&self) -> bool {
        self.spent > 0 || self.returned > 0 || self.draw.is_some()
    }
}

/// What to draw of each slot: what waiting calls need and some more, or a top-up.
fn draws(tended: &Tended, slots: &[Slot], moment: &Moment, gives_all: bool) -> Vec<Option<Draw>> {
    let nothing = vec![None; slots.len()];
    if gives_all || tended.is_drawing {
        return nothing;
    }
    let readings = tended.readings(moment);
    let sharers = moment.view.sharers();
    let Some(first) = tended.waiters.front() else {
        let top_up = |(slot, reading): (&Slot, &decide::Reading)| {
            let is_spared = slot.meter.number == 0 || moment.view.recalled.contains(&*slot.rule.id);
            if is_spared { None } else { reading.top_up(tended.rate().of_slot(slot), sharers) }
        };
        return slots.iter().zip(&readings).map(top_up).collect();
    };
    let wished = match tended.wish(moment) {
        Wish::Nothing => vec![0; slots.len()],
        Wish::Draw(tokens) => tokens,
    };
    let draw = |at: usize| {
        let (slot, note) = (&slots[at], &tended.notes[at]);
        // A wish that the ledger has noted is kept up as long as somebody waits: an entry without a draw would end it.
        let kept = if note.is_wanting { readings[at].short(slot.share_of(first.need)) } else { 0 };
        let need = wished[at].max(kept);
        (need > 0).then(|| Draw { need, extra: decide::extra(tended.rate().of_slot(slot)), alone: false })
    };
    (0..slots.len()).map(draw).collect()
}

/// How many free tokens of a slot go back.
fn to_give(tended: &Tended, at: usize, slot: &Slot, moment: &Moment, gives_all: bool) -> u64 {
    if slot.meter.number == 0 {
        return 0;
    }
    if gives_all {
        return u64::MAX;
    }
    if !tended.waiters.is_empty() {
        // Two nodes that each hold a part of what both wait for would wait for each other: the higher one gives way.
        return if reading::is_wanted_before(&moment.view, slot, moment.node) { u64::MAX } else { 0 };
    }
    let is_recalled = moment.view.recalled.contains(&*slot.rule.id);
    if is_recalled { u64::MAX } else { tended.notes[at].surplus }
}

/// Books the answer to one entry.
pub(super) fn take_answer(tended: &mut Tended, moment: &Moment, entry: &QuotaEntry, sent: &Sent, grant: QuotaGrant) {
    let slots = tended.set.slots.load_full();
    let at = slots.slots.iter().position(|slot| *slot.rule.id == entry.meter);
    let is_current = |at: &usize| Arc::ptr_eq(&slots.slots[*at].meter, &sent.meter) || sent.draw.is_some();
    if let Some(at) = at.filter(is_current) {
        tended.enter_window(at, grant.window, grant.ends);
        let slots = tended.set.slots.load_full();
        let meter = &slots.slots[at].meter;
        meter.grant(grant.granted);
        meter.set_low_water(decide::low_water(meter.free(), tended.rate().of_slot(&slots.slots[at])));
        let was_refused = sent.draw.is_some() && grant.granted == 0;
        let note = &mut tended.notes[at];
        note.is_wanting = was_refused;
        note.refusal =
            was_refused.then(|| LastRefusal { window: grant.window, until: moment.instant + REFUSAL_STANDS });
    }
    sent.meter.reported(sent.spent);
    // The View has what was answered: whoever proposes is answered when its node has applied it.
    tended.refresh(moment);
}
