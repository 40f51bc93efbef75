//! A replica as requests see it: atomics and small published values, shared by its pool, its probe and the calls in flight.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;
use tracing::{info, warn};

use super::policy::Observed;
use super::state::{Admission, ReplicaState, Status};
use super::{ReplicaId, ReplicaSnapshot};
use crate::probe::{Metrics, Motion, Seen};

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
    /// Calls of this node that wait for the engine's first token.
    awaiting: AtomicU64,
    /// Pieces of streams that this node ever got from there.
    pieces: AtomicU64,
    /// Calls of this node that were ever answered, in whatever way.
    answers: AtomicU64,
    report: ArcSwapOption<Report>,
    /// Whether `state` has nothing to say; spares requests the lock.
    is_clean: AtomicBool,
    state: Mutex<ReplicaState>,
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

impl Mark {
    pub(crate) fn at(&self) -> Instant {
        self.at
    }
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
            awaiting: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            report: ArcSwapOption::empty(),
            is_clean: AtomicBool::new(false),
            state: Mutex::new(ReplicaState::new()),
        }
    }

    fn look<T>(&self, look: impl FnOnce(&ReplicaState) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state. A change of the status is logged here and nowhere else, once, with its reason.
    fn change<T>(&self, change: impl FnOnce(&mut ReplicaState) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.status();
        let changed = change(&mut state);
        let after = state.status();
        self.is_clean.store(state.is_clean(), Ordering::Release);
        drop(state);
        if before != after {
            let (replica, from, to) = (&*self.url, before.name(), after.name());
            match after {
                Status::Ready | Status::Down(_) => info!(replica, from, to, reason = %after, "a replica changed"),
                Status::Unreachable | Status::Hung | Status::Ejected(_) => {
                    warn!(replica, from, to, reason = %after, "a replica changed");
                }
            }
        }
        changed
    }

    // --- What probes say ---

    /// A probe found it good. `is_new`: its process may be another one.
    pub(crate) fn comes_up(&self, is_new: bool) {
        self.change(|state| state.comes_up(is_new));
    }

    /// It cannot take calls.
    pub(crate) fn goes_down(&self, reason: String) {
        self.change(|state| state.goes_down(reason));
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.look(ReplicaState::is_down)
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

    /// What it reported last, and when it was asked.
    pub(super) fn last_metrics(&self) -> Option<(Metrics, Instant)> {
        self.report.load().as_ref().map(|report| (report.metrics, report.at))
    }

    /// What this node's calls there show of its engine.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            awaiting: self.awaiting.load(Ordering::Acquire) > 0,
            pieces: self.pieces.load(Ordering::Acquire),
            answers: self.answers.load(Ordering::Acquire),
        }
    }

    /// Whether its engine moves.
    pub(crate) fn notes_motion(&self, motion: Motion) {
        match motion {
            Motion::Moves if self.is_clean.load(Ordering::Acquire) => {}
            Motion::Moves => self.change(ReplicaState::moves),
            Motion::Hangs => self.change(|state| state.hangs(Instant::now())),
            Motion::Unclear => {}
        }
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

    /// Whether calls may go there.
    pub(super) fn admission(&self, now: Instant) -> Admission {
        if self.is_clean.load(Ordering::Acquire) {
            return Admission::Free;
        }
        self.look(|state| state.admission(now))
    }

    pub(super) fn is_ejected(&self) -> bool {
        !self.is_clean.load(Ordering::Acquire) && self.look(ReplicaState::is_ejected)
    }

    // --- What routes say ---

    /// A call is on its way there. `is_for_engine`: only the engine can answer it.
    pub(super) fn call_starts(&self, prompt_tokens: u64, is_for_engine: bool) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.started.fetch_add(1, Ordering::AcqRel);
        self.started_tokens.fetch_add(prompt_tokens, Ordering::AcqRel);
        self.awaiting.fetch_add(u64::from(is_for_engine), Ordering::AcqRel);
    }

    /// One that waited for the engine does so no more.
    pub(super) fn stops_waiting(&self) {
        self.awaiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// A piece of a stream is here.
    pub(super) fn streams(&self) {
        self.pieces.fetch_add(1, Ordering::AcqRel);
    }

    /// A call was answered, in whatever way.
    pub(super) fn answers(&self) {
        self.answers.fetch_add(1, Ordering::AcqRel);
    }

    /// A call is over.
    pub(super) fn call_ends(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Takes the one trial if it is there to be taken.
    pub(super) fn start_trial(&self, now: Instant) -> bool {
        self.change(|state| {
            let is_free = state.admission(now) == Admission::Trial;
            if is_free {
                state.start_trial();
            }
            is_free
        })
    }

    /// The trial has shown nothing.
    pub(super) fn end_trial(&self) {
        self.change(ReplicaState::end_trial);
    }

    /// The trial was answered well.
    pub(super) fn pass_trial(&self) {
        self.change(ReplicaState::pass_trial);
    }

    /// The trial's answer was bad.
    pub(super) fn fail_trial(&self, now: Instant) {
        self.change(|state| state.fail_trial(now));
    }

    /// A connection was there, whatever came through it.
    pub(super) fn connects(&self, now: Instant) {
        if !self.is_clean.load(Ordering::Acquire) {
            self.change(|state| state.connects(now));
        }
    }

    /// It said that it takes no calls just now.
    pub(super) fn is_busy(&self, now: Instant) {
        self.change(|state| state.is_busy(now));
    }

    /// There was no connection for a call.
    pub(super) fn fails_to_connect(&self, is_trial: bool, now: Instant) {
        self.change(|state| state.fails_to_connect(is_trial, now));
    }

    /// Its answers keep calls away from it.
    pub(super) fn eject(&self, reason: String, now: Instant) {
        self.change(|state| state.eject(reason, now));
    }

    // --- What status pages ask ---

    pub(super) fn is_ready(&self) -> bool {
        self.is_clean.load(Ordering::Acquire) || self.status() == Status::Ready
    }

    pub(super) fn status(&self) -> Status {
        self.look(ReplicaState::status)
    }

    pub(super) fn snapshot(&self, now: Instant) -> ReplicaSnapshot {
        let report = self.report.load();
        let metrics = report.as_ref().map(|report| report.metrics).unwrap_or_default();
        ReplicaSnapshot {
            id: self.id,
            url: self.url.clone(),
            status: self.status(),
            in_flight: self.in_flight.load(Ordering::Acquire),
            waiting: metrics.waiting,
            running: metrics.running,
            kv_usage: metrics.kv_usage,
            metrics_age_seconds: report.as_ref().map(|report| (now - report.at).as_secs_f64()),
        }
    }
}
