//! MaaSModelRef: publishes a model to subscriptions and policies.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fields::{Fields, Report};
use super::inference_service::{self, Backend};
use super::kind::Column;
use super::media::{self, MediaTokens};
use super::status::{self, Phase, Status};
use super::steering;
use super::{Condition, Kind, Object, ObjectKey, ReplicaHealth, Spec};
use crate::ids::Timestamp;
use crate::state::State;

/// A parsed MaaSModelRef.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelRefSpec {
    /// `spec.modelRef.kind`: `LLMInferenceService` or `ExternalModel`.
    pub kind: String,
    /// `spec.modelRef.name`, in the same namespace.
    pub name: String,
    /// `spec.endpointOverride`.
    pub endpoint_override: Option<String>,
    /// Which fields that steer the engine its callers may set.
    pub allowed_fields: Vec<&'static str>,
    /// What the model makes of media.
    pub media: MediaTokens,
}

/// Columns of `kubectl get`, after the name.
pub(super) const COLUMNS: &[Column] = &[
    Column::text("Phase", "whether a healthy replica serves it"),
    Column::text("Endpoint", "where callers reach it"),
    Column::text("HTTPRoute", "the route's name"),
    Column::text("Gateway", "the gateway's name"),
    Column::AGE,
];

/// Reads the body `{"spec": {…}}` and the annotations.
pub(super) fn parse(
    report: &Report,
    body: &Fields<'_>,
    annotations: &BTreeMap<String, String>,
) -> Option<ModelRefSpec> {
    let allowed_fields = steering::parse_allowed_fields(report, annotations);
    let media = media::parse(report, annotations);
    let spec = body.required_object("spec", &["modelRef", "endpointOverride", "tenantRef"])?;
    let target = spec.required_object("modelRef", &["kind", "name"]);
    let endpoint = spec.text("endpointOverride").filter(|text| !text.is_empty());
    if let Some(text) = endpoint.filter(|text| !(text.starts_with("http://") || text.starts_with("https://"))) {
        spec.error("endpointOverride", format!("\"{text}\" is not an http:// or https:// URL"));
    }
    let target = target?;
    let kind = target.required_text("kind", 1..=253);
    let name = target.required_text("name", 1..=253);
    if let Some(kind) = kind.filter(|kind| !matches!(*kind, "LLMInferenceService" | "ExternalModel")) {
        target.error("kind", format!("\"{kind}\" is not a kind of model: use LLMInferenceService or ExternalModel"));
    }
    Some(ModelRefSpec {
        kind: kind?.to_owned(),
        name: name?.to_owned(),
        endpoint_override: endpoint.map(str::to_owned),
        allowed_fields,
        media,
    })
}

/// Reads `name` and `namespace` of an entry of `spec.modelRefs`: (namespace, name).
pub(super) fn parse_target(entry: &Fields<'_>) -> Option<(String, String)> {
    let name = entry.required_text("name", 1..=63);
    let namespace = entry.required_text("namespace", 1..=63);
    Some((namespace?.to_owned(), name?.to_owned()))
}

/// Whether the MaaSModelRef `namespace/name` exists and can be read: what a subscription or policy needs to cover it.
pub(super) fn exists(state: &State, namespace: &str, name: &str) -> bool {
    Reference::look_up(state, namespace, name).exists
}

// === Reference: a subscription's or policy's view of a MaaSModelRef ===

/// What somebody's reference to the MaaSModelRef `namespace/name` leads to.
pub(super) struct Reference {
    name: String,
    /// It is there and can be read.
    pub(super) exists: bool,
    readable: bool,
    /// When it last changed; the epoch if it does not exist.
    pub(super) since: Timestamp,
}

