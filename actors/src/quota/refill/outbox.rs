//! The outbox: what is on its way to the ledger. It outlives the actor, so a restarted actor sends again what was not answered.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft::command::{Acquire, QuotaBatch};
use raft::journal::CallPart;

use super::replay::{PastShare, Replay};
use crate::quota::allowance::{LocalMeter, MeterSet};
use crate::quota::ledger::Ledger;

/// See the module.
pub(crate) struct Outbox {
    /// What was last sent to the ledger, until it is answered.
    in_flight: Mutex<Option<Arc<InFlight>>>,
    /// The number of the last batch.
    sequence: AtomicU64,
    /// What earlier incarnations of this node left.
    past: Mutex<Replay>,
}

impl Outbox {
    pub(crate) fn new(ledger: &Ledger) -> Outbox {
        Outbox { in_flight: Mutex::default(), sequence: AtomicU64::new(0), past: Mutex::new(Replay::new(ledger)) }
    }

    /// Whether a batch is in flight.
    pub(crate) fn is_waiting(&self) -> bool {
        self.slot().is_some()
    }

    /// The batch in flight.
    pub(super) fn in_flight(&self) -> Option<Arc<InFlight>> {
        self.slot().clone()
    }

    pub(super) fn set_in_flight(&self, in_flight: Option<Arc<InFlight>>) {
        *self.slot() = in_flight;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<InFlight>>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn past(&self) -> MutexGuard<'_, Replay> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no batch was made since the process started.
    pub(super) fn is_first(&self) -> bool {
        self.sequence.load(Ordering::Acquire) == 0
    }

    /// The number of a new batch.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// A batch on its way, and whom each entry concerns.
pub(super) struct InFlight {
    pub(super) batch: QuotaBatch,
    /// One for each entry, in order.
    pub(super) sent: Vec<Sent>,
    /// The parts of calls that it tells of.
    pub(super) parts: Vec<CallPart>,
    /// What it tells of earlier incarnations.
    pub(super) past: PastShare,
    /// Whether the journal was told.
    pub(super) is_noted: AtomicBool,
}

/// What an entry of a batch was made of.
pub(super) struct Sent {
    pub(super) set: Arc<MeterSet>,
    /// What `spent` was taken from.
    pub(super) meter: Arc<LocalMeter>,
    pub(super) spent: u64,
    pub(super) acquire: Option<Acquire>,
}
