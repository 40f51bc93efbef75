//! A pause in which a replica gets no calls, and after it one trial call at a time: half-open, as circuit breakers call it. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long the first pause lasts; each trial that fails doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The pause of one replica.
#[derive(Clone, Debug)]
pub(super) struct HalfOpen {
    until: Instant,
    failed_trials: u32,
    trial_is_out: bool,
}

impl HalfOpen {
    /// The first pause begins.
    pub(super) fn new(now: Instant) -> HalfOpen {
        HalfOpen { until: now + PAUSE_MIN, failed_trials: 0, trial_is_out: false }
    }

    /// A pause of the longest kind begins.
    pub(super) fn long(now: Instant) -> HalfOpen {
        HalfOpen { until: now + PAUSE_MAX, ..HalfOpen::new(now) }
    }

    /// Whether a call may go there as a trial.
    pub(super) fn has_trial(&self, now: Instant) -> bool {
        now >= self.until && !self.trial_is_out
    }

    /// A trial call is on its way.
    pub(super) fn start_trial(&mut self) {
        self.trial_is_out = true;
    }

    /// The trial has shown nothing: the next call is a trial.
    pub(super) fn end_trial(&mut self) {
        self.trial_is_out = false;
    }

    /// The trial has failed: the next pause begins, twice as long.
    pub(super) fn fail_trial(&mut self, now: Instant) {
        self.failed_trials = self.failed_trials.saturating_add(1);
        self.until = now + PAUSE_MIN.saturating_mul(1 << self.failed_trials.min(5)).min(PAUSE_MAX);
        self.trial_is_out = false;
    }

    /// The pause begins anew, with its full length.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.until = now + PAUSE_MAX;
    }
}
