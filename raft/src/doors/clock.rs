//! Wall time. It is used to show times to people, to expire credentials and, with that of the other members, to feed
//! the state clock; never to order events (that is the log's work) or to measure durations (that is `tokio::time`).

use crate::ids::Timestamp;

/// Reads wall time. It may jump in either direction at any moment.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn wall(&self) -> Timestamp;
}

/// The system's real-time clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the door for wall time")]
        let now = std::time::SystemTime::now();
        let since_epoch = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}
