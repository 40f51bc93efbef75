//! Status: phases and conditions, computed from the state and from what this node sees of the replicas.
//!
//! Nothing here is stored, so a status is never stale and never needs repair. Messages say what is missing and who can add it.

use serde_json::{Map, Value, json};

use super::{Kind, Object, Spec, auth_policy, inference_service, model_ref, plain, subscription, tenant};
use crate::ids::Timestamp;
use crate::state::State;

/// What the answering node knows of the replicas behind an LLMInferenceService.
pub trait ReplicaHealth {
    /// (healthy, known) replicas of the service `namespace/name`; `None` when this node has no pool for it.
    fn replicas(&self, namespace: &str, name: &str) -> Option<(usize, usize)>;
    /// Each replica of the service that gets no calls, and why, in one line: `http://host:port: connection refused`.
    fn troubles(&self, namespace: &str, name: &str) -> Vec<String>;
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

/// How an object fares, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Something that is needed is still to come.
    Pending,
    /// All of it works (subscriptions, policies, tenants, namespaces).
    Active,
    /// All of it works (models).
    Ready,
    /// Some of it works.
    Degraded,
    /// It exists and is broken at the moment.
    Unhealthy,
    /// None of it works.
    Failed,
}

impl Phase {
    /// As written in `status.phase`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Active => "Active",
            Phase::Ready => "Ready",
            Phase::Degraded => "Degraded",
            Phase::Unhealthy => "Unhealthy",
            Phase::Failed => "Failed",
        }
    }

    /// The phase of something of whose `all` references `found` lead somewhere.
    pub(super) fn of_references(found: usize, all: usize) -> Phase {
        match found {
            0 => Phase::Failed,
            found if found < all => Phase::Degraded,
            _ => Phase::Active,
        }
    }
}

/// The phase of a MaaSSubscription or a MaaSAuthPolicy, without the words: what the request path asks for. `Failed` for other kinds.
pub fn reference_phase(object: &Object, state: &State) -> Phase {
    match &object.spec {
        Spec::Subscription(spec) => subscription::phase(spec, state),
        Spec::AuthPolicy(spec) => auth_policy::phase(spec, state),
        Spec::Plain
        | Spec::Group(_)
        | Spec::Tenant(_)
        | Spec::InferenceService(_)
        | Spec::ModelRef(_)
        | Spec::Unreadable(_) => Phase::Failed,
    }
}

/// Whether a subscription's or policy's reference to the MaaSModelRef `namespace/name` is usable: it exists and can be read.
pub fn is_usable_reference(state: &State, namespace: &str, name: &str) -> bool {
    model_ref::exists(state, namespace, name)
}

/// The status of `object` in `state`.
pub fn status(object: &Object, state: &State, health: &dyn ReplicaHealth) -> Status {
    match &object.spec {
        Spec::Plain if object.key.kind == Kind::Namespace => plain::namespace_status(object),
        Spec::Plain | Spec::Group(_) => Status { phase: "", conditions: Vec::new(), json: Value::Null },
        Spec::Tenant(_) => tenant::status(object),
        Spec::InferenceService(_) => inference_service::status(object, state, health),
        Spec::ModelRef(spec) => model_ref::status(object, spec, state, health),
        Spec::Subscription(spec) => subscription::status(object, spec, state),
        Spec::AuthPolicy(spec) => auth_policy::status(object, spec, state),
        Spec::Unreadable(why) => unreadable(object, why),
    }
}

fn unreadable(object: &Object, why: &str) -> Status {
    let ready = Condition {
        kind: "Ready",
        status: "False",
        reason: "InvalidSpec",
        message: format!(
            "this version cannot read it ({why}) and grants nothing by it: apply it again in a form it knows"
        ),
        since: object.updated,
    };
    assemble(object, Some(Phase::Failed), vec![ready], json!({}))
}

/// A status of a phase, conditions, and `more` fields of JSON between them.
pub(super) fn assemble(object: &Object, phase: Option<Phase>, conditions: Vec<Condition>, more: Value) -> Status {
    let mut json = Map::new();
    if let Some(phase) = phase {
        json.insert("phase".to_owned(), json!(phase.as_str()));
    }
    if let Value::Object(more) = more {
        json.extend(more);
    }
    let listed = conditions.iter().map(|condition| condition_json(object, condition)).collect();
    json.insert("conditions".to_owned(), Value::Array(listed));
    Status { phase: phase.map_or("", Phase::as_str), conditions, json: Value::Object(json) }
}

fn condition_json(object: &Object, condition: &Condition) -> Value {
    json!({
        "type": condition.kind,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.since.to_string(),
        "observedGeneration": object.generation,
    })
}

impl Status {
    /// Status and reason of the Ready condition; empty without one.
    pub(super) fn ready(&self) -> (&'static str, &'static str) {
        let ready = self.conditions.iter().find(|condition| condition.kind == "Ready");
        ready.map_or(("", ""), |condition| (condition.status, condition.reason))
    }
}