impl Reference {
    pub(super) fn look_up(state: &State, namespace: &str, name: &str) -> Reference {
        let found = state.object(&ObjectKey::new(Kind::ModelRef, namespace, name));
        let readable = found.is_none_or(|object| matches!(object.spec, Spec::ModelRef(_)));
        Reference {
            name: format!("{namespace}/{name}"),
            exists: found.is_some() && readable,
            readable,
            since: found.map(|object| object.updated).unwrap_or_default(),
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match (self.exists, self.readable) {
            (true, _) => "Valid",
            (false, true) => "NotFound",
            (false, false) => "InvalidSpec",
        }
    }

    pub(super) fn message(&self) -> String {
        match (self.exists, self.readable) {
            (true, _) => "successfully reconciled".to_owned(),
            (false, true) => {
                format!("MaaSModelRef {} not found: an administrator of its namespace can create it", self.name)
            }
            (false, false) => format!(
                "MaaSModelRef {} cannot be read: an administrator of its namespace can apply it again",
                self.name
            ),
        }
    }
}

/// The Ready condition of something that covers the models `targets`, each (namespace, name).
pub(super) fn references_condition<'a>(
    phase: Phase,
    targets: impl Iterator<Item = (&'a str, &'a str)>,
    state: &State,
    since: Timestamp,
) -> Condition {
    let missing: Vec<String> = targets
        .map(|(namespace, name)| Reference::look_up(state, namespace, name))
        .filter(|reference| !reference.exists)
        .map(|reference| reference.message())
        .collect();
    let (status, reason, message) = match phase {
        Phase::Active => ("True", "Reconciled", "successfully reconciled".to_owned()),
        Phase::Degraded => ("False", "PartialFailure", missing.join("; ")),
        Phase::Pending | Phase::Ready | Phase::Unhealthy | Phase::Failed => {
            ("False", "ReconcileFailed", missing.join("; "))
        }
    };
    Condition { kind: "Ready", status, reason, message, since }
}

// === Status ===

pub(super) fn status(object: &Object, spec: &ModelRefSpec, state: &State, health: &dyn ReplicaHealth) -> Status {
    let namespace = &object.key.namespace;
    let (phase, reason, message, since) = runtime(object, spec, state, health);
    let ready = Condition {
        kind: "Ready",
        status: if phase == Phase::Ready { "True" } else { "False" },
        reason,
        message,
        since,
    };
    let base = health.gateway_url();
    let tenant = state.tenant();
    let json = json!({
        "endpoint": endpoint(object, spec, &base),
        "httpRouteName": route_name(spec),
        "httpRouteNamespace": namespace,
        "httpRouteGatewayName": tenant.gateway_name,
        "httpRouteGatewayNamespace": tenant.gateway_namespace,
        "httpRouteHostnames": [host_name(&base)],
    });
    status::assemble(object, Some(phase), vec![ready], json)
}

/// Phase, reason, message, and since when: what stands behind the reference.
fn runtime(
    object: &Object,
    spec: &ModelRefSpec,
    state: &State,
    health: &dyn ReplicaHealth,
) -> (Phase, &'static str, String, Timestamp) {
    if spec.kind != "LLMInferenceService" {
        let message =
            format!("spec.modelRef.kind {} is not served by this version: publish an LLMInferenceService", spec.kind);
        return (Phase::Failed, "BackendNotReady", message, object.updated);
    }
    let (backend, changed) = inference_service::backend(state, health, &object.key.namespace, &spec.name);
    let phase = match backend {
        Backend::Missing | Backend::Unreadable => Phase::Failed,
        Backend::NoReplicas => Phase::Pending,
        Backend::Unhealthy { .. } => Phase::Unhealthy,
        Backend::Healthy { .. } => Phase::Ready,
    };
    (phase, backend.reason(), backend.message(&object.key.namespace, &spec.name), object.updated.max(changed))
}

fn endpoint(object: &Object, spec: &ModelRefSpec, base: &str) -> String {
    spec.endpoint_override.clone().unwrap_or_else(|| format!("{base}/{}/{}", object.key.namespace, object.key.name))
}

fn route_name(spec: &ModelRefSpec) -> String {
    format!("{}-kserve-route", spec.name)
}

/// The host of a base URL, without scheme and port.
fn host_name(base: &str) -> &str {
    let authority = base.split_once("://").map_or(base, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

pub(super) fn cells(status: &Status) -> Vec<Value> {
    let field = |name: &str| status.json.get(name).cloned().unwrap_or_default();
    vec![json!(status.phase), field("endpoint"), field("httpRouteName"), field("httpRouteGatewayName")]
}
