//! A route: one call's hold on the replica that was chosen for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::breaker::Admission;
use super::replica::Replica;
use super::{Outcome, ReplicaId};

/// A chosen replica with its in-flight count raised. Dropping it lowers the count.
pub struct Route {
    replica: Arc<Replica>,
    is_trial: bool,
    is_reported: AtomicBool,
}

impl Route {
    /// `None` if the replica's breaker does not admit the call.
    pub(super) fn start(replica: &Arc<Replica>, prompt_tokens: u64, now: Instant) -> Option<Route> {
        let is_trial = match replica.admission(now) {
            Admission::Free => false,
            Admission::Trial if replica.start_trial(now) => true,
            Admission::Trial | Admission::Refused => return None,
        };
        replica.call_starts(prompt_tokens);
        Some(Route { replica: replica.clone(), is_trial, is_reported: AtomicBool::new(false) })
    }

    /// Which replica.
    pub fn replica(&self) -> ReplicaId {
        self.replica.id
    }

    /// Its base URL: `http://host:port`.
    pub fn base(&self) -> &str {
        &self.replica.url
    }

    /// Tells the pool how the call went, as soon as that is known: breakers count it.
    pub fn report(&self, outcome: Outcome) {
        self.is_reported.store(true, Ordering::Release);
        self.replica.note(outcome);
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.replica.call_ends();
        if self.is_trial && !self.is_reported.load(Ordering::Acquire) {
            self.replica.abandon_trial();
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("replica", &self.replica.id).field("base", &self.replica.url).finish()
    }
}
