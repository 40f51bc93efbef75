//! Create, replace, delete: check, propose, show what came of it.
//!
//! What replaces or deletes an object may take access away: a member of a Group, the owner of keys, a policy. So it is answered when
//! it is in force on every node, as a revocation is. What creates one only adds.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use raft::resources::{Kind, NewObject, Object, ObjectKey, Scope, Spec, unknown_fields, validate};
use raft::{Applied, Command, CommandRefusal, Reply};
use serde_json::{Value, json};
use tracing::info;
use uuid::Uuid;

use super::error::{self, Failure};
use super::options::{FieldValidation, Options};
use super::{Call, Kube, reply, warn, wire};

pub(super) async fn create(
    kube: &Kube,
    call: &Call,
    kind: Kind,
    namespace: Option<String>,
) -> Result<Response, Failure> {
    let Some(namespace) = namespace.or_else(|| (kind.scope() == Scope::Cluster).then(String::new)) else {
        return Err(Failure::method_not_allowed());
    };
    let mut incoming = wire::read(&ObjectKey::new(kind, namespace, ""), call.some_json()?)?;
    if incoming.resource_version.is_some() {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if incoming.object.key.name.is_empty() {
        if incoming.generate_name.is_empty() {
            return Err(Failure::invalid(&incoming.object.key, &[wire::name_required()]));
        }
        incoming.object.key.name = wire::generated(&incoming.generate_name, &*kube.context.doors.chance);
    }
    Change::of(call, "create").create(kube, incoming.object).await
}

pub(super) async fn replace(kube: &Kube, call: &Call, key: ObjectKey) -> Result<Response, Failure> {
    let change = Change::of(call, "update");
    let incoming = wire::read(&key, call.some_json()?)?;
    let current = kube.view().object(&key).cloned().ok_or_else(|| Failure::not_found(&key))?;
    if incoming.uid.is_some_and(|uid| uid != current.uid) {
        return Err(Failure::uid_mismatch(&key));
    }
    change.update(kube, incoming.object, incoming.resource_version, &current).await?.map_err(Failure::from)
}

pub(super) async fn delete(kube: &Kube, call: &Call, key: ObjectKey) -> Result<Response, Failure> {
    let options = call.json()?.unwrap_or_default();
    let dry_run = is_dry_run(call, &options);
    let wanted = &options["preconditions"];
    let wrong = |field: &str| Failure::bad_request(format!("preconditions.{field} is not one of ours"));
    let parse_version = |text: &str| text.parse::<u64>().map_err(|_| wrong("resourceVersion"));
    let resource_version = wanted["resourceVersion"].as_str().map(parse_version).transpose()?;
    let uid = wanted["uid"].as_str().map(|text| text.parse::<Uuid>().map_err(|_| wrong("uid"))).transpose()?;

    let gone = if dry_run {
        let current = kube.view().object(&key).cloned().ok_or_else(|| Failure::not_found(&key))?;
        if uid.is_some_and(|uid| uid != current.uid) {
            return Err(Failure::uid_mismatch(&key));
        }
        if resource_version.is_some_and(|version| version != current.resource_version) {
            return Err(Failure::version_mismatch(&key));
        }
        current
    } else {
        let gone = kube.in_force(Command::DeleteObject { key: key.clone(), resource_version, uid }).await?;
        let gone = object_of(gone)??;
        info!(user = call.caller.user(), verb = "delete", object = %key, "resource deleted");
        gone
    };
    let mut details = error::details(&key);
    details.insert("uid".to_owned(), json!(gone.uid.to_string()));
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(reply(StatusCode::OK, &status))
}

/// Whether a deletion with these `DeleteOptions` is only to be checked.
pub(super) fn is_dry_run(call: &Call, options: &Value) -> bool {
    call.options.dry_run || options["dryRun"].as_array().is_some_and(|values| !values.is_empty())
}

/// A change of one object that somebody wants.
pub(super) struct Change {
    user: String,
    verb: &'static str,
    dry_run: bool,
    validation: FieldValidation,
}

impl Change {
    pub(super) fn of(call: &Call, verb: &'static str) -> Change {
        let Options { dry_run, validation, .. } = call.options;
        Change { user: call.caller.user().to_owned(), verb, dry_run, validation }
    }

    pub(super) async fn create(&self, kube: &Kube, new: NewObject) -> Result<Response, Failure> {
        let (spec, warnings) = self.check(&new)?;
        let object = if self.dry_run {
            let view = kube.view();
            if view.object(&new.key).is_some() {
                return Err(Failure::already_exists(&new.key));
            }
            let namespace = ObjectKey::new(Kind::Namespace, "", new.key.namespace.clone());
            if new.key.kind.scope() == Scope::Namespaced && view.object(&namespace).is_none() {
                return Err(Failure::not_found(&namespace));
            }
            Arc::new(imagined(kube, new, spec, None))
        } else {
            let uid = kube.context.doors.chance.uuid();
            object_of(kube.propose(Command::CreateObject { object: new, uid }).await?)??
        };
        Ok(self.done(kube, StatusCode::CREATED, &object, &warnings))
    }

    /// Replaces `current`. The inner error is the state's refusal, so that a caller may try again on a conflict.
    pub(super) async fn update(
        &self,
        kube: &Kube,
        new: NewObject,
        resource_version: Option<u64>,
        current: &Object,
    ) -> Result<Result<Response, CommandRefusal>, Failure> {
        let (spec, warnings) = self.check(&new)?;
        let object = if self.dry_run {
            if resource_version.is_some_and(|version| version != current.resource_version) {
                return Err(Failure::version_mismatch(&new.key));
            }
            Arc::new(imagined(kube, new, spec, Some(current)))
        } else {
            match object_of(kube.in_force(Command::UpdateObject { object: new, resource_version }).await?)? {
                Ok(object) => object,
                Err(refusal) => return Ok(Err(refusal)),
            }
        };
        Ok(Ok(self.done(kube, StatusCode::OK, &object, &warnings)))
    }

    /// Everything that can be known to be wrong before proposing. The warnings name fields nobody knows.
    fn check(&self, new: &NewObject) -> Result<(Spec, Vec<String>), Failure> {
        let spec = validate(new).map_err(|errors| Failure::invalid(&new.key, &errors))?;
        let unknown =
            || unknown_fields(new.key.kind, &new.body).into_iter().map(|path| format!("unknown field \"{path}\""));
        match self.validation {
            FieldValidation::Ignore => Ok((spec, Vec::new())),
            FieldValidation::Warn => Ok((spec, unknown().collect())),
            FieldValidation::Strict => match unknown().collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => Ok((spec, Vec::new())),
                some => Err(Failure::bad_request(format!("strict decoding error: {some}"))),
            },
        }
    }

    fn done(&self, kube: &Kube, code: StatusCode, object: &Object, warnings: &[String]) -> Response {
        if !self.dry_run {
            info!(user = self.user, verb = self.verb, object = %object.key, version = object.resource_version, "resource written");
        }
        let value: Value = kube.shown(object, &kube.view());
        warn(reply(code, &value), warnings)
    }
}

