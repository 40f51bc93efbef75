//! The retry budget of one pool: retries are at most a fifth of the calls of the last ten seconds, so that replicas in trouble do
//! not get much more load than they have. Pure; time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Calls and retries are counted over so many seconds.
const SECONDS: usize = 10;
/// One retry for so many calls: 20 % extra load.
const CALLS_PER_RETRY: u64 = 5;
/// So many retries in ten seconds are always allowed: where there are few calls, a fifth of them is nothing.
const RETRIES_MIN: u64 = 10;

/// What was sent in the last ten seconds.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// The newest first.
    seconds: [Second; SECONDS],
    /// When the newest began.
    began: Instant,
}

#[derive(Clone, Copy, Default, Debug)]
struct Second {
    calls: u64,
    retries: u64,
}

impl RetryBudget {
    pub(super) fn new(now: Instant) -> RetryBudget {
        RetryBudget { seconds: [Second::default(); SECONDS], began: now }
    }

    /// A call is about to be sent for the first time.
    pub(super) fn call(&mut self, now: Instant) {
        self.turn(now);
        self.seconds[0].calls += 1;
    }

    /// Takes a retry if one is left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.turn(now);
        let calls: u64 = self.seconds.iter().map(|second| second.calls).sum();
        let retries: u64 = self.seconds.iter().map(|second| second.retries).sum();
        let is_left = retries < (calls / CALLS_PER_RETRY).max(RETRIES_MIN);
        self.seconds[0].retries += u64::from(is_left);
        is_left
    }

    /// Gives back a retry that was not sent.
    pub(super) fn give_back(&mut self) {
        self.seconds[0].retries = self.seconds[0].retries.saturating_sub(1);
    }

    /// Forgets seconds that are over.
    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began).as_secs();
        if passed > 0 {
            self.began += Duration::from_secs(passed);
            let passed = usize::try_from(passed).unwrap_or(SECONDS).min(SECONDS);
            self.seconds.rotate_right(passed);
            self.seconds[..passed].fill(Second::default());
        }
    }
}

#[cfg(test)]
mod tests;
