//! A pool: the replicas of one LLMInferenceService, and their ranking for one call. A plain value; nothing here waits.
//!
//! A pool whose replicas change is replaced by another one. Replicas that stay keep their identity, counts and cached prefixes;
//! calls at a replica that has left the pool go on to their end.
//!
//! At most half of a pool is ejected for its answers, and if no other replica takes calls, those get them after all: panic
//! routing. Replicas that are down, unreachable or hung never do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::outliers::{Ending, Outliers};
use super::policy::{self, Candidate};
use super::prefix::{PrefixIndex, SLOTS_MAX};
use super::ranking::Ranking;
use super::replica::Replica;
use super::retries::RetryBudget;
use super::route::Route;
use super::state::Admission;
use super::{CallShape, CallerId, NoReplica, Outcome, PoolSnapshot, ReplicaId};
use crate::routing::Name;

/// The replicas of one service.
pub(crate) struct Pool {
    service: Name,
    /// In the order of the annotation.
    replicas: Vec<Arc<Replica>>,
    memory: Arc<Memory>,
}

/// What outlives a change of the replicas.
struct Memory {
    index: Mutex<PrefixIndex>,
    outliers: Mutex<Outliers>,
    retries: Mutex<RetryBudget>,
    /// Advances with every ranking; its mixed value breaks ties.
    dice: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    fn index(&self) -> MutexGuard<'_, PrefixIndex> {
        lock(&self.index)
    }

    /// A number that looks random.
    fn roll(&self) -> u64 {
        policy::mix(self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }
}

impl Pool {
    /// A pool without replicas whose ties are broken in an order that `seed` decides.
    pub(super) fn empty(service: Name, seed: u64) -> Pool {
        let memory = Memory {
            index: Mutex::default(),
            outliers: Mutex::default(),
            retries: Mutex::new(RetryBudget::new(Instant::now())),
            dice: AtomicU64::new(seed),
        };
        Pool { service, replicas: Vec::new(), memory: Arc::new(memory) }
    }

    /// The pool with the replicas at `urls`, in that order. New replicas have ids of `new_id`.
    pub(super) fn with_replicas(&self, urls: &[String], mut new_id: impl FnMut() -> ReplicaId) -> Pool {
        let kept = |url: &String| self.replicas.iter().find(|replica| replica.url == *url);
        for gone in self.replicas.iter().filter(|replica| !urls.contains(&replica.url)) {
            self.forget_replica(gone);
        }
        let taken: BTreeSet<u8> = urls.iter().filter_map(kept).filter_map(|replica| replica.slot).collect();
        let mut free = (0..SLOTS_MAX as u8).filter(|slot| !taken.contains(slot));
        let replica = |url: &String| match kept(url) {
            Some(replica) => replica.clone(),
            None => Arc::new(Replica::new(new_id(), url.clone(), free.next())),
        };
        let replicas = urls.iter().map(replica).collect();
        Pool { service: self.service.clone(), replicas, memory: self.memory.clone() }
    }

    pub(super) fn replicas(&self) -> &[Arc<Replica>] {
        &self.replicas
    }

    /// Whether its replicas are those at `urls`, in that order.
    pub(super) fn is_of(&self, urls: &[String]) -> bool {
        self.replicas.iter().map(|replica| &replica.url).eq(urls)
    }

