//! A slot is one limit with the window that is open now; [`Slots`] are all limits of a set.
//!
//! Slots are published whole, so a reservation keeps the meters it took from and settles in the window it belongs to, whatever
//! happened since.

use std::sync::Arc;

use raft::Timestamp;
use raft::resources::{Enforcement, Limit, Price, Unit};
use raft::state::MeterId;
use smallvec::SmallVec;

use super::amount::Amount;
use super::meter::LocalMeter;
use super::set::LimitSubject;
use crate::routing::AccessKey;

/// What a call holds of each slot of its set, in order: all that it needs, or the rest of a limit.
pub(crate) type Granted = SmallVec<[u64; 4]>;

/// One limit, its current window, and what the ledger last said of it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) rule: Arc<Rule>,
    pub(crate) meter: Arc<LocalMeter>,
    /// Charged in the meter's window beside what the meter says was used, as this node last saw it.
    pub(crate) settled: u64,
    /// Held in that window by other nodes, or orphaned.
    pub(crate) elsewhere: u64,
    /// Owed beyond that window, as far as the ledger knows.
    pub(crate) debt: u64,
}

/// One limit of somebody.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    pub(crate) id: Arc<MeterId>,
    pub(crate) limit: u64,
    /// The window as written.
    pub(super) window: String,
    /// Nothing may ever be used beyond it.
    pub(super) is_hard: bool,
    /// A call that nobody competes with may hold less of it than it needs.
    pub(crate) gives_rest: bool,
    /// Of tokens, if it counts money.
    pub(crate) price: Price,
}

impl Rule {
    /// What the limit counts.
    pub(crate) fn unit(&self) -> Unit {
        self.id.limit.unit
    }

    /// How much of it is gone once a call has used `amount` and ended.
    pub(super) fn used_of(&self, amount: Amount) -> u64 {
        amount.used_of(self.unit(), self.price)
    }
}

impl Slot {
    /// A slot of a limit of which nothing is known yet.
    pub(crate) fn new(rule: Arc<Rule>) -> Slot {
        Slot { rule, meter: Arc::default(), settled: 0, elsewhere: 0, debt: 0 }
    }

    /// How much of it a call takes that needs `need`: a call larger than the whole limit takes the whole limit, unless that is hard.
    pub(crate) fn share_of(&self, need: Amount) -> u64 {
        let share = need.held_of(self.rule.unit(), self.rule.price);
        if self.rule.is_hard { share } else { share.min(self.rule.limit) }
    }

    /// Whether `need` cannot be had before the window ends, whatever comes back: so much is really spent.
    pub(super) fn is_spent_for(&self, need: Amount, now: Timestamp) -> bool {
        // A call that is alone needs no more than the rest.
        let least = if self.rule.gives_rest { self.share_of(need).min(1) } else { self.share_of(need) };
        self.meter.number != 0 && self.meter.ends > now && self.used().saturating_add(least) > self.rule.limit
    }

    /// Owed beyond the window: what the ledger knows, and what it has not been told.
    pub(super) fn debt(&self) -> u64 {
        self.debt.saturating_add(self.meter.excess())
    }

    /// Used in the meter's window, by everybody, as far as this node knows.
    pub(super) fn used(&self) -> u64 {
        self.settled.saturating_add(self.meter.used())
    }
}

/// Everything a reservation takes from, published whole.
#[derive(Default, Debug)]
pub(crate) struct Slots {
    /// All limits that the subscription said, these slots' among them. `None`: the subscription or the model is gone.
    pub(crate) limits: Option<Vec<Limit>>,
    pub(crate) slots: Vec<Slot>,
}

impl Slots {
    /// Slots of a limit subject under `limits`; meters of `before` that go on being limits, as high as before or higher, are kept.
    pub(crate) fn of(
        key: &AccessKey,
        limit_subject: &LimitSubject,
        limits: Option<Vec<Limit>>,
        before: &Slots,
    ) -> Slots {
        let mut slots: Vec<Slot> = Vec::new();
        for limit in limits.iter().flatten().filter(|limit| limit.scope == limit_subject.scope) {
            let id = Arc::new(MeterId {
                subscription: (key.subscription.namespace.to_string(), key.subscription.name.to_string()),
                model: (key.model.namespace.to_string(), key.model.name.to_string()),
                limit: limit.kind(),
                subject: limit_subject.subject.clone(),
            });
            let (is_hard, gives_rest) = (limit.enforcement == Enforcement::Hard, limit.gives_rest());
            let (window, price) = (limit.window.clone(), limit.price);
            let rule = Arc::new(Rule { id, limit: limit.limit, window, is_hard, gives_rest, price });
            // Two limits of one kind are one: the smaller, or of two alike the hard one.
            if let Some(slot) = slots.iter_mut().find(|slot| slot.rule.id == rule.id) {
                if (rule.limit, !rule.is_hard) < (slot.rule.limit, !slot.rule.is_hard) {
                    slot.rule = rule;
                }
                continue;
            }
            // Under a lowered limit the meter begins empty: what was granted under the higher one goes back unspent.
            let known = before.slots.iter().find(|slot| slot.rule.id == rule.id && slot.rule.limit <= rule.limit);
            slots.push(
                known.map_or_else(|| Slot::new(rule.clone()), |slot| Slot { rule: rule.clone(), ..slot.clone() }),
            );
        }
        Slots { limits, slots }
    }

    /// Whether a permit under `limits` may take from these slots.
    pub(crate) fn stand_for(&self, limits: &[Limit]) -> bool {
        self.limits.as_deref() == Some(limits)
    }

    /// Reserves `need` in every slot, or in none. In slots that `has_rest` (by their place) less will do: what is free, if no other call
    /// holds anything.
    pub(super) fn take(&self, need: Amount, has_rest: impl Fn(usize) -> bool) -> Option<Granted> {
        let mut granted = Granted::new();
        for (at, slot) in self.slots.iter().enumerate() {
            let share = slot.share_of(need);
            let taken = if slot.meter.take(share) {
                Some(share)
            } else if has_rest(at) {
                slot.meter.take_rest(share)
            } else {
                None
            };
            let Some(taken) = taken else {
                self.put_back(&granted);
                return None;
            };
            granted.push(taken);
        }
        Some(granted)
    }

    /// Undoes what was taken of the first slots.
    fn put_back(&self, granted: &[u64]) {
        for (slot, granted) in self.slots.iter().zip(granted) {
            slot.meter.put_back(*granted);
        }
    }

    /// Ends a hold of `granted` of which (or beyond which) `used` was used.
    pub(super) fn settle(&self, granted: &[u64], used: Amount) {
        for (slot, granted) in self.slots.iter().zip(granted) {
            slot.meter.settle(*granted, slot.rule.used_of(used));
        }
    }

    /// Gives back what a hold of `before` has beyond `after`.
    pub(super) fn give_back(&self, before: &[u64], after: &[u64]) {
        for (slot, (before, after)) in self.slots.iter().zip(before.iter().zip(after)) {
            slot.meter.put_back(before - after);
        }
    }

    /// What is left of a hold of `granted` once the call needs just `need`.
    pub(super) fn left_of(&self, granted: &[u64], need: Amount) -> Granted {
        self.slots.iter().zip(granted).map(|(slot, granted)| slot.share_of(need).min(*granted)).collect()
    }

    pub(super) fn is_low(&self) -> bool {
        self.slots.iter().any(|slot| slot.meter.is_low())
    }
}

#[cfg(test)]
mod tests;
