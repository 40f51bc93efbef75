//! A pool: the replicas of one LLMInferenceService, and their ranking for one call. A plain value; nothing here waits.
//!
//! A pool whose replicas change is replaced by another one. Replicas that stay keep their identity, counts and cached prefixes;
//! calls at a replica that has left the pool go on to their end.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::breaker::Admission;
use super::policy::{self, Candidate};
use super::prefix::{PrefixIndex, SLOTS_MAX};
use super::ranking::Ranking;
use super::replica::Replica;
use super::route::Route;
use super::{CallShape, NoReplica, PoolSnapshot, ReplicaId};
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
    /// Advances with every ranking; its mixed value breaks ties.
    dice: AtomicU64,
}

impl Memory {
    fn index(&self) -> MutexGuard<'_, PrefixIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that looks random.
    fn roll(&self) -> u64 {
        policy::mix(self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }
}

impl Pool {
    /// A pool without replicas whose ties are broken in an order that `seed` decides.
    pub(super) fn empty(service: Name, seed: u64) -> Pool {
        let memory = Memory { index: Mutex::default(), dice: AtomicU64::new(seed) };
        Pool { service, replicas: Vec::new(), memory: Arc::new(memory) }
    }

    /// The pool with the replicas at `urls`, in that order. New replicas have ids of `new_id`.
    pub(super) fn with_replicas(&self, urls: &[String], mut new_id: impl FnMut() -> ReplicaId) -> Pool {
        let kept = |url: &String| self.replicas.iter().find(|replica| replica.url == *url);
        for gone in self.replicas.iter().filter(|replica| !urls.contains(&replica.url)) {
            self.forget_cache(gone);
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

    /// The replicas that may get a call, best first.
    /// Errors: there are none.
    pub(super) fn rank<'a>(self: &Arc<Pool>, call: &CallShape<'a>) -> Result<Ranking<'a>, NoReplica> {
        if self.replicas.is_empty() {
            return Err(NoReplica::None);
        }
        let now = Instant::now();
        let may_get_calls = |replica: &Replica| replica.is_up() && replica.admission(now) != Admission::Refused;
        let (indexes, candidates) = self.candidates(call, now, may_get_calls);
        if candidates.is_empty() {
            return Err(NoReplica::Unhealthy);
        }
        let order = policy::rank(&candidates, self.memory.roll()).into_iter().map(|at| indexes[at]).collect();
        Ok(Ranking::new(self.clone(), *call, order))
    }

    /// The replicas that are `wanted`: their indexes, and what the policy knows of each.
    fn candidates(
        &self,
        call: &CallShape<'_>,
        now: Instant,
        wanted: impl Fn(&Replica) -> bool,
    ) -> (Vec<usize>, Vec<Candidate>) {
        let blocks = f64::from(call.prefix.blocks().max(1));
        let matches = self.memory.index().matches(call.prefix);
        let wanted = self.replicas.iter().enumerate().filter(|(_, replica)| wanted(replica));
        wanted
            .map(|(index, replica)| {
                let (waiting, kv_usage) = replica.observed(now).load();
                (index, Candidate { waiting, kv_usage, cached: f64::from(matches.of(replica.slot)) / blocks })
            })
            .unzip()
    }

    /// A route of a call to the replica at `index`; `None` if that does not take the call now.
    pub(super) fn start(&self, index: usize, call: &CallShape<'_>, now: Instant) -> Option<Route> {
        let replica = self.replicas.get(index).filter(|replica| replica.is_up())?;
        let route = Route::start(replica, call.prompt_tokens, now)?;
        if let Some(slot) = replica.slot {
            self.memory.index().note(slot, call.prefix);
        }
        Some(route)
    }

    /// `replica` told how many tokens its cache holds.
    pub(crate) fn resize_cache(&self, replica: &Replica, tokens: u64) {
        if let Some(slot) = replica.slot {
            self.memory.index().resize(slot, tokens);
        }
    }

    /// `replica` was started anew: its cache is empty.
    pub(crate) fn forget_cache(&self, replica: &Replica) {
        if let Some(slot) = replica.slot {
            self.memory.index().clear(slot);
        }
    }

    /// (healthy, known) replicas.
    pub(super) fn health(&self) -> (usize, usize) {
        let now = Instant::now();
        (self.replicas.iter().filter(|replica| replica.is_taking_calls(now)).count(), self.replicas.len())
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
