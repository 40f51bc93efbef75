//! A hold: what a call holds in the limits of one limit subject.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Allowance;
use super::amount::Amount;
use super::set::MeterSet;
use super::slots::Slots;

/// One for each scope of limits; most subscriptions have one.
pub(super) type Holds = SmallVec<[Hold; 1]>;

/// What a call holds in the limits of one limit subject. It settles when it is dropped.
pub(crate) struct Hold {
    allowance: Arc<Allowance>,
    pub(super) set: Arc<MeterSet>,
    /// The windows it took from: it settles there, whatever window is open then.
    pub(super) slots: Arc<Slots>,
    pub(super) need: Amount,
    pub(super) observed: Amount,
}

impl Hold {
    /// Of `need` that was just taken from `slots`.
    pub(crate) fn new(allowance: &Arc<Allowance>, set: Arc<MeterSet>, slots: Arc<Slots>, need: Amount) -> Hold {
        Hold { allowance: allowance.clone(), set, slots, need, observed: Amount::default() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.slots.settle(self.need, self.observed);
        self.allowance.mark(&self.set);
    }
}
