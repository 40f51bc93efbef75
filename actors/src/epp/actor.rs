//! The actor of all pools: follows the services of the newest View, publishes their pools, and keeps one probe task for each replica.
//!
//! Pools and replicas outlive the actor: one that is started again finds them as they were, and starts new probes.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use raft::View;
use raft::resources::{Kind, Spec};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::ReplicaId;
use super::pool::Pool;
use super::pools::Pools;
use super::replica::Replica;
use crate::mailbox::{Seen, follow_views};
use crate::probe::Probe;
use crate::routing::Name;
use crate::supervisor::Restarts;

pub(crate) struct PoolsActor;

/// Bounded: one View at a time; per replica one end of its probe or one restart.
pub(crate) enum PoolsMessage {
    View(Seen),
    /// The probe of this replica ended, and why.
    ProbeEnded(ReplicaId, String),
    /// Start the probe of this replica again.
    StartProbe(ReplicaId),
}

pub(crate) struct Running {
    pools: Pools,
    probes: BTreeMap<ReplicaId, ProbeTask>,
    _following: JoinSet<()>,
}

/// The probe of one replica.
#[derive(Default)]
struct ProbeTask {
    /// Empty while a restart is waited for. Dropping it ends the task.
    task: JoinSet<()>,
    restarts: Restarts,
}

impl Actor for PoolsActor {
    type Msg = PoolsMessage;
    type State = Running;
    type Arguments = Pools;

    async fn pre_start(&self, myself: ActorRef<PoolsMessage>, pools: Pools) -> Result<Running, ActorProcessingErr> {
        let mut following = JoinSet::new();
        following.spawn(follow_views(pools.cluster().clone(), myself.clone(), PoolsMessage::View));
        let mut running = Running { pools, probes: BTreeMap::new(), _following: following };
        running.follow_services(&myself);
        Ok(running)
    }

    async fn handle(
        &self,
        myself: ActorRef<PoolsMessage>,
        message: PoolsMessage,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PoolsMessage::View(_seen) => running.follow_services(&myself),
            PoolsMessage::ProbeEnded(id, reason) => running.probe_ended(&myself, id, &reason)?,
            PoolsMessage::StartProbe(id) => running.start_probe(&myself, id),
        }
        Ok(())
    }
}

impl Running {
    /// Makes pools of the services of the newest View and publishes them. Starts the probes of new replicas, and ends those of
    /// replicas that are in no pool any more.
    fn follow_services(&mut self, myself: &ActorRef<PoolsMessage>) {
        let published = self.pools.published();
        let wanted = services(&self.pools.cluster().view());
        let mut has_changed = published.len() != wanted.len();
        let mut pools = BTreeMap::new();
        for (service, urls) in wanted {
            let pool = match published.get(&service) {
                Some(pool) if pool.is_of(&urls) => pool.clone(),
                known => {
                    has_changed = true;
                    info!(%service, replicas = urls.len(), "the pool has changed");
                    let known = known.cloned().unwrap_or_else(|| Arc::new(self.new_pool(service.clone())));
                    Arc::new(known.with_replicas(&urls, || self.pools.new_id()))
                }
            };
            pools.insert(service, pool);
        }
        if has_changed {
            self.pools.publish(pools);
        }
        self.follow_replicas(myself);
    }

    fn new_pool(&self, service: Name) -> Pool {
        Pool::empty(service, self.pools.probing().chance.u64())
    }

    fn follow_replicas(&mut self, myself: &ActorRef<PoolsMessage>) {
        let pools = self.pools.published();
        let ids: Vec<ReplicaId> = pools.values().flat_map(|pool| pool.replicas()).map(|replica| replica.id).collect();
        self.probes.retain(|id, _| ids.contains(id));
        for id in ids {
            if !self.probes.contains_key(&id) {
                self.start_probe(myself, id);
            }
        }
    }

    /// The replica of this id, and the pool that it is in.
    fn replica(&self, id: ReplicaId) -> Option<(Arc<Pool>, Arc<Replica>)> {
        let pools = self.pools.published();
        pools.values().find_map(|pool| {
            let replica = pool.replicas().iter().find(|replica| replica.id == id)?;
            Some((pool.clone(), replica.clone()))
        })
    }

    fn start_probe(&mut self, myself: &ActorRef<PoolsMessage>, id: ReplicaId) {
        let Some((pool, replica)) = self.replica(id) else { return };
        let probe = Probe::new(self.pools.probing().clone(), pool, replica);
        let myself = myself.clone();
        let task = async move {
            let Err(panic) = AssertUnwindSafe(probe.run()).catch_unwind().await;
            // An actor that has stopped starts all probes when it is started again.
            let _ = myself.send_message(PoolsMessage::ProbeEnded(id, text_of(panic.as_ref())));
        };
        self.probes.entry(id).or_default().task.spawn(task);
    }

    /// A probe that died knows nothing of its replica any more, so that gets no calls until the probe is back.
    /// Errors: the probe keeps failing.
    fn probe_ended(
        &mut self,
        myself: &ActorRef<PoolsMessage>,
        id: ReplicaId,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        let (Some((_, replica)), Some(probe)) = (self.replica(id), self.probes.get_mut(&id)) else { return Ok(()) };
        probe.task = JoinSet::new();
        let pause = probe.restarts.next(Instant::now());
        warn!(replica = %replica.url, reason, ?pause, "the probe of a replica failed");
        replica.goes_down("its probe failed".to_owned());
        let pause = pause.ok_or_else(|| format!("the probe of {} keeps failing: {reason}", replica.url))?;
        myself.send_after(pause, move || PoolsMessage::StartProbe(id));
        Ok(())
    }
}

/// What a panic says.
fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// The replicas of every service.
fn services(view: &View) -> BTreeMap<Name, Vec<String>> {
    view.objects_of(Kind::InferenceService)
        .filter_map(|object| match &object.spec {
            Spec::InferenceService(spec) => {
                Some((Name::new(&object.key.namespace, &object.key.name), spec.replica_urls.clone()))
            }
            _ => None,
        })
        .collect()
}
