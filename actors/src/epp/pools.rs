//! All pools of this node, as requests and status pages see them: one for each LLMInferenceService.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use raft::Cluster;
use raft::resources::ReplicaHealth;

use super::pool::Pool;
use super::ranking::Ranking;
use super::{CallShape, NoReplica, PoolSnapshot, ReplicaId};
use crate::Deps;
use crate::probe::Probing;
use crate::routing::Name;

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
    next_id: AtomicU64,
    /// Replaced as a whole, by the actor only.
    pools: ArcSwap<BTreeMap<Name, Arc<Pool>>>,
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
            next_id: AtomicU64::new(1),
            pools: ArcSwap::default(),
        };
        Pools { shared: Arc::new(shared) }
    }

    /// Ranks the replicas of `pool` for a call.
    /// Errors: there is no replica that may get it.
    pub fn rank<'a>(&self, pool: &Name, call: &CallShape<'a>) -> Result<Ranking<'a>, NoReplica> {
        self.shared.pools.load().get(pool).ok_or(NoReplica::None)?.rank(call)
    }

    /// Every pool with its replicas, for status pages, metrics and tests; sorted by service.
    pub fn snapshot(&self) -> Vec<PoolSnapshot> {
        self.shared.pools.load().values().map(|pool| pool.snapshot()).collect()
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    pub(super) fn probing(&self) -> &Arc<Probing> {
        &self.shared.probing
    }

    /// The pools that are published.
    pub(super) fn published(&self) -> Arc<BTreeMap<Name, Arc<Pool>>> {
        self.shared.pools.load_full()
    }

    pub(super) fn publish(&self, pools: BTreeMap<Name, Arc<Pool>>) {
        self.shared.pools.store(Arc::new(pools));
    }

    /// An id that no replica has had.
    pub(super) fn new_id(&self) -> ReplicaId {
        ReplicaId(self.shared.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

impl ReplicaHealth for Pools {
    fn replicas(&self, namespace: &str, name: &str) -> Option<(usize, usize)> {
        self.shared.pools.load().get(&Name::new(namespace, name)).map(|pool| pool.health())
    }

    fn troubles(&self, namespace: &str, name: &str) -> Vec<String> {
        self.shared.pools.load().get(&Name::new(namespace, name)).map(|pool| pool.troubles()).unwrap_or_default()
    }

    fn gateway_url(&self) -> String {
        self.shared.gateway_url.clone()
    }
}
