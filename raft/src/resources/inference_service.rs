//! LLMInferenceService: a model and the replicas that serve it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::fields::{Fields, Report};
use super::kind::Column;
use super::status::{self, Status};
use super::{Condition, Kind, Object, ObjectKey, ReplicaHealth, Spec, replica_address};
use crate::ids::Timestamp;
use crate::state::State;

/// Outside Kubernetes, the running replicas: base URLs, comma-separated. DNS names are resolved again and again.
pub const REPLICAS_ANNOTATION: &str = "tollgate.dev/replicas";

/// The most replicas of one service. Each one is probed by every node.
pub const REPLICAS_MAX: usize = 256;

/// A parsed LLMInferenceService.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InferenceServiceSpec {
    /// `spec.model.name`: what the replicas call the model. Absent: the object's own name.
    pub served_name: Option<String>,
    /// `spec.model.uri`.
    pub uri: Option<String>,
    /// `spec.replicas`.
    pub replicas: Option<u32>,
    /// The replicas of [`REPLICAS_ANNOTATION`], as `http://host:port` or `https://host:port` without a trailing slash.
    pub replica_urls: Vec<String>,
}

/// Columns of `kubectl get`, after the name.
pub(super) const COLUMNS: &[Column] = &[
    Column::text("URL", "where callers reach it"),
    Column::text("Ready", "whether a healthy replica serves it"),
    Column::text("Reason", "why, in one word"),
    Column::AGE,
];

/// What KServe reads and this gateway only keeps.
const SPEC_FIELDS: [&str; 12] = [
    "model",
    "replicas",
    "router",
    "template",
    "worker",
    "prefill",
    "parallelism",
    "baseRefs",
    "storageInitializer",
    "scaling",
    "tracing",
    "labels",
];

/// Reads the body `{"spec": {…}}` and the replicas annotation.
pub(super) fn parse(
    report: &Report,
    body: &Fields<'_>,
    annotations: &BTreeMap<String, String>,
) -> InferenceServiceSpec {
    let spec = body.object("spec", &SPEC_FIELDS);
    let model = spec.as_ref().and_then(|spec| spec.object("model", &["uri", "name", "criticality", "lora", "storage"]));
    let replicas = spec.as_ref().and_then(|spec| spec.integer("replicas", 0..=i64::from(u32::MAX)));
    let text = |name: &str| {
        let text = model.as_ref().and_then(|model| model.text(name));
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    InferenceServiceSpec {
        served_name: text("name"),
        uri: text("uri"),
        replicas: replicas.and_then(|count| u32::try_from(count).ok()),
        replica_urls: annotations.get(REPLICAS_ANNOTATION).map(|list| parse_replicas(report, list)).unwrap_or_default(),
    }
}

const USE: &str = "use http://host:port or https://host:port";

fn parse_replicas(report: &Report, list: &str) -> Vec<String> {
    let path = format!("metadata.annotations.{REPLICAS_ANNOTATION}");
    let mut urls: Vec<String> = Vec::new();
    for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match base_url(text) {
            Ok(url) if urls.contains(&url) => report.error(&path, format!("\"{text}\" is listed twice")),
            Ok(url) => urls.push(url),
            // A URL with credentials is not repeated: errors are shown and logged.
            Err(wrong) if text.contains('@') => report.error(&path, format!("a URL {wrong}: {USE}")),
            Err(wrong) => report.error(&path, format!("\"{text}\" {wrong}: {USE}")),
        }
    }
    if urls.len() > REPLICAS_MAX {
        report.error(&path, format!("lists {} replicas: {REPLICAS_MAX} are the most of one service", urls.len()));
    }
    urls
}

