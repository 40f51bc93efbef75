//! What all kinds have in common: a key, metadata, a body, and a parsed spec.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::fields::{Fields, Report};
use super::{AuthPolicySpec, GroupSpec, InferenceServiceSpec, Kind, ModelRefSpec, SubscriptionSpec, TenantSpec};
use super::{auth_policy, group, inference_service, model_ref, names, subscription, tenant};
use crate::ids::Timestamp;

/// Names an object. Keys sort by kind, namespace, name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectKey {
    /// What it is.
    pub kind: Kind,
    /// Where it lives; empty for kinds without namespaces.
    pub namespace: String,
    /// What it is called.
    pub name: String,
}

impl ObjectKey {
    /// A key; `namespace` is empty for kinds without namespaces.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> ObjectKey {
        ObjectKey { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    /// `MaaSSubscription models-as-a-service/calculus-dev`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind.name(), self.namespace, self.name)
    }
}

/// An object as somebody wants it to be, after validation: what a create or an update carries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewObject {
    /// Its key.
    pub key: ObjectKey,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Everything else of the object but `apiVersion`, `kind`, `metadata` and `status`, as one JSON object:
    /// `{"spec":{…}}`, or `{"users":[…]}` for a Group. Kept as text, so unknown fields survive.
    pub body: String,
}

/// An object as the cluster holds it.
#[derive(Clone, PartialEq, Debug)]
pub struct Object {
    /// Its key.
    pub key: ObjectKey,
    /// Stays the same for the object's life; a re-created object has another.
    pub uid: Uuid,
    /// Counts changes of `body`, from 1.
    pub generation: u64,
    /// The log index of its last change.
    pub resource_version: u64,
    /// When it was created, by the state clock.
    pub created: Timestamp,
    /// When it last changed, by the state clock.
    pub updated: Timestamp,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// As [`NewObject::body`].
    pub body: String,
    /// The body (and, for LLMInferenceService, its annotations) understood.
    pub spec: Spec,
}

/// What an object's body means.
#[derive(Clone, PartialEq, Debug)]
pub enum Spec {
    /// Namespace, ServiceAccount: nothing beyond its name.
    Plain,
    /// Group.
    Group(GroupSpec),
    /// Tenant.
    Tenant(TenantSpec),
    /// LLMInferenceService.
    InferenceService(InferenceServiceSpec),
    /// MaaSModelRef.
    ModelRef(ModelRefSpec),
    /// MaaSSubscription.
    Subscription(SubscriptionSpec),
    /// MaaSAuthPolicy.
    AuthPolicy(AuthPolicySpec),
    /// It was accepted by another version and this one cannot read it: it grants nothing, and its status says why.
    Unreadable(String),
}

/// One thing wrong with one field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// The field's path: `spec.modelRefs[0].tokenRateLimits[1].window`; empty for the body as a whole.
    pub path: String,
    /// What is wrong, with the value, and what would be right.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}", self.path, self.message)
    }
}

/// Checks everything about an object that does not depend on other objects. Errors: every mistake, with its path.
pub fn validate(object: &NewObject) -> Result<Spec, Vec<FieldError>> {
    let report = Report::default();
    names::check_metadata(&report, object);
    let spec = parse_body(&report, object.key.kind, &object.annotations, &object.body);
    spec_or_errors(report, spec)
}

/// The paths of the fields of a `kind`'s `body` that nobody reads; they are kept nevertheless.
pub fn unknown_fields(kind: Kind, body: &str) -> Vec<String> {
    let report = Report::default();
    parse_body(&report, kind, &BTreeMap::new(), body);
    report.into_unknown()
}

impl Spec {
    /// Understands a stored body. Never fails: a body that cannot be read is [`Spec::Unreadable`].
    pub(crate) fn read(kind: Kind, annotations: &BTreeMap<String, String>, body: &str) -> Spec {
        let report = Report::default();
        let spec = parse_body(&report, kind, annotations, body);
        spec_or_errors(report, spec).unwrap_or_else(|errors| {
            let errors: Vec<String> = errors.iter().map(FieldError::to_string).collect();
            Spec::Unreadable(errors.join("; "))
        })
    }
}

fn spec_or_errors(report: Report, spec: Option<Spec>) -> Result<Spec, Vec<FieldError>> {
    let errors = report.into_errors();
    match spec {
        Some(spec) if errors.is_empty() => Ok(spec),
        _ => Err(errors),
    }
}

/// `None` only after noting a mistake.
fn parse_body(report: &Report, kind: Kind, annotations: &BTreeMap<String, String>, body: &str) -> Option<Spec> {
    let value: serde_json::Value = match serde_json::from_str(body) {
        Ok(value) => value,
        Err(error) => {
            report.error("spec", format!("is not JSON: {error}"));
            return None;
        }
    };
    let known: &[&str] = match kind {
        Kind::Group => &["users"],
        Kind::ServiceAccount => &["secrets", "imagePullSecrets", "automountServiceAccountToken"],
        Kind::Namespace
        | Kind::Tenant
        | Kind::InferenceService
        | Kind::ModelRef
        | Kind::Subscription
        | Kind::AuthPolicy => &["spec"],
    };
    let body = Fields::of(report, "", &value, known)?;
    match kind {
        Kind::Namespace | Kind::ServiceAccount => Some(Spec::Plain),
        Kind::Group => Some(Spec::Group(group::parse(&body))),
        Kind::Tenant => Some(Spec::Tenant(tenant::parse(report, &body, annotations))),
        Kind::InferenceService => Some(Spec::InferenceService(inference_service::parse(report, &body, annotations))),
        Kind::ModelRef => model_ref::parse(report, &body, annotations).map(Spec::ModelRef),
        Kind::Subscription => subscription::parse(report, &body, annotations).map(Spec::Subscription),
        Kind::AuthPolicy => auth_policy::parse(&body).map(Spec::AuthPolicy),
    }
}

// === Stored form: everything but the spec, which is read again ===

#[derive(Serialize, Deserialize)]
struct StoredObject<'a> {
    key: Cow<'a, ObjectKey>,
    uid: Uuid,
    generation: u64,
    resource_version: u64,
    created: Timestamp,
    updated: Timestamp,
    labels: Cow<'a, BTreeMap<String, String>>,
    annotations: Cow<'a, BTreeMap<String, String>>,
    body: Cow<'a, str>,
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = StoredObject {
            key: Cow::Borrowed(&self.key),
            uid: self.uid,
            generation: self.generation,
            resource_version: self.resource_version,
            created: self.created,
            updated: self.updated,
            labels: Cow::Borrowed(&self.labels),
            annotations: Cow::Borrowed(&self.annotations),
            body: Cow::Borrowed(&self.body),
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        let stored = StoredObject::deserialize(deserializer)?;
        let spec = Spec::read(stored.key.kind, &stored.annotations, &stored.body);
        Ok(Object {
            key: stored.key.into_owned(),
            uid: stored.uid,
            generation: stored.generation,
            resource_version: stored.resource_version,
            created: stored.created,
            updated: stored.updated,
            labels: stored.labels.into_owned(),
            annotations: stored.annotations.into_owned(),
            body: stored.body.into_owned(),
            spec,
        })
    }
}
