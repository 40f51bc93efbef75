//! A reservation: tokens held for one call, settled exactly once.

use std::fmt;
use std::sync::Arc;

use super::Shared;
use super::book::{MeterSet, Slots};
use super::standing::{self, LimitStanding};

/// Tokens held in every limit of a permit. Dropping it charges what was last observed and returns the rest: exactly once, whatever happened.
pub struct Reservation {
    shared: Arc<Shared>,
    set: Arc<MeterSet>,
    /// The windows it took from: it settles there, whatever window is open then.
    slots: Arc<Slots>,
    tokens: u64,
    observed: u64,
    is_settled: bool,
}

impl Reservation {
    /// Of `tokens` that were just taken from `slots`.
    pub(super) fn new(shared: &Arc<Shared>, set: Arc<MeterSet>, slots: Arc<Slots>, tokens: u64) -> Reservation {
        Reservation { shared: shared.clone(), set, slots, tokens, observed: 0, is_settled: false }
    }

    /// What would be charged if the call ended now (total tokens: prompt and output). Starts at 0: a call that never reached a replica costs nothing.
    pub fn observe(&mut self, tokens: u64) {
        self.observed = tokens;
    }

    /// How many tokens are held.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Ends the call: charges `tokens`. `output` (tokens) teaches the output estimate. Returns where its limits stand from now on.
    pub fn settle(mut self, tokens: u64, output: Option<u64>) -> Limits {
        if let Some(output) = output {
            self.set.size.learn(output);
        }
        self.close(tokens);
        Limits { shared: self.shared.clone(), set: self.set.clone() }
    }

    /// Where each limit stands for this user now, this reservation counted as used; the tightest first.
    pub fn standing(&self) -> Vec<LimitStanding> {
        standing::of_slots(&self.set.slots.load(), self.tokens, self.shared.now())
    }

    fn close(&mut self, tokens: u64) {
        if !std::mem::replace(&mut self.is_settled, true) {
            self.slots.settle(self.tokens, tokens);
            self.shared.book.mark(&self.set);
        }
    }
}

/// The limits that a settled call was held in.
pub struct Limits {
    shared: Arc<Shared>,
    set: Arc<MeterSet>,
}

impl Limits {
    /// Where each limit stands for the call's user now; the tightest first.
    pub fn standing(&self) -> Vec<LimitStanding> {
        standing::of_slots(&self.set.slots.load(), 0, self.shared.now())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.close(self.observed);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reservation { tokens, observed, is_settled, .. } = self;
        f.debug_struct("Reservation")
            .field("tokens", tokens)
            .field("observed", observed)
            .field("is_settled", is_settled)
            .finish_non_exhaustive()
    }
}
