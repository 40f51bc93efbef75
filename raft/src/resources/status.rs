//! Status: phases and conditions, computed from the state and from what this node sees of the replicas.

use super::Object;
use crate::ids::Timestamp;
use crate::state::State;

/// What the answering node knows of the replicas behind an LLMInferenceService.
pub trait ReplicaHealth {
    /// (healthy, known) replicas of the service `namespace/name`; `None` when this node has no pool for it.
    fn replicas(&self, namespace: &str, name: &str) -> Option<(usize, usize)>;
    /// The public base URL of this gateway: `https://host:port`, without a trailing slash.
    fn gateway_url(&self) -> String;
}

/// An object's status.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// `status.phase`; empty for kinds that have none.
    pub phase: &'static str,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
    /// The whole `status` as JSON, phase and conditions included; `null` for kinds without status.
    pub json: serde_json::Value,
}

/// One of `status.conditions`.
#[derive(Clone, PartialEq, Debug)]
pub struct Condition {
    /// `Ready`.
    pub kind: &'static str,
    /// `True`, `False`, `Unknown`.
    pub status: &'static str,
    /// One word.
    pub reason: &'static str,
    /// What is missing and who can add it.
    pub message: String,
    /// Since when, as far as the state tells.
    pub since: Timestamp,
}

/// The status of `object` in `state`.
pub fn status(object: &Object, state: &State, health: &dyn ReplicaHealth) -> Status {
    todo!("{:?} {} {}", object.key, state.applied, health.gateway_url())
}