    /// The replicas that may get a call, best first; after them those that are busy or that the caller shuns; after these those that
    /// get it only if no other takes calls.
    /// Errors: there are none.
    pub(super) fn rank<'a>(self: &Arc<Pool>, call: &CallShape<'a>) -> Result<Ranking<'a>, NoReplica> {
        if self.replicas.is_empty() {
            return Err(NoReplica::None);
        }
        let now = Instant::now();
        let mut tiers = [Vec::new(), Vec::new(), Vec::new()];
        let outliers = lock(&self.memory.outliers);
        let shuns = |replica: &Replica| !outliers.is_quiet(now) && outliers.is_shunned(replica.id, call.caller, now);
        for (index, replica) in self.replicas.iter().enumerate() {
            match replica.admission(now) {
                Admission::Free if shuns(replica) => tiers[1].push(index),
                Admission::Free | Admission::Trial => tiers[0].push(index),
                Admission::Busy => tiers[1].push(index),
                Admission::Ejected => tiers[2].push(index),
                Admission::Out => {}
            }
        }
        drop(outliers);
        let order: Vec<usize> = tiers.iter().flat_map(|tier| self.order(tier, call, now)).collect();
        if order.is_empty() {
            return Err(NoReplica::Unhealthy);
        }
        Ok(Ranking::new(self.clone(), *call, order))
    }

    /// The replicas at `indexes`, best first.
    fn order(&self, indexes: &[usize], call: &CallShape<'_>, now: Instant) -> Vec<usize> {
        if indexes.len() <= 1 {
            return indexes.to_vec();
        }
        let blocks = f64::from(call.prefix.blocks().max(1));
        let matches = self.memory.index().matches(call.prefix);
        let candidate = |index: &usize| {
            let replica = &self.replicas[*index];
            let (waiting, kv_usage) = replica.observed(now).load();
            Candidate { waiting, kv_usage, cached: f64::from(matches.of(replica.slot)) / blocks }
        };
        let candidates: Vec<Candidate> = indexes.iter().map(candidate).collect();
        policy::rank(&candidates, self.memory.roll()).into_iter().map(|at| indexes[at]).collect()
    }

    /// A route of a call to the replica at `index`; `None` if that does not take the call now.
    pub(super) fn start(self: &Arc<Pool>, index: usize, call: &CallShape<'_>, now: Instant) -> Option<Route> {
        let replica = self.replicas.get(index)?;
        let is_trial = match replica.admission(now) {
            Admission::Free | Admission::Busy => false,
            Admission::Trial if replica.start_trial(now) => true,
            Admission::Ejected if self.has_no_other(now) => false,
            Admission::Trial | Admission::Ejected | Admission::Out => return None,
        };
        if let Some(slot) = replica.slot {
            self.memory.index().note(slot, call.prefix);
        }
        Some(Route::start(self.clone(), replica.clone(), call, is_trial))
    }

    /// Whether no replica takes calls but those that are ejected.
    fn has_no_other(&self, now: Instant) -> bool {
        let refuses = |admission| matches!(admission, Admission::Ejected | Admission::Out);
        self.replicas.iter().all(|replica| refuses(replica.admission(now)))
    }

    // --- Retries ---

    /// A call is about to be sent for the first time.
    pub(super) fn count_call(&self, now: Instant) {
        lock(&self.memory.retries).call(now);
    }

    /// Takes a retry from the budget if one is left.
    pub(super) fn take_retry(&self, now: Instant) -> bool {
        lock(&self.memory.retries).take(now)
    }

    /// Gives back a retry that was not sent.
    pub(super) fn give_back_retry(&self) {
        lock(&self.memory.retries).give_back();
    }

    // --- How calls went ---

    /// Takes note of how a call went. Returns whether that says something of the replica if the call was a trial.
    pub(super) fn note(
        &self,
        replica: &Replica,
        caller: CallerId,
        is_trial: bool,
        outcome: Outcome,
        now: Instant,
    ) -> bool {
        match outcome {
            Outcome::Answered => {
                replica.answers();
                replica.connects(now);
                lock(&self.memory.outliers).note(replica.id, caller, Ending::Answered, now);
                if is_trial {
                    replica.pass_trial();
                }
                is_trial
            }
            Outcome::Busy => {
                replica.answers();
                replica.connects(now);
                replica.is_busy(now);
                false
            }
            Outcome::Failed => {
                replica.answers();
                replica.connects(now);
                self.note_failure(replica, caller, is_trial, Ending::Failed, now)
            }
            Outcome::Lost => self.note_failure(replica, caller, is_trial, Ending::Lost, now),
            Outcome::EngineDied => {
                replica.answers();
                self.note_failure(replica, caller, is_trial, Ending::EngineDied, now)
            }
            Outcome::Refused => {
                replica.goes_down("connection refused".to_owned());
                false
            }
            Outcome::Unreachable => {
                replica.fails_to_connect(is_trial, now);
                is_trial
            }
        }
    }

    fn note_failure(&self, replica: &Replica, caller: CallerId, is_trial: bool, ending: Ending, now: Instant) -> bool {
        let mut outliers = lock(&self.memory.outliers);
        outliers.note(replica.id, caller, ending, now);
        if is_trial {
            let is_telling = outliers.is_telling(replica.id, caller, now);
            if is_telling {
                replica.fail_trial(now);
            }
            return is_telling;
        }
        let reason = match ending {
            Ending::EngineDied => Some("an answer said that its engine died".to_owned()),
            Ending::Answered | Ending::Failed | Ending::Lost => outliers.judge(replica.id, now),
        };
        if let Some(reason) = reason
            && self.eject(replica, reason, &outliers, now)
        {
            outliers.forget(replica.id);
        }
        false
    }

    /// Ejects `replica` unless half of the pool is ejected. Whoever holds the outliers' lock ejects alone. Returns whether it did.
    fn eject(&self, replica: &Replica, reason: String, _alone: &MutexGuard<'_, Outliers>, now: Instant) -> bool {
        let others = self.replicas.iter().filter(|other| other.id != replica.id && other.is_ejected()).count();
        let is_few = (others + 1) * 2 <= self.replicas.len();
        if is_few {
            replica.eject(reason, now);
        }
        is_few
    }

    // --- What probes and status pages ask ---

    /// `replica` told how many tokens its cache holds.
    pub(crate) fn resize_cache(&self, replica: &Replica, tokens: u64) {
        if let Some(slot) = replica.slot {
            self.memory.index().resize(slot, tokens);
        }
    }

    /// `replica` was started anew: its cache is empty, and what its answers were does not matter any more.
    pub(crate) fn forget_replica(&self, replica: &Replica) {
        lock(&self.memory.outliers).forget(replica.id);
        if let Some(slot) = replica.slot {
            self.memory.index().clear(slot);
        }
    }

    /// (healthy, known) replicas.
    pub(super) fn health(&self) -> (usize, usize) {
        (self.replicas.iter().filter(|replica| replica.is_ready()).count(), self.replicas.len())
    }

    /// Each replica that gets no calls, and why: `http://host:port: connection refused`.
    pub(super) fn troubles(&self) -> Vec<String> {
        let troubles = self.replicas.iter().filter(|replica| !replica.is_ready());
        troubles.map(|replica| format!("{}: {}", replica.url, replica.status())).collect()
    }

    pub(super) fn snapshot(&self) -> PoolSnapshot {
        let now = Instant::now();
        let replicas = self.replicas.iter().map(|replica| replica.snapshot(now)).collect();
        PoolSnapshot { service: self.service.clone(), replicas }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)
    }
}

#[cfg(test)]
mod tests;
