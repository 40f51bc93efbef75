//! Wall clocks that jump and drift, one per node.

use std::sync::atomic::{AtomicI64, Ordering};

use raft::Timestamp;
use raft::doors::Clock;

use crate::trace;

/// Where every wall clock starts: 2026-11-18, in milliseconds since the epoch.
const EPOCH_MILLIS: i64 = 1_795_000_000_000;

/// A node's wall clock. It goes on while the node is down.
#[derive(Debug, Default)]
pub(crate) struct SimClock {
    /// Milliseconds that somebody has set it ahead, or back.
    offset: AtomicI64,
    /// How much faster it runs, in parts per million.
    drift: AtomicI64,
}

impl SimClock {
    /// Sets it ahead by `millis`, or back.
    pub(crate) fn jump(&self, millis: i64) {
        self.offset.fetch_add(millis, Ordering::Relaxed);
    }

    /// Makes it run faster by `parts` per million, or slower, from now on.
    pub(crate) fn drift(&self, parts: i64) {
        let now = elapsed();
        let before = self.drift.swap(parts, Ordering::Relaxed);
        // What it shows now does not change.
        self.offset.fetch_add(now * (before - parts) / 1_000_000, Ordering::Relaxed);
    }

    /// Shows the true time again.
    pub(crate) fn repair(&self) {
        self.drift.store(0, Ordering::Relaxed);
        self.offset.store(0, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn wall(&self) -> Timestamp {
        let elapsed = elapsed();
        let shown = EPOCH_MILLIS
            + elapsed
            + elapsed * self.drift.load(Ordering::Relaxed) / 1_000_000
            + self.offset.load(Ordering::Relaxed);
        Timestamp(u64::try_from(shown).unwrap_or(0))
    }
}

/// The true time, as every clock shows it that was never set or drifted.
pub(crate) fn wall() -> Timestamp {
    SimClock::default().wall()
}

fn elapsed() -> i64 {
    i64::try_from(trace::now().as_millis()).unwrap_or(i64::MAX)
}
