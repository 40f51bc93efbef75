//! The endpoint picker: one pool of replicas per LLMInferenceService, and their ranking for one call.
//!
//! A ranking never waits: it reads a published pool and atomics. Scraped numbers are corrected by what this node has sent
//! since, so an old scrape causes no herd; stale numbers fade and never stop dispatch.
//!
//! `pools` is the handle, `pool` a value, `policy` ranks; `actor` keeps the pools and a probe task for each replica. Whether a
//! replica gets calls is in `state`; `outliers` judges its answers relative to its peers and across callers; `retries` is a budget.

mod actor;
mod generated;
mod half_open;
mod outliers;
mod policy;
mod pool;
mod pools;
mod prefix;
mod ranking;
mod replica;
mod retries;
mod route;
mod state;

use xxhash_rust::xxh3::xxh3_64;

use crate::routing::Name;

pub use generated::{EngineOutput, Generated};
pub use pools::Pools;
pub use prefix::PrefixHashes;
pub use ranking::Ranking;
pub use route::Route;
pub use state::Status;

pub(crate) use actor::PoolsActor;
pub(crate) use pool::Pool;
pub(crate) use replica::Replica;

/// What the ranking depends on.
#[derive(Clone, Copy, Debug)]
pub struct CallShape<'a> {
    /// The prompt, as hashes of its growing prefixes.
    pub prefix: &'a PrefixHashes,
    /// The prompt's size, estimated.
    pub prompt_tokens: u64,
    /// Whose call it is.
    pub caller: CallerId,
    /// Whether nothing but the engine's work can make the answer take long. A call that makes the server fetch something from
    /// elsewhere, or that needs no engine, says nothing of the engine while it waits.
    pub is_for_engine: bool,
}

/// Tells callers apart when failures are counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CallerId(u64);

impl CallerId {
    /// The caller with this user name, whichever key it used.
    pub fn of(user: &str) -> CallerId {
        CallerId(xxh3_64(user.as_bytes()))
    }
}

/// A replica of a pool. Stays the same while its URL stays in the pool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaId(pub u64);

/// How a call went at a replica, as far as it says something of the replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It answered. Refusals that are about the call, whatever their status, are answers.
    Answered,
    /// It takes no calls just now (503, 429): back-pressure, not illness.
    Busy,
    /// Its answer says that the replica failed (500 and the like), or it fell silent. The call may have provoked that.
    Failed,
    /// The connection broke before the answer was complete.
    Lost,
    /// Its answer says that its engine died. A trial call finds out whether that is so.
    EngineDied,
    /// There was no connection, although something may listen there.
    Unreachable,
    /// Nothing listens at its address: the connection was refused. It gets no calls until a probe finds it again.
    Refused,
}

/// Why there is no replica. Each has its own answer: 503 for all but where said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoReplica {
    /// The service does not exist or names no replicas.
    #[error("the model has no replicas")]
    None,
    /// It has, and none is healthy.
    #[error("no replica of the model is healthy")]
    Unhealthy,
    /// Every healthy one was tried already.
    #[error("every healthy replica of the model has failed this call")]
    Exhausted,
}

/// A pool as seen from this node.
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    /// The LLMInferenceService.
    pub service: Name,
    /// Its replicas, in the order of the annotation.
    pub replicas: Vec<ReplicaSnapshot>,
}

/// A replica as seen from this node.
#[derive(Clone, Debug)]
pub struct ReplicaSnapshot {
    /// Its id.
    pub id: ReplicaId,
    /// Its base URL.
    pub url: String,
    /// Whether it gets calls, and why not.
    pub status: Status,
    /// Calls of this node in flight there.
    pub in_flight: u64,
    /// Waiting requests it last reported.
    pub waiting: f64,
    /// Running requests it last reported.
    pub running: f64,
    /// KV-cache use it last reported, 0 to 1.
    pub kv_usage: f64,
    /// Age of those numbers in seconds; `None` if there are none.
    pub metrics_age_seconds: Option<f64>,
}

impl ReplicaSnapshot {
    /// Whether it gets calls.
    pub fn is_ready(&self) -> bool {
        self.status == Status::Ready
    }
}
