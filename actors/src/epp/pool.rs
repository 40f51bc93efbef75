//! One pool: the replicas of one LLMInferenceService, and the choice among them.
//!
//! The choice is a function of a published list, atomics and the prefix index; no mailbox is involved. The actor owns the
//! list and the probes: replicas that stay in the annotation keep their identity, those that leave it finish their calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;
use tracing::{info, warn};

use super::breaker::Admission;
use super::prefix::{PrefixIndex, SLOTS_MAX};
use super::replica::{Replica, Route};
use super::score::{self, Candidate};
use super::{CallShape, NoReplica, PoolSnapshot, ReplicaId};
use crate::probe::{ProbeActor, Probing};
use crate::routing::Name;
use crate::supervisor::Restarts;

/// A pool as requests see it.
pub(crate) struct Pool {
    service: Name,
    replicas: ArcSwap<Vec<Arc<Replica>>>,
    index: Mutex<PrefixIndex>,
    /// Advances with every pick; its mixed value breaks ties.
    dice: AtomicU64,
}

impl Pool {
    /// An empty pool whose ties are broken in an order that `seed` decides.
    pub(super) fn new(service: Name, seed: u64) -> Pool {
        Pool { service, replicas: ArcSwap::default(), index: Mutex::default(), dice: AtomicU64::new(seed) }
    }

    fn index(&self) -> MutexGuard<'_, PrefixIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Picks a replica that was not tried yet.
    pub(super) fn pick(&self, call: &CallShape<'_>, tried: &[ReplicaId]) -> Result<Route, NoReplica> {
        let replicas = self.replicas.load();
        let now = Instant::now();
        let mut open = open_replicas(&replicas, tried, now)?;
        let blocks = f64::from(call.prefix.blocks().max(1));
        let matches = self.index().matches(call.prefix);
        while !open.is_empty() {
            let candidates: Vec<Candidate> = open
                .iter()
                .map(|(replica, _)| {
                    let (waiting, kv_usage) = replica.observed(now).load();
                    Candidate { waiting, kv_usage, cached: f64::from(matches.of(replica.slot)) / blocks }
                })
                .collect();
            let Some(best) = score::best(&candidates, self.roll()) else { break };
            let (replica, admission) = open.swap_remove(best);
            // Only a trial that somebody else just took is refused here.
            if let Some(route) = Route::start(replica, admission, call.prompt_tokens, now) {
                if let Some(slot) = replica.slot {
                    self.index().note(slot, call.prefix);
                }
                return Ok(route);
            }
        }
        Err(NoReplica::Unhealthy)
    }

    /// A number that looks random: splitmix64 of a counter.
    fn roll(&self) -> u64 {
        let mut mixed = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// `replica` told how many tokens its cache holds.
    pub(crate) fn resize_cache(&self, replica: &Replica, tokens: u64) {
        if let Some(slot) = replica.slot {
            self.index().resize(slot, tokens);
        }
    }

    /// `replica` was started anew: its cache is empty.
    pub(crate) fn forget_cache(&self, replica: &Replica) {
        if let Some(slot) = replica.slot {
            self.index().clear(slot);
        }
    }

    /// (healthy, known) replicas.
    pub(super) fn health(&self) -> (usize, usize) {
        let replicas = self.replicas.load();
        let now = Instant::now();
        (replicas.iter().filter(|replica| replica.is_taking_calls(now)).count(), replicas.len())
    }

    pub(super) fn snapshot(&self) -> PoolSnapshot {
        let now = Instant::now();
        let replicas = self.replicas.load().iter().map(|replica| replica.snapshot(now)).collect();
        PoolSnapshot { service: self.service.clone(), replicas }
    }

    /// Makes the replicas those at `urls`, in that order. Those that stay are kept as they are; their ids come from `ids`.
    fn set_replicas(&self, urls: &[String], ids: &AtomicU64) {
        let before = self.replicas.load();
        let kept = |url: &String| before.iter().find(|replica| replica.url == *url);
        for gone in before.iter().filter(|replica| !urls.contains(&replica.url)) {
            self.forget_cache(gone);
        }
        let taken: BTreeSet<u8> = urls.iter().filter_map(kept).filter_map(|replica| replica.slot).collect();
        let mut free = (0..SLOTS_MAX as u8).filter(|slot| !taken.contains(slot));
        let replicas = urls
            .iter()
            .map(|url| match kept(url) {
                Some(replica) => replica.clone(),
                None => {
                    let id = ReplicaId(ids.fetch_add(1, Ordering::Relaxed));
                    Arc::new(Replica::new(id, url.clone(), free.next()))
                }
            })
            .collect();
        self.replicas.store(Arc::new(replicas));
    }
}

type Open<'a> = Vec<(&'a Arc<Replica>, Admission)>;

