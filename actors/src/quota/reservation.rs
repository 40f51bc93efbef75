//! A reservation: what is held for one call, settled exactly once.

use std::fmt;
use std::sync::Arc;

use raft::resources::{Enforcement, Unit};

use super::amount::Amount;
use super::book::{MeterSet, Slots};
use super::standing::{self, LimitStanding};
use super::{Charge, Shared};
use crate::routing::Permit;

/// What a call holds in every limit of its permit. Dropping it charges what was last observed and returns the rest: exactly once, whatever
/// happened.
pub struct Reservation {
    shared: Arc<Shared>,
    permit: Permit,
    /// One for each party that the call counts for: at least one, because every subscription has limits.
    holds: Vec<Hold>,
    need: Amount,
    charge: Charge,
}

impl Reservation {
    pub(super) fn new(shared: &Arc<Shared>, permit: Permit, holds: Vec<Hold>, need: Amount) -> Reservation {
        Reservation { shared: shared.clone(), permit, holds, need, charge: Charge::default() }
    }

    /// What would be charged if the call ended now. Starts at nothing: a call that never reached a replica costs nothing.
    pub fn observe(&mut self, charge: Charge) {
        self.charge = self.believed(charge);
        self.holds.iter_mut().for_each(|hold| hold.observed = self.charge.amount);
    }

    /// What was last observed, as far as it can be true.
    pub fn charge(&self) -> Charge {
        self.charge
    }

    /// Under a hard limit nothing is used beyond what is held: a replica that says otherwise was told to stop before.
    fn believed(&self, charge: Charge) -> Charge {
        let hard = |units: [Unit; 2]| {
            let limits = &self.permit.subscription().limits;
            limits.iter().any(|limit| limit.enforcement == Enforcement::Hard && units.contains(&limit.unit))
        };
        let mut amount = charge.amount;
        if hard([Unit::Total, Unit::Input]) {
            amount.input = amount.input.min(self.need.input);
        }
        if hard([Unit::Total, Unit::Output]) {
            amount.output = amount.output.min(self.need.output);
        }
        Charge { amount, is_absurd: charge.is_absurd || amount != charge.amount, ..charge }
    }

    /// What is held.
    pub fn need(&self) -> Amount {
        self.need
    }

    /// Ends the call. `output` (tokens) teaches the output estimate. Returns where its limits stand from now on.
    pub fn settle(mut self, charge: Charge, output: Option<u64>) -> Limits {
        self.observe(charge);
        if let (Some(output), Some(hold)) = (output, self.holds.first()) {
            hold.set.size.learn(output);
        }
        Limits { sets: self.holds.iter().map(|hold| hold.set.clone()).collect(), shared: self.shared.clone() }
    }

    /// Where each limit stands for this caller now, this reservation counted as used; the tightest first.
    pub fn standing(&self) -> Vec<LimitStanding> {
        of_sets(self.holds.iter().map(|hold| &hold.set), self.need, &self.shared)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut holds = self.holds.drain(..);
        if let (Some(first), Some(sum)) = (holds.next(), self.charge.sum()) {
            let set = first.set.clone();
            let mut tally = set.tally();
            tally.add(&self.permit, &sum);
            drop(first);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("need", &self.need).finish_non_exhaustive()
    }
}

/// The limits that a settled call was held in.
pub struct Limits {
    shared: Arc<Shared>,
    sets: Vec<Arc<MeterSet>>,
}

impl Limits {
    /// Where each limit stands for the caller now; the tightest first.
    pub fn standing(&self) -> Vec<LimitStanding> {
        of_sets(self.sets.iter(), Amount::default(), &self.shared)
    }
}

fn of_sets<'a>(sets: impl Iterator<Item = &'a Arc<MeterSet>>, own: Amount, shared: &Shared) -> Vec<LimitStanding> {
    let slots: Vec<_> = sets.map(|set| set.slots.load()).collect();
    standing::of_slots(slots.iter().flat_map(|slots| &slots.slots), own, shared.now())
}

/// What a call holds in the limits of one party. It settles when it is dropped.
pub(super) struct Hold {
    shared: Arc<Shared>,
    set: Arc<MeterSet>,
    /// The windows it took from: it settles there, whatever window is open then.
    slots: Arc<Slots>,
    need: Amount,
    observed: Amount,
}

impl Hold {
    /// Of `need` that was just taken from `slots`.
    pub(super) fn new(shared: &Arc<Shared>, set: Arc<MeterSet>, slots: Arc<Slots>, need: Amount) -> Hold {
        Hold { shared: shared.clone(), set, slots, need, observed: Amount::default() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.slots.settle(self.need, self.observed);
        self.shared.book.mark(&self.set);
    }
}
