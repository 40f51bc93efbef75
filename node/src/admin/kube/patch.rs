//! PATCH in its four media types: read, change, and propose under the version that was read, again if somebody was faster.

use axum::response::Response;
use http::StatusCode;
use raft::resources::{Kind, NewObject, Object, ObjectKey};
use raft::{CommandRefusal, View};
use serde_json::Value;

use super::error::Failure;
use super::wire::{self, Incoming};
use super::write::Change;
use super::{Call, Kube, json_patch};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The media types every kind takes.
pub(super) const MEDIA_TYPES_OF_ALL_KINDS: &[&str] = &[JSON, MERGE, APPLY];

/// How often a patch is tried against a newer version before the client is told of the conflict.
const ATTEMPTS_MAX: u32 = 5;

enum Patch {
    Json(Value),
    Merge(Value),
    /// Server-side apply in its simple form: each top-level field it names is replaced, each label and annotation it names
    /// is set, the rest stays. Who owns which field is not recorded, so there are no conflicts between appliers.
    Apply(Value),
}

pub(super) async fn answer(kube: &Kube, call: &Call, key: ObjectKey) -> Result<Response, Failure> {
    let change = Change::of(call, "patch");
    let patch = Patch::read(call, key.kind)?;
    for _ in 0..ATTEMPTS_MAX {
        let view = kube.view();
        match attempt(kube, &change, &patch, &key, &view).await? {
            Ok(response) => return Ok(response),
            // Somebody was faster; the proposal's answer came with a view that shows what they did.
            Err(CommandRefusal::Conflict { .. } | CommandRefusal::AlreadyExists(_)) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(Failure::version_mismatch(&key))
}

async fn attempt(
    kube: &Kube,
    change: &Change,
    patch: &Patch,
    key: &ObjectKey,
    view: &View,
) -> Result<Result<Response, CommandRefusal>, Failure> {
    let current = match (view.object(key), patch) {
        (Some(current), _) => current,
        (None, Patch::Apply(wanted)) => {
            let incoming = wire::read(key, wanted.clone())?;
            return match change.create(kube, incoming.object).await {
                Err(failure) if failure.code() == StatusCode::CONFLICT => {
                    Ok(Err(CommandRefusal::AlreadyExists(key.clone())))
                }
                other => other.map(Ok),
            };
        }
        (None, Patch::Json(_) | Patch::Merge(_)) => return Err(Failure::not_found(key)),
    };
    let incoming = patch.apply(kube, view, current)?;
    if incoming.uid.is_some_and(|uid| uid != current.uid) {
        return Err(Failure::uid_mismatch(key));
    }
    // A patch that names a version wants exactly that one.
    if incoming.resource_version.is_some_and(|version| version != current.resource_version) {
        return Err(Failure::version_mismatch(key));
    }
    change.update(kube, incoming.object, Some(current.resource_version), current).await
}

impl Patch {
    fn read(call: &Call, kind: Kind) -> Result<Patch, Failure> {
        let is_core = kind.group().is_empty();
        let media_type = call.media_type();
        match media_type.as_str() {
            JSON => Ok(Patch::Json(call.some_json()?)),
            MERGE => Ok(Patch::Merge(call.some_json()?)),
            STRATEGIC if is_core => {
                let patch = call.some_json()?;
                match directive(&patch) {
                    None => Ok(Patch::Merge(patch)),
                    Some(name) => {
                        let message =
                            format!("the strategic merge directive {name:?} is not supported: send a JSON merge patch");
                        Err(Failure::bad_request(message))
                    }
                }
            }
            APPLY if call.options.field_manager.is_empty() => {
                Err(Failure::bad_request("fieldManager is required for apply: name who applies"))
            }
            APPLY => Ok(Patch::Apply(call.some_json()?)),
            _ => {
                let mut accepted = MEDIA_TYPES_OF_ALL_KINDS.to_vec();
                if is_core {
                    accepted.push(STRATEGIC);
                }
                Err(Failure::unsupported_media_type(&accepted.join(", ")))
            }
        }
    }

    fn apply(&self, kube: &Kube, view: &View, current: &Object) -> Result<Incoming, Failure> {
        match self {
            Patch::Json(operations) => {
                let mut document = kube.shown(current, view);
                json_patch::apply(&mut document, operations)
                    .map_err(|why| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", why))?;
                wire::read(&current.key, document)
            }
            Patch::Merge(patch) => {
                let mut document = kube.shown(current, view);
                json_patch::merge(&mut document, patch);
                wire::read(&current.key, document)
            }
            Patch::Apply(wanted) => {
                let mut incoming = wire::read(&current.key, wanted.clone())?;
                incoming.object = over(current, incoming.object);
                Ok(incoming)
            }
        }
    }
}

/// What `applied` names, over what `current` has.
fn over(current: &Object, applied: NewObject) -> NewObject {
    let mut object = NewObject {
        key: applied.key,
        labels: current.labels.clone(),
        annotations: current.annotations.clone(),
        body: String::new(),
    };
    object.labels.extend(applied.labels);
    object.annotations.extend(applied.annotations);
    let mut body = wire::body(&current.body);
    body.extend(wire::body(&applied.body));
    object.body = Value::Object(body).to_string();
    object
}

/// The first key that a strategic merge patch would understand as an instruction.
fn directive(patch: &Value) -> Option<&str> {
    match patch {
        Value::Object(map) => {
            let own = map.keys().find(|name| name.starts_with('$')).map(String::as_str);
            own.or_else(|| map.values().find_map(directive))
        }
        Value::Array(items) => items.iter().find_map(directive),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
