//! All pools: one per LLMInferenceService. The actor follows the View and keeps a pool actor for each service.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use raft::resources::{Kind, ReplicaHealth, Spec};
use raft::{Cluster, View};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use super::pool::{Pool, PoolActor, PoolMessage, PoolPlan};
use super::replica::Route;
use super::{CallShape, NoReplica, PoolSnapshot, ReplicaId};
use crate::Deps;
use crate::mailbox::{Seen, follow_views};
use crate::probe::Probing;
use crate::routing::Name;
use crate::supervisor::Restarts;

/// Handle of all pools.
#[derive(Clone)]
pub struct Pools {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Cluster,
    gateway_url: String,
    probing: Arc<Probing>,
    /// The next replica's id.
    ids: Arc<AtomicU64>,
    pools: ArcSwap<HashMap<Name, Arc<Pool>>>,
}

impl Pools {
    pub(crate) fn new(deps: &Deps) -> Pools {
        let probing = Probing {
            scrape: deps.scrape.clone(),
            chance: deps.doors.chance.clone(),
            interval: deps.settings.probe_interval,
            timeout: deps.settings.probe_timeout,
        };
        let shared = Shared {
            cluster: deps.cluster.clone(),
            gateway_url: deps.settings.gateway_url.trim_end_matches('/').to_owned(),
            probing: Arc::new(probing),
            ids: Arc::new(AtomicU64::new(1)),
            pools: ArcSwap::default(),
        };
        Pools { shared: Arc::new(shared) }
    }

    /// Picks a replica of `pool` for a call, not among `tried`, and raises its in-flight count.
    pub fn pick(&self, pool: &Name, call: &CallShape<'_>, tried: &[ReplicaId]) -> Result<Route, NoReplica> {
        self.shared.pools.load().get(pool).ok_or(NoReplica::None)?.pick(call, tried)
    }

    /// Every pool with its replicas, for status pages, metrics and tests; sorted by service.
    pub fn snapshot(&self) -> Vec<PoolSnapshot> {
        let mut pools: Vec<PoolSnapshot> = self.shared.pools.load().values().map(|pool| pool.snapshot()).collect();
        pools.sort_by(|a, b| a.service.cmp(&b.service));
        pools
    }
}

impl Pools {
    /// The pool of a service: after a restart the one that is published, with its replicas and their calls.
    fn pool(&self, service: &Name) -> Arc<Pool> {
        let published = self.shared.pools.load().get(service).cloned();
        published.unwrap_or_else(|| Arc::new(Pool::new(service.clone(), self.shared.probing.chance.u64())))
    }
}

impl ReplicaHealth for Pools {
    fn replicas(&self, namespace: &str, name: &str) -> Option<(usize, usize)> {
        self.shared.pools.load().get(&Name::new(namespace, name)).map(|pool| pool.health())
    }

    fn gateway_url(&self) -> String {
        self.shared.gateway_url.clone()
    }
}

// === The actor ===

pub(crate) struct PoolsActor;

/// Bounded: one View at a time, a restart per failure of a pool.
pub(crate) enum PoolsMessage {
    View(Seen),
    /// Start this pool's actor again.
    Restart(Name),
}

pub(crate) struct Running {
    pools: Pools,
    actors: BTreeMap<Name, Child>,
    _following: JoinSet<()>,
}

struct Child {
    pool: Arc<Pool>,
    urls: Vec<String>,
    actor: ActorRef<PoolMessage>,
    restarts: Restarts,
}

impl Actor for PoolsActor {
    type Msg = PoolsMessage;
    type State = Running;
    type Arguments = Pools;

    async fn pre_start(&self, myself: ActorRef<PoolsMessage>, pools: Pools) -> Result<Running, ActorProcessingErr> {
        let mut following = JoinSet::new();
        following.spawn(follow_views(pools.shared.cluster.clone(), myself.clone(), PoolsMessage::View));
        let mut running = Running { pools, actors: BTreeMap::new(), _following: following };
        running.follow_services(&myself).await?;
        Ok(running)
    }

    async fn handle(
        &self,
        myself: ActorRef<PoolsMessage>,
        message: PoolsMessage,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PoolsMessage::View(_seen) => running.follow_services(&myself).await,
            PoolsMessage::Restart(service) => running.restart(&myself, service).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<PoolsMessage>,
        event: SupervisionEvent,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, error) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason.unwrap_or_default()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let failed = running.actors.iter_mut().find(|(_, child)| child.actor.get_id() == cell.get_id());
        let Some((service, child)) = failed else { return Ok(()) };
        let pause = child.restarts.next(Instant::now());
        warn!(%service, error, ?pause, "a pool failed");
        let pause = pause.ok_or_else(|| format!("pool {service} keeps failing: {error}"))?;
        let service = service.clone();
        myself.send_after(pause, move || PoolsMessage::Restart(service));
        Ok(())
    }
}

impl Running {
    /// Makes pools of the services of the newest View, and publishes them.
    async fn follow_services(&mut self, myself: &ActorRef<PoolsMessage>) -> Result<(), ActorProcessingErr> {
        let wanted = services(&self.pools.shared.cluster.view());
        let gone: Vec<Name> = self.actors.keys().filter(|name| !wanted.contains_key(name)).cloned().collect();
        let mut changed = !gone.is_empty();
        for child in gone.iter().filter_map(|name| self.actors.remove(name)) {
            child.actor.stop(None);
        }
        for (service, urls) in wanted {
            match self.actors.get_mut(&service) {
                Some(child) if child.urls == urls => {}
                Some(child) => {
                    child.urls.clone_from(&urls);
                    // One that is down takes the new list when it is started again.
                    let _ = child.actor.send_message(PoolMessage::Replicas(urls));
                }
                None => {
                    let pool = self.pools.pool(&service);
                    let actor = self.spawn(myself, &pool, &urls).await?;
                    self.actors.insert(service, Child { pool, urls, actor, restarts: Restarts::default() });
                    changed = true;
                }
            }
        }
        if changed || self.pools.shared.pools.load().len() != self.actors.len() {
            let pools = self.actors.iter().map(|(name, child)| (name.clone(), child.pool.clone())).collect();
            self.pools.shared.pools.store(Arc::new(pools));
        }
        Ok(())
    }

    async fn spawn(
        &self,
        myself: &ActorRef<PoolsMessage>,
        pool: &Arc<Pool>,
        urls: &[String],
    ) -> Result<ActorRef<PoolMessage>, ActorProcessingErr> {
        let plan = PoolPlan {
            pool: pool.clone(),
            urls: urls.to_vec(),
            ids: self.pools.shared.ids.clone(),
            probing: self.pools.shared.probing.clone(),
        };
        let (actor, _ended) = PoolActor::spawn_linked(None, PoolActor, plan, myself.get_cell()).await?;
        Ok(actor)
    }

    async fn restart(&mut self, myself: &ActorRef<PoolsMessage>, service: Name) -> Result<(), ActorProcessingErr> {
        let Some(child) = self.actors.get(&service) else { return Ok(()) };
        let (pool, urls) = (child.pool.clone(), child.urls.clone());
        let actor = self.spawn(myself, &pool, &urls).await?;
        if let Some(child) = self.actors.get_mut(&service) {
            child.actor = actor;
        }
        Ok(())
    }
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
