//! How fast one user does something: so often at once, and then so often a minute.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

/// Users who are remembered. Whoever is forgotten has done nothing for long, or there are more users at once than this.
const USERS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");
const MINUTE: Duration = Duration::from_secs(60);

/// Counts what users do. Cloning shares it.
#[derive(Clone)]
pub struct Pace(Arc<Mutex<LruCache<String, Instant>>>);

impl Default for Pace {
    fn default() -> Pace {
        Pace(Arc::new(Mutex::new(LruCache::new(USERS_MAX))))
    }
}

impl Pace {
    /// Counts that `user` does it once more, who may do it `per_minute` times at once, and as often in each minute. Errors: too soon,
    /// and how long to wait; nothing is counted.
    pub(crate) fn step(&self, user: &str, per_minute: u32) -> Result<(), Duration> {
        let now = Instant::now();
        let interval = MINUTE / per_minute.max(1);
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // When all that was counted has been worked off, at one per interval.
        let done = users.get_or_insert_mut(user.to_owned(), || now);
        let next = (*done).max(now) + interval;
        let wait = (next - now).saturating_sub(interval * per_minute.max(1));
        if !wait.is_zero() {
            return Err(wait);
        }
        *done = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_user_may_do_so_much_at_once_and_as_much_a_minute() {
        let pace = Pace::default();
        let done = |user: &str, times| (0..times).filter(|_| pace.step(user, 60).is_ok()).count();
        assert_eq!((done("ann", 1000), done("bob", 3)), (60, 3), "each has their own");
        assert_eq!(pace.step("ann", 60), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(pace.step("ann", 60), Err(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(done("ann", 1000), 1);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(done("ann", 1000), 10);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(done("ann", 1000), 60, "never more at once");
        assert_eq!((pace.step("eve", 1), pace.step("eve", 1)), (Ok(()), Err(MINUTE)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_has_an_end() {
        let pace = Pace::default();
        for number in 0..2 * USERS_MAX.get() {
            assert_eq!(pace.step(&format!("user {number}"), 1), Ok(()));
        }
        assert_eq!(pace.0.lock().unwrap().len(), USERS_MAX.get());
    }
}
