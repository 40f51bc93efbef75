//! What all kinds have in common: a key, metadata, a body, and a parsed spec.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    AuthPolicySpec, GroupSpec, InferenceServiceSpec, Kind, ModelRefSpec, SubscriptionSpec, TenantSpec,
};
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
    /// The field's path: `spec.modelRefs[0].tokenRateLimits[1].window`.
    pub path: String,
    /// What is wrong, with the value, and what would be right.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Checks everything about an object that does not depend on other objects. Errors: every mistake, with its path.
pub fn validate(object: &NewObject) -> Result<Spec, Vec<FieldError>> {
    super::plain::validate_metadata(object)?;
    super::plain::parse(object)
}
