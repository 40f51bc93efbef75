//! Amounts: what a call takes of a limit depends on what the limit counts.

use std::sync::atomic::{AtomicU64, Ordering};

use raft::resources::{Price, Unit};

/// What a call uses, or is taken to need.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Amount {
    /// Tokens of its prompt.
    pub input: u64,
    /// Tokens of its answer.
    pub output: u64,
    /// 1 once it has reached a replica.
    pub requests: u64,
}

impl Amount {
    /// Of a call that has reached a replica, or is to.
    pub fn of_call(input: u64, output: u64) -> Amount {
        Amount { input, output, requests: 1 }
    }

    /// All tokens.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// What a call that needs it holds of a limit of this unit, tokens at `price`.
    pub fn held_of(self, unit: Unit, price: Price) -> u64 {
        match unit {
            Unit::Total => self.total(),
            Unit::Input => self.input,
            Unit::Output => self.output,
            Unit::Requests | Unit::InProgress => self.requests,
            Unit::Cost => price.of(self.input, self.output),
        }
    }

    /// What is gone of such a limit once a call has used it and ended.
    pub fn used_of(self, unit: Unit, price: Price) -> u64 {
        if unit == Unit::InProgress { 0 } else { self.held_of(unit, price) }
    }
}

/// A sum of amounts that many add to at once. It only grows.
#[derive(Default)]
pub(super) struct Sum {
    input: AtomicU64,
    output: AtomicU64,
    requests: AtomicU64,
}

impl Sum {
    pub(super) fn add(&self, amount: Amount) {
        self.input.fetch_add(amount.input, Ordering::AcqRel);
        self.output.fetch_add(amount.output, Ordering::AcqRel);
        self.requests.fetch_add(amount.requests, Ordering::AcqRel);
    }

    pub(super) fn get(&self) -> Amount {
        let read = |part: &AtomicU64| part.load(Ordering::Acquire);
        Amount { input: read(&self.input), output: read(&self.output), requests: read(&self.requests) }
    }
}
