//! Invalid credentials, by address: so many at once, then so many a second. A valid credential is never counted and never refused.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;
use tracing::warn;

use super::address::Address;
use super::limits::Limits;

/// One line of the log for all addresses is written no more often than this.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// An address has sent too many invalid credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "too many invalid credentials came from this address: check the API key or token; a valid one is accepted at once"
)]
pub struct TooManyAttempts {
    /// When the next invalid credential is judged again.
    pub retry_after: Duration,
}

/// The failures that addresses may still make.
pub(super) struct Attempts {
    burst: u64,
    /// After so long an address may fail once more.
    pause: Duration,
    table: Mutex<Table>,
}

struct Table {
    addresses: LruCache<Address, Failures>,
    told: Option<Instant>,
}

/// Failures that are left, as they were at a time.
struct Failures {
    left: u64,
    at: Instant,
}

impl Attempts {
    pub(super) fn new(limits: &Limits) -> Attempts {
        let size = NonZeroUsize::new(limits.auth_failures_addresses).unwrap_or(NonZeroUsize::MIN);
        let table = Table { addresses: LruCache::new(size), told: None };
        let pause = Duration::from_secs(1) / u32::try_from(limits.auth_failures_per_second).unwrap_or(u32::MAX).max(1);
        Attempts { burst: limits.auth_failures_burst.max(1), pause, table: Mutex::new(table) }
    }

    /// Counts an invalid credential. Errors: the address has failed too often.
    pub(super) fn failed(&self, address: Address, port: &'static str) -> Result<(), TooManyAttempts> {
        let now = Instant::now();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = table.addresses.get_or_insert_mut(address, || Failures { left: self.burst, at: now });
        self.refill(failures, now);
        if failures.left == 0 {
            return Err(TooManyAttempts { retry_after: self.pause.saturating_sub(now - failures.at) });
        }
        failures.left -= 1;
        let is_last = failures.left == 0;
        if is_last && table.told.is_none_or(|told| now - told >= TELL_EVERY) {
            table.told = Some(now);
            warn!(port, %address, "too many invalid credentials from one address: more of them are answered 429");
        }
        Ok(())
    }

    fn refill(&self, failures: &mut Failures, now: Instant) {
        let passed = (now - failures.at).as_nanos() / self.pause.as_nanos().max(1);
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        if passed == 0 {
            return;
        }
        failures.left = failures.left.saturating_add(passed).min(self.burst);
        failures.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(addresses: usize) -> Attempts {
        let defaults = Limits::default();
        Attempts::new(&Limits { auth_failures_burst: 3, auth_failures_addresses: addresses, ..defaults })
    }

    fn address(last: u8) -> Address {
        Address::of([192, 0, 2, last].into())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_may_fail_so_often_at_once_and_so_often_a_second() {
        let attempts = attempts(10);
        let tried = |last, times| (0..times).filter(|_| attempts.failed(address(last), "gateway").is_ok()).count();
        assert_eq!(tried(1, 1000), 3, "the burst");
        assert_eq!(tried(2, 2), 2, "another address has its own");
        let refused = attempts.failed(address(1), "gateway").unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(100));
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(tried(1, 10), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(tried(1, 10), 1, "one for each tenth of a second");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(tried(1, 1000), 3, "and never more than the burst");
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_has_an_end() {
        let attempts = attempts(2);
        for last in 0..=255 {
            for _ in 0..5 {
                let _ = attempts.failed(address(last), "gateway");
            }
        }
        assert_eq!(attempts.table.lock().unwrap().addresses.len(), 2);
        assert!(attempts.failed(address(255), "gateway").is_err(), "the newest are remembered");
        assert!(attempts.failed(address(0), "gateway").is_ok());
    }
}