/// A base URL with its port written out and its host in lower case, so that equal ones are equal as text.
fn base_url(text: &str) -> Result<String, String> {
    if text.contains('@') {
        return Err("has credentials, which do not belong here".to_owned());
    }
    let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err("is neither http nor https".to_owned()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("has a path".to_owned());
    }
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of `[::1]` is part of the address.
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or("has no port from 1 to 65535")?;
            (host, port)
        }
        _ => (authority, default_port),
    };
    if !is_host(host) {
        return Err("has no valid host".to_owned());
    }
    // A name is judged by what it resolves to, whenever a node connects.
    if let Some(why) = address(host).and_then(replica_address::forbidden) {
        return Err(format!("is {why}, where no replica may be"));
    }
    Ok(format!("{scheme}://{}:{port}", host.to_ascii_lowercase()))
}

/// The IP address that a host is, if it is none that has to be resolved.
fn address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn is_host(host: &str) -> bool {
    if host.starts_with('[') {
        return address(host).is_some_and(|address| address.is_ipv6());
    }
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    host.len() <= 253 && host.split('.').all(label)
}

// === Backend: what stands behind a service's name ===

/// What serves the LLMInferenceService `namespace/name`, as the answering node sees it.
pub(super) enum Backend {
    Missing,
    Unreadable,
    NoReplicas,
    Unhealthy { known: usize },
    Healthy { healthy: usize, known: usize },
}

impl Backend {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Backend::Missing => "NotFound",
            Backend::Unreadable => "InvalidSpec",
            Backend::NoReplicas | Backend::Unhealthy { .. } => "BackendNotReady",
            Backend::Healthy { .. } => "Reconciled",
        }
    }

    pub(super) fn message(&self, namespace: &str, name: &str) -> String {
        let service = format!("LLMInferenceService {namespace}/{name}");
        match self {
            Backend::Missing => format!("{service} not found: an administrator of its namespace can create it"),
            Backend::Unreadable => {
                format!("{service} cannot be read: an administrator of its namespace can apply it again")
            }
            Backend::NoReplicas => format!(
                "{service} has no replicas: an administrator of its namespace can start some, or list them in the annotation {REPLICAS_ANNOTATION}"
            ),
            Backend::Unhealthy { known } => format!("none of the {known} replicas of {service} is healthy"),
            Backend::Healthy { healthy, known } => format!("{healthy} of {known} replicas are healthy"),
        }
    }
}

/// What serves `namespace/name`, and when the object last changed (the epoch if there is none).
pub(super) fn backend(state: &State, health: &dyn ReplicaHealth, namespace: &str, name: &str) -> (Backend, Timestamp) {
    let Some(object) = state.object(&ObjectKey::new(Kind::InferenceService, namespace, name)) else {
        return (Backend::Missing, Timestamp::default());
    };
    if !matches!(object.spec, Spec::InferenceService(_)) {
        return (Backend::Unreadable, object.updated);
    }
    let backend = match health.replicas(namespace, name) {
        None | Some((_, 0)) => Backend::NoReplicas,
        Some((0, known)) => Backend::Unhealthy { known },
        Some((healthy, known)) => Backend::Healthy { healthy, known },
    };
    (backend, object.updated)
}

pub(super) fn status(object: &Object, state: &State, health: &dyn ReplicaHealth) -> Status {
    let (namespace, name) = (&object.key.namespace, &object.key.name);
    let (backend, since) = backend(state, health, namespace, name);
    let url = format!("{}/{namespace}/{name}", health.gateway_url());
    let mut message = backend.message(namespace, name);
    let troubles = health.troubles(namespace, name);
    if !troubles.is_empty() {
        message = format!("{message}; {}", troubles.join("; "));
    }
    let ready = Condition {
        kind: "Ready",
        status: if matches!(backend, Backend::Healthy { .. }) { "True" } else { "False" },
        reason: backend.reason(),
        message,
        since,
    };
    let json = json!({ "url": url, "addresses": [{ "name": "gateway-external", "url": url }] });
    status::assemble(object, None, vec![ready], json)
}

pub(super) fn cells(status: &Status) -> Vec<Value> {
    let (ready, reason) = status.ready();
    vec![status.json.get("url").cloned().unwrap_or_default(), json!(ready), json!(reason)]
}