/// The object a dry run would have made.
fn imagined(kube: &Kube, new: NewObject, spec: Spec, current: Option<&Object>) -> Object {
    let now = kube.now();
    let same_body = current.is_some_and(|current| wire::body(&current.body) == wire::body(&new.body));
    Object {
        uid: current.map_or_else(|| kube.context.doors.chance.uuid(), |current| current.uid),
        generation: current.map_or(1, |current| current.generation + u64::from(!same_body)),
        resource_version: current.map_or(0, |current| current.resource_version),
        created: current.map_or(now, |current| current.created),
        updated: now,
        key: new.key,
        labels: new.labels,
        annotations: new.annotations,
        body: new.body,
        spec,
    }
}

/// The object a command was answered with. The inner error is the state's refusal.
fn object_of(reply: Reply) -> Result<Result<Arc<Object>, CommandRefusal>, Failure> {
    match reply {
        Reply::Object(object) => Ok(Ok(object)),
        Reply::Refused(refusal) => Ok(Err(refusal)),
        Reply::Done | Reply::Key(_) | Reply::Revoked(_) | Reply::Quota(_) => {
            Err(error::internal("the cluster answered something else than an object"))
        }
    }
}

impl Kube {
    async fn propose(&self, command: Command) -> Result<Reply, Failure> {
        Ok(self.context.cluster.propose(command).await?.reply)
    }

    /// Proposes, and waits until no node goes by what was before. So it is when there is nothing to change: perhaps an earlier request
    /// did it, and its answer was lost.
    pub(super) async fn in_force(&self, command: Command) -> Result<Reply, Failure> {
        let Applied { index, reply } = self.context.cluster.propose(command).await?;
        let is_done = match &reply {
            Reply::Refused(refusal) => {
                matches!(refusal, CommandRefusal::ObjectNotFound(_) | CommandRefusal::TokenNotFound)
            }
            _ => true,
        };
        if is_done {
            self.context.cluster.fence(index).await;
        }
        Ok(reply)
    }
}
