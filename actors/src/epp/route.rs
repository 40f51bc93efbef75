//! A route: one call's hold on the replica that was chosen for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::generated::EngineOutput;
use super::pool::Pool;
use super::replica::Replica;
use super::{CallShape, CallerId, Outcome, ReplicaId};

/// A chosen replica with its in-flight count raised. Dropping it lowers the count.
pub struct Route {
    pool: Arc<Pool>,
    replica: Arc<Replica>,
    caller: CallerId,
    /// It is a trial, and has shown nothing yet.
    is_open_trial: AtomicBool,
    /// It waits for the engine.
    is_awaited: AtomicBool,
}

impl Route {
    pub(super) fn start(pool: Arc<Pool>, replica: Arc<Replica>, call: &CallShape<'_>, is_trial: bool) -> Route {
        replica.call_starts(call.prompt_tokens, call.is_for_engine);
        let (is_open_trial, is_awaited) = (AtomicBool::new(is_trial), AtomicBool::new(call.is_for_engine));
        Route { pool, replica, caller: call.caller, is_open_trial, is_awaited }
    }

    /// Which replica.
    pub fn replica(&self) -> ReplicaId {
        self.replica.id
    }

    /// Its base URL: `http://host:port`.
    pub fn base(&self) -> &str {
        &self.replica.url
    }

    /// Follows what the engine generates from now on.
    pub fn engine_output(&self) -> EngineOutput {
        EngineOutput::from_now(&self.replica)
    }

    /// A piece of a streamed answer is here: the engine works. A trial has passed; the stream may go on for minutes.
    pub fn hears(&self) {
        self.replica.streams();
        self.stops_waiting();
        if self.is_open_trial.load(Ordering::Acquire) && self.is_open_trial.swap(false, Ordering::AcqRel) {
            self.replica.pass_trial();
        }
    }

    /// Tells the pool how the call went, as soon as that is known.
    pub fn report(&self, outcome: Outcome) {
        self.stops_waiting();
        let is_trial = self.is_open_trial.load(Ordering::Acquire);
        if self.pool.note(&self.replica, self.caller, is_trial, outcome, Instant::now()) {
            self.is_open_trial.store(false, Ordering::Release);
        }
    }

    fn stops_waiting(&self) {
        if self.is_awaited.load(Ordering::Acquire) && self.is_awaited.swap(false, Ordering::AcqRel) {
            self.replica.stops_waiting();
        }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.replica.call_ends();
        self.stops_waiting();
        if self.is_open_trial.load(Ordering::Acquire) {
            self.replica.end_trial();
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("replica", &self.replica.id).field("base", &self.replica.url).finish()
    }
}
