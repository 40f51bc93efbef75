//! What to do about a limit: whether a need can be met, how much to acquire, what to give back. Pure.

use std::time::Duration;

use raft::command::Acquire;

/// How far a grant is meant to reach at the rate of recent calls.
const REACH_SECONDS: f64 = 2.0;
/// More is acquired when what is left reaches less far than this.
const LOW_SECONDS: f64 = 1.0;
/// A top-up that brings less than this part of what is wanted is not worth a batch: the limit runs low, and each call acquires what it needs.
const WORTH_PART: u64 = 8;

/// One limit as this node sees it, in tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// Free in the local allowance.
    pub(super) free: u64,
    /// Held by calls in progress here, or on its way back to the ledger.
    pub(super) held: u64,
    /// What the ledger could grant now.
    pub(super) available: u64,
    /// What other nodes hold, used or not.
    pub(super) others: u64,
    /// A call that nobody competes with may have less of it than it needs.
    pub(super) gives_rest: bool,
    /// No call of this node holds anything of it.
    pub(super) is_alone: bool,
}

/// Whether a need can be met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Prospect {
    /// From the local allowance.
    Ready,
    /// From the local allowance, which has the rest of the limit: less than the need, and nobody competes for it.
    Rest,
    /// From the ledger, as far as this node knows.
    Acquire,
    /// If calls in progress, or other nodes, give back enough.
    Held,
    /// Not before the window ends.
    Spent,
}

impl Reading {
    /// What is missing in the local allowance for `need`.
    pub(super) fn short(&self, need: u64) -> u64 {
        need.saturating_sub(self.free)
    }

    pub(super) fn prospect(&self, need: u64) -> Prospect {
        let short = self.short(need);
        let may_come_back = self.held.saturating_add(self.others);
        let has_no_rival = self.takes_rest() && may_come_back == 0;
        let in_all = self.available.saturating_add(may_come_back);
        if short == 0 {
            Prospect::Ready
        } else if short <= self.available || (has_no_rival && self.available > 0) {
            Prospect::Acquire
        } else if has_no_rival && self.free > 0 {
            Prospect::Rest
        } else if short <= in_all || (self.gives_rest && in_all.saturating_add(self.free) > 0) {
            Prospect::Held
        } else {
            Prospect::Spent
        }
    }

    /// Whether an acquire of this node is content with what the ledger has, if that is less than the need.
    pub(super) fn takes_rest(&self) -> bool {
        self.gives_rest && self.is_alone
    }

    /// Whether asking other nodes for what they do not use could meet `need`.
    pub(super) fn is_worth_recalling(&self, need: u64) -> bool {
        self.others > 0 && (self.takes_rest() || self.short(need) <= self.available.saturating_add(self.others))
    }

    /// The acquire that spares callers at `rate` (tokens a second) the wait, if one is due and worth it. `sharers` is the number of nodes
    /// that acquire: the ledger grants each no more than half of its fair share beyond its need.
    pub(super) fn top_up(&self, rate: f64, sharers: u64) -> Option<Acquire> {
        let target = tokens(rate * REACH_SECONDS);
        if self.free >= tokens(rate * LOW_SECONDS) || self.available == 0 {
            return None;
        }
        let wanted = target - self.free;
        let expected = wanted.min(1 + (self.available - 1) / (2 * sharers.max(1)));
        (expected >= wanted / WORTH_PART).then_some(Acquire { need: 1, extra: wanted - 1, alone: false })
    }
}

/// How much beyond its need an acquire asks for at `rate`.
pub(super) fn extra(rate: f64) -> u64 {
    tokens(rate * REACH_SECONDS)
}

/// Of tokens of which `lowest` were not touched for the whole of `idle_return`: how many to give back at `rate`.
pub(super) fn surplus(lowest: u64, rate: f64) -> u64 {
    lowest.saturating_sub(tokens(rate * REACH_SECONDS))
}

/// Below which level of `free` tokens the actor wants to hear of the meter. At most half of what there is, so that a meter
/// that cannot be filled up is looked at ever less often.
pub(super) fn low_water(free: u64, rate: f64) -> u64 {
    tokens(rate * LOW_SECONDS).min(free / 2)
}

/// The rate after an interval in which `taken` tokens were taken.
pub(super) fn next_rate(rate: f64, taken: u64, interval: Duration) -> f64 {
    /// Older intervals fade with this time constant.
    const MEMORY_SECONDS: f64 = 1.0;
    let seconds = interval.as_secs_f64();
    if seconds <= 0.0 {
        return rate;
    }
    let weight = 1.0 - (-seconds / MEMORY_SECONDS).exp();
    rate + weight * (taken as f64 / seconds - rate)
}

fn tokens(amount: f64) -> u64 {
    amount.max(0.0).round() as u64
}

/// How many of the first `waiting` calls (each by what it needs of each limit) all limits can serve; at least one. With what they need.
pub(super) fn servable(waiting: impl Iterator<Item = Vec<u64>>, limits: &[Reading]) -> (usize, Vec<u64>) {
    let mut needs = vec![0_u64; limits.len()];
    let mut count = 0;
    for call in waiting {
        let with_this: Vec<u64> = needs.iter().zip(call).map(|(need, more)| need.saturating_add(more)).collect();
        let fits = with_this.iter().zip(limits).all(|(need, reading)| reading.short(*need) <= reading.available);
        if count > 0 && !fits {
            break;
        }
        needs = with_this;
        count += 1;
    }
    (count, needs)
}

#[cfg(test)]
mod tests;
