//! A meter: what this node has of one limit in one window, as atomics that calls take from and settle in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use raft::Timestamp;

/// What this node has of one limit in one window, in the limit's unit: tokens, or requests. At rest `free + held + used - told` is what was granted and not given back.
#[derive(Default, Debug)]
pub(crate) struct LocalMeter {
    /// The window's number; 0: none is known, and nothing is held.
    pub(crate) number: u64,
    /// When the window ends, by the state clock.
    pub(crate) ends: Timestamp,
    /// Granted, and nobody's.
    free: AtomicU64,
    /// Reserved by calls in progress.
    held: AtomicU64,
    /// Used so far, excess apart. It only grows, so what callers are told does not depend on where a report is.
    used: AtomicU64,
    /// The part of `used` that is on its way to the ledger. Only the actor looks at it.
    reporting: AtomicU64,
    /// The part of `used` that the ledger has confirmed. Only the actor looks at it.
    told: AtomicU64,
    /// Used beyond what was held and free, and not yet told to the ledger.
    excess: AtomicU64,
    /// The window is over, or the limit is gone: nothing may be taken any more, and what comes back goes to the ledger.
    is_closed: AtomicBool,
    /// The window is over: what was granted in it means nothing any more, only excess does.
    is_lapsed: AtomicBool,
    /// Below this the actor wants to hear of it.
    low_water: AtomicU64,
}

impl LocalMeter {
    pub(crate) fn new(number: u64, ends: Timestamp) -> LocalMeter {
        LocalMeter { number, ends, ..LocalMeter::default() }
    }

    /// Reserves `tokens` if so many are free.
    pub(super) fn take(&self, tokens: u64) -> bool {
        // Held first: whoever looks in between sees too much held, never a meter that nobody uses.
        self.held.fetch_add(tokens, Ordering::AcqRel);
        let taken =
            self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(tokens)).is_ok();
        if !taken {
            self.held.fetch_sub(tokens, Ordering::AcqRel);
        }
        taken
    }

    /// Reserves what is free, at most `max`, if no call holds anything. `None`: one does, or nothing is free.
    pub(super) fn take_rest(&self, max: u64) -> Option<u64> {
        // Held first, as in `take`: 1 stands for what is not known yet. Of two that try at once one gets it.
        self.held.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).ok()?;
        let taken = self.take_free(max);
        if taken > 0 {
            self.held.fetch_add(taken - 1, Ordering::AcqRel);
        } else {
            self.held.fetch_sub(1, Ordering::AcqRel);
        }
        (taken > 0).then_some(taken)
    }

    /// Undoes a [`LocalMeter::take`], or a part of it.
    pub(super) fn put_back(&self, tokens: u64) {
        self.free.fetch_add(tokens, Ordering::AcqRel);
        self.held.fetch_sub(tokens, Ordering::AcqRel);
    }

    /// Ends a reservation of `held` tokens of which (or beyond which) `used` were used. What was used beyond it is taken from what
    /// is free here, and else is excess.
    pub(super) fn settle(&self, held: u64, used: u64) {
        let covered = used.min(held);
        let beyond = used - covered;
        let found = if beyond == 0 || self.is_closed.load(Ordering::Acquire) { 0 } else { self.take_free(beyond) };
        self.used.fetch_add(covered + found, Ordering::AcqRel);
        self.excess.fetch_add(beyond - found, Ordering::AcqRel);
        self.free.fetch_add(held - covered, Ordering::AcqRel);
        self.held.fetch_sub(held, Ordering::AcqRel);
    }

    /// Adds tokens the ledger granted.
    pub(crate) fn grant(&self, tokens: u64) {
        self.free.fetch_add(tokens, Ordering::AcqRel);
    }

    /// Takes up to `max` free tokens, and returns how many: they belong to the caller now.
    pub(crate) fn take_free(&self, max: u64) -> u64 {
        let before = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| Some(free.saturating_sub(max)));
        before.unwrap_or(0).min(max)
    }

    /// Takes what has to be reported as spent; [`LocalMeter::reported`] ends it.
    pub(crate) fn start_report(&self) -> u64 {
        let spent = self.unreported() - self.reporting.load(Ordering::Acquire);
        self.reporting.fetch_add(spent, Ordering::AcqRel);
        spent
    }

    /// The ledger knows of `spent` now.
    pub(crate) fn reported(&self, spent: u64) {
        self.told.fetch_add(spent, Ordering::AcqRel);
        self.reporting.fetch_sub(spent, Ordering::AcqRel);
    }

    /// How much of what the ledger says was settled is in `used`, too. `None` while a report is on its way: nobody knows then
    /// whether the ledger has it.
    pub(crate) fn told(&self) -> Option<u64> {
        (self.reporting.load(Ordering::Acquire) == 0).then(|| self.told.load(Ordering::Acquire))
    }

    /// Used beyond what was held and free, and not yet told to the ledger.
    pub(super) fn excess(&self) -> u64 {
        self.excess.load(Ordering::Acquire)
    }

    /// Takes what has to be reported as excess.
    pub(crate) fn take_excess(&self) -> u64 {
        self.excess.swap(0, Ordering::AcqRel)
    }

    /// Nothing may be taken any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Its window is over.
    pub(crate) fn lapse(&self) {
        self.is_lapsed.store(true, Ordering::Release);
        self.free.store(0, Ordering::Release);
    }

    pub(crate) fn is_lapsed(&self) -> bool {
        self.is_lapsed.load(Ordering::Acquire)
    }

    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Acquire)
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Of `granted` tokens: what may come back. Beside what is held here, that is what is on its way back to the ledger, and what
    /// is held in a meter that another one has replaced.
    pub(crate) fn held_of(&self, granted: u64) -> u64 {
        self.held().max(granted.saturating_sub(self.free()).saturating_sub(self.unreported()))
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Used, and not in the ledger as far as this node knows.
    pub(super) fn unreported(&self) -> u64 {
        self.used() - self.told.load(Ordering::Acquire)
    }

    /// Whether there is something to tell the ledger.
    pub(crate) fn has_news(&self) -> bool {
        let may_return = self.is_closed.load(Ordering::Acquire) && self.free() > 0;
        let has_spent = self.unreported() > self.reporting.load(Ordering::Acquire);
        let has_news_of_window = has_spent || may_return;
        self.excess() > 0 || (has_news_of_window && !self.is_lapsed())
    }

    /// Whether nothing is in it, and nobody will settle in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.held() == 0 && self.excess() == 0 && (self.is_lapsed() || (self.free() == 0 && self.unreported() == 0))
    }

    pub(crate) fn set_low_water(&self, tokens: u64) {
        self.low_water.store(tokens, Ordering::Release);
    }

    pub(super) fn is_low(&self) -> bool {
        self.free() < self.low_water.load(Ordering::Acquire)
    }
}
