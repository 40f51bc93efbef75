//! The ledger: what was spent of each limit, what nodes hold of it, what is owed.
//!
//! The invariant, after every command, for every meter in its open window:
//! `settled + stranded + sum(granted) <= max(limit - debt carried in, what was granted before the limit was lowered)`.
//! A node spends only what it was granted, so the cluster never admits beyond the limit; no clock takes part in the argument.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, Timestamp};

/// Names a meter: one limit of one subscription on one model, for one user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MeterId {
    /// The MaaSSubscription's namespace and name.
    pub subscription: (String, String),
    /// The MaaSModelRef's namespace and name.
    pub model: (String, String),
    /// Which of the subscription's limits on that model: the one with this window. Two limits of one window are one: the smaller.
    pub window_seconds: u32,
    /// The user who is counted.
    pub user: String,
}

/// One meter.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Meter {
    /// The current window; `None` before the first draw and after one ended without debt.
    pub window: Option<MeterWindow>,
    /// Tokens used beyond what was free; the next window starts with so much less.
    pub debt: u64,
}

/// A fixed window: opened by the first draw, closed when the state clock reaches its end.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MeterWindow {
    /// Its number: the log index that opened it.
    pub number: u64,
    /// When it ends, by the state clock.
    pub ends: Timestamp,
    /// Tokens charged in it, debt carried in included.
    pub settled: u64,
    /// Tokens that nodes hold and may still spend.
    pub granted: OrdMap<NodeId, u64>,
    /// Tokens granted to incarnations that are gone: neither spent nor free until the window ends.
    pub stranded: u64,
}

impl MeterWindow {
    /// What may still be granted under `limit`.
    pub fn free(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.settled).saturating_sub(self.stranded).saturating_sub(self.outstanding())
    }

    /// Tokens that nodes hold, spent or not.
    pub fn outstanding(&self) -> u64 {
        self.granted.values().sum()
    }
}
