//! MaaSAuthPolicy: who may reach which models. Several policies on one model are alternatives.

use serde_json::{Value, json};

use super::fields::Fields;
use super::kind::Column;
use super::model_ref;
use super::status::{self, Phase, Status};
use super::{Condition, MeteringMetadata, Object, Subjects};
use crate::state::State;

/// A parsed MaaSAuthPolicy.
#[derive(Clone, PartialEq, Debug)]
pub struct AuthPolicySpec {
    /// `spec.modelRefs` as (namespace, name), at least one.
    pub model_refs: Vec<(String, String)>,
    /// `spec.subjects`: at least one group or user.
    pub subjects: Subjects,
    /// `spec.meteringMetadata`.
    pub metadata: MeteringMetadata,
}

/// Columns of `kubectl get`, after the name.
pub(super) const COLUMNS: &[Column] = &[
    Column::text("Phase", "whether its models exist"),
    Column::AGE,
    Column::text("AuthPolicies", "the models it opens, one policy each").wide(),
];

/// Reads the body `{"spec": {…}}`.
pub(super) fn parse(body: &Fields<'_>) -> Option<AuthPolicySpec> {
    let spec = body.required_object("spec", &["modelRefs", "subjects", "meteringMetadata"])?;
    let models = spec.some_objects("modelRefs", &["name", "namespace"]);
    let subjects = spec.required_object("subjects", &Subjects::FIELDS).map(|subjects| {
        if !(subjects.has_entries("groups") || subjects.has_entries("users")) {
            spec.error("subjects", "at least one group or user must be specified in subjects");
        }
        Subjects::parse(&subjects)
    });
    Some(AuthPolicySpec {
        model_refs: models.iter().filter_map(model_ref::parse_target).collect(),
        subjects: subjects.unwrap_or_default(),
        metadata: MeteringMetadata::parse(&spec, "meteringMetadata"),
    })
}

/// As for subscriptions: Active, Degraded or Failed by how many of its models exist.
pub(super) fn phase(spec: &AuthPolicySpec, state: &State) -> Phase {
    let found = spec.model_refs.iter().filter(|(namespace, name)| model_ref::exists(state, namespace, name)).count();
    Phase::of_references(found, spec.model_refs.len())
}

pub(super) fn status(object: &Object, spec: &AuthPolicySpec, state: &State) -> Status {
    let mut since = object.updated;
    let mut policies = Vec::new();
    for (namespace, name) in &spec.model_refs {
        let reference = model_ref::Reference::look_up(state, namespace, name);
        since = since.max(reference.since);
        let reason = if reference.exists { "AcceptedEnforced" } else { reference.reason() };
        policies.push(json!({
            "name": format!("maas-auth-{name}"), "namespace": namespace, "model": name, "modelNamespace": namespace,
            "ready": reference.exists, "reason": reason, "message": reference.message(),
        }));
    }
    let phase = phase(spec, state);
    let targets = spec.model_refs.iter().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
    let conflict = Condition {
        kind: "ConflictingAuthPolicy",
        status: "False",
        reason: "Reconciled",
        message: "policies on one model are alternatives and cannot conflict".to_owned(),
        since: object.updated,
    };
    let conditions = vec![model_ref::references_condition(phase, targets, state, since), conflict];
    status::assemble(object, Some(phase), conditions, json!({ "authPolicies": policies }))
}

/// Cells in the order of [`COLUMNS`], without the age, and the wide one last.
pub(super) fn cells(spec: Option<&AuthPolicySpec>, status: &Status) -> Vec<Value> {
    let models = spec.into_iter().flat_map(|spec| &spec.model_refs);
    let names: Vec<String> = models.map(|(_, name)| format!("maas-auth-{name}")).collect();
    vec![json!(status.phase), json!(names.join(","))]
}
