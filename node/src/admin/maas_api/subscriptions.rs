//! The caller's subscriptions, with their models and limits.

use axum::response::Response;
use http::StatusCode;
use raft::View;
use raft::resources::{
    Enforcement, Kind, Limit, LimitScope, Object, ObjectKey, Phase, Spec, SubscriptionModel, SubscriptionSpec, Unit,
    reference_phase,
};
use serde_json::{Map, Value, json};

use super::create::owned;
use super::models::{DESCRIPTION, DISPLAY_NAME};
use super::{Ask, reply};

/// Those that work at least in part, by name.
pub(super) fn list(ask: &Ask<'_>) -> Response {
    let view = ask.context.cluster.view();
    let works = |object: &Object| matches!(reference_phase(object, &view), Phase::Active | Phase::Degraded);
    let mut own = owned(&view, &ask.caller);
    own.retain(|(object, _)| works(object));
    answer(&view, &own)
}

/// Those that name a model, whatever its namespace and however they fare.
pub(super) fn list_of_model(ask: &Ask<'_>, model: &str) -> Response {
    let view = ask.context.cluster.view();
    let mut own = owned(&view, &ask.caller);
    own.retain(|(_, spec)| spec.model_refs.iter().any(|reference| reference.name == model));
    answer(&view, &own)
}

fn answer<T: AsRef<Object>>(view: &View, subscriptions: &[(&T, &SubscriptionSpec)]) -> Response {
    let items: Vec<Value> = subscriptions.iter().map(|(object, spec)| item(view, object.as_ref(), spec)).collect();
    reply(StatusCode::OK, &Value::Array(items))
}

fn item(view: &View, object: &Object, spec: &SubscriptionSpec) -> Value {
    let annotation = |name: &str| object.annotations.get(name).filter(|text| !text.is_empty());
    let display_name = annotation(DISPLAY_NAME);
    let description = annotation(DESCRIPTION).or(display_name).unwrap_or(&object.key.name);
    let mut item = json!({"subscription_id_header": object.key.name, "subscription_description": description});
    if let Some(display_name) = display_name {
        item["display_name"] = json!(display_name);
    }
    item["priority"] = json!(spec.priority);
    item["model_refs"] = spec.model_refs.iter().map(|reference| model(view, reference)).collect();
    for (field, text) in
        [("organization_id", &spec.metadata.organization_id), ("cost_center", &spec.metadata.cost_center)]
    {
        if !text.is_empty() {
            item[field] = json!(text);
        }
    }
    if !spec.metadata.labels.is_empty() {
        item["labels"] = json!(spec.metadata.labels);
    }
    item
}

fn model(view: &View, reference: &SubscriptionModel) -> Value {
    let mut entry = Map::new();
    entry.insert("name".to_owned(), json!(reference.name));
    entry.insert("namespace".to_owned(), json!(reference.namespace));
    if let Some(object) = view.object(&ObjectKey::new(Kind::ModelRef, &reference.namespace, &reference.name)) {
        for (field, annotation) in [("display_name", DISPLAY_NAME), ("description", DESCRIPTION)] {
            if let Some(text) = object.annotations.get(annotation).filter(|text| !text.is_empty()) {
                entry.insert(field.to_owned(), json!(text));
            }
        }
        if let Spec::ModelRef(spec) = &object.spec {
            let service = view.object(&ObjectKey::new(Kind::InferenceService, &reference.namespace, &spec.name));
            if let Some(Spec::InferenceService(service)) = service.map(|object| &object.spec) {
                entry.insert("model_name".to_owned(), json!(service.served_name.as_ref().unwrap_or(&spec.name)));
            }
            let source = if spec.kind == "ExternalModel" { "external" } else { "internal" };
            entry.insert("source".to_owned(), json!(source));
        }
    }
    let of_windows = reference.limits.iter().filter(|limit| limit.window_seconds > 0);
    entry.insert("token_rate_limits".to_owned(), of_windows.map(shown_limit).collect());
    // What upstream does not know is not there unless it was set.
    let concurrency: Map<String, Value> =
        of_unit(reference, Unit::InProgress).map(|limit| (limit.scope.name().to_owned(), json!(limit.limit))).collect();
    if !concurrency.is_empty() {
        entry.insert("concurrency".to_owned(), concurrency.into());
    }
    if let Some(budget) = of_unit(reference, Unit::Cost).next() {
        let shown =
            json!({"limit": budget.unit.number(budget.limit), "scope": budget.scope.name(), "window": budget.window});
        entry.insert("budget".to_owned(), shown);
    }
    if let Some(per_token) = &reference.per_token {
        entry.insert("billing_rate".to_owned(), json!({"per_token": per_token}));
    }
    Value::Object(entry)
}

fn of_unit(reference: &SubscriptionModel, unit: Unit) -> impl Iterator<Item = &Limit> {
    reference.limits.iter().filter(move |limit| limit.unit == unit)
}

/// As upstream shows it; what upstream does not know only where it is not as usual.
fn shown_limit(limit: &Limit) -> Value {
    let mut shown = json!({"limit": limit.limit, "window": limit.window});
    if limit.unit != Unit::default() {
        shown["unit"] = json!(limit.unit.name());
    }
    if limit.scope != LimitScope::default() {
        shown["scope"] = json!(limit.scope.name());
    }
    if limit.enforcement != Enforcement::default() {
        shown["enforcement"] = json!(limit.enforcement.name());
    }
    shown
}
