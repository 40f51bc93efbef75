//! A hold: what a call holds in the limits of one limit subject.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Allowance;
use super::amount::Amount;
use super::set::MeterSet;
use super::slots::{Granted, Slot, Slots};

/// One for each scope of limits; most subscriptions have one.
pub(super) type Holds = SmallVec<[Hold; 1]>;

/// What a call holds in the limits of one limit subject. It settles when it is dropped.
pub(crate) struct Hold {
    allowance: Arc<Allowance>,
    pub(super) set: Arc<MeterSet>,
    /// The windows it took from: it settles there, whatever window is open then.
    pub(super) slots: Arc<Slots>,
    /// What it holds of each slot.
    pub(super) granted: Granted,
    pub(super) observed: Amount,
}

impl Hold {
    /// Of what was just taken from `slots`.
    pub(crate) fn new(allowance: &Arc<Allowance>, set: Arc<MeterSet>, slots: Arc<Slots>, granted: Granted) -> Hold {
        Hold { allowance: allowance.clone(), set, slots, granted, observed: Amount::default() }
    }

    /// The call needs just `need`. Returns what is held until the rest is given back.
    pub(super) fn shrink(&mut self, need: Amount) -> Granted {
        let left = self.slots.left_of(&self.granted, need);
        std::mem::replace(&mut self.granted, left)
    }

    /// Its slots, and what it holds of each.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&Slot, u64)> {
        self.slots.slots.iter().zip(self.granted.iter().copied())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.slots.settle(&self.granted, self.observed);
        self.allowance.mark(&self.set);
    }
}