/// Those that may get this call.
fn open_replicas<'a>(replicas: &'a [Arc<Replica>], tried: &[ReplicaId], now: Instant) -> Result<Open<'a>, NoReplica> {
    if replicas.is_empty() {
        return Err(NoReplica::None);
    }
    let mut open = Vec::with_capacity(replicas.len());
    let mut was_tried = false;
    for replica in replicas.iter().filter(|replica| replica.is_up()) {
        let admission = replica.admission(now);
        if tried.contains(&replica.id) {
            was_tried = true;
        } else if admission != Admission::Refused {
            open.push((replica, admission));
        }
    }
    match (open.is_empty(), was_tried) {
        (false, _) => Ok(open),
        (true, true) => Err(NoReplica::Exhausted),
        (true, false) => Err(NoReplica::Unhealthy),
    }
}

// === The actor ===

pub(super) struct PoolActor;

/// What a pool actor is given.
#[derive(Clone)]
pub(super) struct PoolPlan {
    pub(super) pool: Arc<Pool>,
    pub(super) urls: Vec<String>,
    pub(super) ids: Arc<AtomicU64>,
    pub(super) probing: Arc<Probing>,
}

/// Bounded: an update per change of the service, a restart per failure of a probe.
pub(super) enum PoolMessage {
    /// These are the replicas now.
    Replicas(Vec<String>),
    /// Start the probe of this replica again.
    Probe(ReplicaId),
}

pub(super) struct Running {
    plan: PoolPlan,
    probes: BTreeMap<ReplicaId, Probe>,
}

struct Probe {
    cell: ActorCell,
    restarts: Restarts,
}

impl Actor for PoolActor {
    type Msg = PoolMessage;
    type State = Running;
    type Arguments = PoolPlan;

    async fn pre_start(&self, myself: ActorRef<PoolMessage>, plan: PoolPlan) -> Result<Running, ActorProcessingErr> {
        let mut running = Running { plan, probes: BTreeMap::new() };
        running.follow_replicas(&myself).await?;
        Ok(running)
    }

    async fn handle(
        &self,
        myself: ActorRef<PoolMessage>,
        message: PoolMessage,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PoolMessage::Replicas(urls) => {
                running.plan.urls = urls;
                running.follow_replicas(&myself).await
            }
            PoolMessage::Probe(id) => running.start_probe(&myself, id).await,
        }
    }

    /// One after the other, in order: otherwise they would end in the order of a hash map.
    async fn post_stop(&self, _: ActorRef<PoolMessage>, running: &mut Running) -> Result<(), ActorProcessingErr> {
        running.probes.values().for_each(|probe| probe.cell.stop(None));
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<PoolMessage>,
        event: SupervisionEvent,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, error) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason.unwrap_or_default()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        running.probe_failed(&myself, &cell, &error)
    }
}

impl Running {
    fn replica(&self, id: ReplicaId) -> Option<Arc<Replica>> {
        self.plan.pool.replicas.load().iter().find(|replica| replica.id == id).cloned()
    }

    /// Publishes the replicas, starts the probes of new ones and stops those of replicas that left.
    async fn follow_replicas(&mut self, myself: &ActorRef<PoolMessage>) -> Result<(), ActorProcessingErr> {
        let pool = self.plan.pool.clone();
        pool.set_replicas(&self.plan.urls, &self.plan.ids);
        info!(service = %pool.service, replicas = self.plan.urls.len(), "the pool has changed");
        let ids: BTreeSet<ReplicaId> = pool.replicas.load().iter().map(|replica| replica.id).collect();
        let gone: Vec<ReplicaId> = self.probes.keys().filter(|id| !ids.contains(id)).copied().collect();
        for probe in gone.iter().filter_map(|id| self.probes.remove(id)) {
            probe.cell.stop(None);
        }
        for id in ids {
            if !self.probes.contains_key(&id) {
                self.start_probe(myself, id).await?;
            }
        }
        Ok(())
    }

    async fn start_probe(&mut self, myself: &ActorRef<PoolMessage>, id: ReplicaId) -> Result<(), ActorProcessingErr> {
        let Some(replica) = self.replica(id) else { return Ok(()) };
        let arguments = (self.plan.probing.clone(), self.plan.pool.clone(), replica);
        let (probe, _ended) = ProbeActor::spawn_linked(None, ProbeActor, arguments, myself.get_cell()).await?;
        let restarts = self.probes.remove(&id).map(|probe| probe.restarts).unwrap_or_default();
        self.probes.insert(id, Probe { cell: probe.get_cell(), restarts });
        Ok(())
    }

    /// A probe that died knows nothing of its replica any more, so nobody does until it is back.
    fn probe_failed(
        &mut self,
        myself: &ActorRef<PoolMessage>,
        cell: &ActorCell,
        error: &str,
    ) -> Result<(), ActorProcessingErr> {
        let failed = self.probes.iter_mut().find(|(_, probe)| probe.cell.get_id() == cell.get_id());
        let Some((&id, probe)) = failed else { return Ok(()) };
        let pause = probe.restarts.next(Instant::now());
        if let Some(replica) = self.replica(id) {
            warn!(replica = %replica.url, error, ?pause, "the probe of a replica failed");
            replica.goes_down("its probe failed".to_owned());
        }
        let pause = pause.ok_or_else(|| format!("the probe of replica {} keeps failing: {error}", id.0))?;
        myself.send_after(pause, move || PoolMessage::Probe(id));
        Ok(())
    }
}
