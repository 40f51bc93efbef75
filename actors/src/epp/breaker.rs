//! The breaker of one replica: calls that fail there in a row keep further calls away for a while, then one may try.

use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row open it.
const FAILURES_MAX: u32 = 3;
/// How long it stays open the first time; each failed trial doubles that.
const OPEN_MIN: Duration = Duration::from_secs(1);
/// The longest it stays open.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// Whether calls may go there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// Yes.
    Free,
    /// One, to see whether it works again.
    Trial,
    /// Not now.
    Refused,
}

/// A breaker. New ones are closed.
#[derive(Clone, Default, Debug)]
pub(super) struct Breaker {
    failures: u32,
    /// How often in a row it opened.
    trips: u32,
    open_until: Option<Instant>,
    trial_is_out: bool,
}

impl Breaker {
    /// Whether nothing has failed since the last success.
    pub(super) fn is_clean(&self) -> bool {
        self.failures == 0 && self.open_until.is_none()
    }

    pub(super) fn admission(&self, now: Instant) -> Admission {
        match self.open_until {
            None => Admission::Free,
            Some(until) if now >= until && !self.trial_is_out => Admission::Trial,
            Some(_) => Admission::Refused,
        }
    }

    /// A trial call is on its way.
    pub(super) fn start_trial(&mut self) {
        self.trial_is_out = true;
    }

    /// The trial ended without telling anything.
    pub(super) fn abandon_trial(&mut self) {
        self.trial_is_out = false;
    }

    pub(super) fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        match self.open_until {
            // Calls that were under way when it opened say nothing new.
            Some(until) if now < until => {}
            Some(_) => self.open(now),
            None if self.failures >= FAILURES_MAX => self.open(now),
            None => {}
        }
    }

    fn open(&mut self, now: Instant) {
        let pause = OPEN_MIN.saturating_mul(1 << self.trips.min(5)).min(OPEN_MAX);
        self.trips += 1;
        self.trial_is_out = false;
        self.open_until = Some(now + pause);
    }
}

#[cfg(test)]
mod tests;
