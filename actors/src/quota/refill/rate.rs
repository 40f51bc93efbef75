//! How fast calls take from a set.

use std::time::Duration;

use raft::resources::{Price, Unit};

use super::decide;
use crate::quota::allowance::{Amount, Slot};

/// Amounts a second, lately.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Rate {
    input: f64,
    output: f64,
    pub(super) requests: f64,
}

impl Rate {
    /// After an `interval` in which a sum went from `before` to `after`.
    pub(super) fn next(self, before: Amount, after: Amount, interval: Duration) -> Rate {
        Rate {
            input: decide::next_rate(self.input, after.input.saturating_sub(before.input), interval),
            output: decide::next_rate(self.output, after.output.saturating_sub(before.output), interval),
            requests: decide::next_rate(self.requests, after.requests.saturating_sub(before.requests), interval),
        }
    }

    /// As the slot's limit counts it.
    pub(super) fn of_slot(self, slot: &Slot) -> f64 {
        self.of(slot.rule.unit(), slot.rule.price)
    }

    /// As a limit of this unit counts it, tokens at `price`.
    fn of(self, unit: Unit, price: Price) -> f64 {
        match unit {
            Unit::Total => self.input + self.output,
            Unit::Input => self.input,
            Unit::Output => self.output,
            Unit::Requests => self.requests,
            // However many begin in a second, what matters is how many there are at once.
            Unit::InProgress => 0.0,
            Unit::Cost => self.input * price.input as f64 + self.output * price.output as f64,
        }
    }
}
