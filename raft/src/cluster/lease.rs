//! The serving lease: whether this node may admit calls.
//!
//! A revocation must have happened when it returns, also on a node that is cut off. So a node may admit only for
//! `serving_lease` after the last moment at which it *asked* the leader for everything acknowledged until then
//! and got to apply it. Counting from the question, not from the answer, makes it independent of how long messages
//! travel; confirming with a quorum (ReadIndex) makes it independent of leaders that do not know they are replaced.
//! Whoever wants to be sure that a change is in force everywhere asks every node, and waits out the lease of those it
//! cannot reach ([`super::Cluster::fence`]). Only the rates of two monotonic clocks take part in the argument.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::Inner;
use super::ask::{Ask, Done};

/// Renewals per lease: a node that loses one or two to an election goes on serving.
const RENEWALS: u32 = 5;
/// After a renewal failed.
const RETRY: Duration = Duration::from_millis(20);

/// Until when this node may serve.
pub(super) struct Lease {
    length: Duration,
    started: Instant,
    /// Milliseconds after `started`; 0 before the first renewal.
    until: AtomicU64,
}

impl Lease {
    pub(super) fn new(length: Duration) -> Lease {
        Lease { length, started: Instant::now(), until: AtomicU64::new(0) }
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    pub(super) fn holds(&self, now: Instant) -> bool {
        millis(now - self.started) < self.until.load(Ordering::Acquire)
    }

    fn renew(&self, asked: Instant) {
        self.until.store(millis(asked - self.started + self.length), Ordering::Release);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Renews the lease for as long as the node lives and is not taken out.
///
/// Only with a vote, by the entries applied: a fence asks the members it knows of, so a node that others do not all know
/// yet must not admit anybody.
pub(super) async fn keep(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        if inner.is_retired() {
            return;
        }
        let asked = Instant::now();
        let length = inner.lease.length;
        // An answer that takes longer is worth less than a new question.
        let patience = length / 2;
        let heard = timeout(patience, inner.barrier(patience)).await.is_ok_and(|barrier| barrier.is_ok());
        let renewed = heard && inner.membership().voters.contains(&inner.node);
        if renewed {
            inner.lease.renew(asked);
        }
        drop(inner);
        sleep_until(if renewed { asked + length / RENEWALS } else { Instant::now() + RETRY }).await;
    }
}

impl Inner {
    /// Waits until what was acknowledged anywhere before the call is applied here.
    pub(super) async fn barrier(&self, within: Duration) -> Result<(), super::ProposeError> {
        let asked = Instant::now();
        let Done::ReadIndex(index) = self.ask_leader(Ask::ReadIndex, within).await? else {
            return Err(super::ProposeError::Unknown(within));
        };
        self.applied_by(index, asked + within, within).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_from_the_question_and_not_from_the_answer() {
        let lease = Lease::new(Duration::from_secs(5));
        let after = |millis| lease.started + Duration::from_millis(millis);
        assert!(!lease.holds(after(0)), "nothing was asked yet");
        lease.renew(after(1000)); // whenever the answer came
        assert!(lease.holds(after(5999)));
        assert!(!lease.holds(after(6000)), "5 s after the question");
    }
}
