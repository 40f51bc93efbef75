//! A replica as requests see it: atomics and small published values, shared by its pool, its probe and the calls in flight.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;

use super::breaker::{Admission, Breaker};
use super::policy::Observed;
use super::{Outcome, ReplicaId, ReplicaSnapshot};
use crate::probe::Metrics;

/// A replica.
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) url: String,
    /// Its place in the pool's prefix index, if there was one left.
    pub(super) slot: Option<u8>,
    in_flight: AtomicU64,
    /// Calls ever started there by this node.
    started: AtomicU64,
    /// Tokens of their prompts.
    started_tokens: AtomicU64,
    is_up: AtomicBool,
    /// Why it is not up.
    reason: ArcSwap<String>,
    report: ArcSwapOption<Report>,
    /// Whether `breaker` has anything to say; spares requests the lock.
    breaker_is_clean: AtomicBool,
    breaker: Mutex<Breaker>,
}

/// Its metrics, when they were asked for, and what had been started by then.
pub(super) struct Report {
    metrics: Metrics,
    at: Instant,
    started: u64,
    started_tokens: u64,
}

/// A moment at which metrics are asked for.
pub(crate) struct Mark {
    at: Instant,
    started: u64,
    started_tokens: u64,
}

impl Replica {
    pub(super) fn new(id: ReplicaId, url: String, slot: Option<u8>) -> Replica {
        Replica {
            id,
            url,
            slot,
            in_flight: AtomicU64::new(0),
            started: AtomicU64::new(0),
            started_tokens: AtomicU64::new(0),
            is_up: AtomicBool::new(false),
            reason: ArcSwap::from_pointee("not probed yet".to_owned()),
            report: ArcSwapOption::empty(),
            breaker_is_clean: AtomicBool::new(true),
            breaker: Mutex::default(),
        }
    }

    // --- What probes say ---

    /// It can take calls.
    pub(crate) fn comes_up(&self) {
        self.is_up.store(true, Ordering::Release);
    }

    /// It cannot take calls.
    pub(crate) fn goes_down(&self, reason: String) {
        self.reason.store(Arc::new(reason));
        self.is_up.store(false, Ordering::Release);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Taken before metrics are asked for: calls started while they travel are not in them.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            started: self.started.load(Ordering::Acquire),
            started_tokens: self.started_tokens.load(Ordering::Acquire),
        }
    }

    /// Publishes metrics asked for at `mark`.
    pub(crate) fn reports(&self, mark: Mark, metrics: Metrics) {
        let Mark { at, started, started_tokens } = mark;
        self.report.store(Some(Arc::new(Report { metrics, at, started, started_tokens })));
    }

    // --- What picks ask ---

    /// What is known of its load.
    pub(super) fn observed(&self, now: Instant) -> Observed {
        let in_flight = self.in_flight.load(Ordering::Acquire);
        let report = self.report.load();
        let Some(report) = report.as_ref() else {
            // A server without metrics: this node's own calls are all there is to go by.
            return Observed {
                waiting: 0.0,
                kv_usage: 0.0,
                capacity_tokens: 0,
                age: std::time::Duration::ZERO,
                unseen_calls: in_flight,
                unseen_tokens: 0,
                in_flight,
            };
        };
        let started = self.started.load(Ordering::Acquire) - report.started;
        Observed {
            waiting: report.metrics.waiting,
            kv_usage: report.metrics.kv_usage,
            capacity_tokens: report.metrics.capacity_tokens.unwrap_or(0),
            age: now - report.at,
            unseen_calls: started.min(in_flight),
            unseen_tokens: self.started_tokens.load(Ordering::Acquire) - report.started_tokens,
            in_flight,
        }
    }

    // --- What routes say ---

    /// A call is on its way there.
    pub(super) fn call_starts(&self, prompt_tokens: u64) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.started.fetch_add(1, Ordering::AcqRel);
        self.started_tokens.fetch_add(prompt_tokens, Ordering::AcqRel);
    }

    /// One is over.
    pub(super) fn call_ends(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// How a call went.
    pub(super) fn note(&self, outcome: Outcome) {
        match outcome {
            Outcome::Answered if self.breaker_is_clean.load(Ordering::Acquire) => {}
            Outcome::Answered => self.report_to_breaker(Breaker::succeeded),
            Outcome::FailedBeforeFirstByte | Outcome::FailedMidStream => {
                self.report_to_breaker(|breaker| breaker.failed(Instant::now()));
            }
            Outcome::Refused => {
                self.goes_down("connection refused".to_owned());
                self.report_to_breaker(|breaker| breaker.failed(Instant::now()));
            }
        }
    }

    /// The trial call ended without telling anything.
    pub(super) fn abandon_trial(&self) {
        self.breaker().abandon_trial();
    }

    /// Whether its breaker lets calls through.
    pub(super) fn admission(&self, now: Instant) -> Admission {
        if self.breaker_is_clean.load(Ordering::Acquire) {
            return Admission::Free;
        }
        self.breaker().admission(now)
    }

    /// Takes the one trial if it is there to be taken.
    pub(super) fn start_trial(&self, now: Instant) -> bool {
        let mut breaker = self.breaker();
        let is_free = breaker.admission(now) == Admission::Trial;
        if is_free {
            breaker.start_trial();
        }
        is_free
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_to_breaker(&self, report: impl FnOnce(&mut Breaker)) {
        let mut breaker = self.breaker();
        report(&mut breaker);
        self.breaker_is_clean.store(breaker.is_clean(), Ordering::Release);
    }

    // --- What status pages ask ---

    pub(super) fn is_taking_calls(&self, now: Instant) -> bool {
        self.is_up() && self.admission(now) != Admission::Refused
    }

    pub(super) fn snapshot(&self, now: Instant) -> ReplicaSnapshot {
        let report = self.report.load();
        let metrics = report.as_ref().map(|report| report.metrics).unwrap_or_default();
        let reason = match self.is_up() {
            false => Some(self.reason.load().as_ref().clone()),
            true if self.admission(now) == Admission::Refused => Some("calls failed there in a row".to_owned()),
            true => None,
        };
        ReplicaSnapshot {
            id: self.id,
            url: self.url.clone(),
            healthy: reason.is_none(),
            reason,
            in_flight: self.in_flight.load(Ordering::Acquire),
            waiting: metrics.waiting,
            running: metrics.running,
            kv_usage: metrics.kv_usage,
            metrics_age_seconds: report.as_ref().map(|report| (now - report.at).as_secs_f64()),
        }
    }
}
