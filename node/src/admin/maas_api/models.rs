//! The models a caller may use, in the form that the client's SDK reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::routing::{Lookup, Name};
use actors::{Denied, Model};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode};
use raft::View;
use raft::resources::{Kind, Object, ObjectKey, Spec, status};
use serde_json::{Map, Value, json};

use super::error::{Family, Refused};
use super::{Ask, reply};
use crate::anthropic;

/// Annotations that describe an object to people.
pub(super) const DISPLAY_NAME: &str = "openshift.io/display-name";
pub(super) const DESCRIPTION: &str = "openshift.io/description";
const USE_CASE: &str = "opendatahub.io/genai-use-case";
const CONTEXT_WINDOW: &str = "opendatahub.io/context-window";
const CAPABILITIES: &str = "opendatahub.io/model-capabilities";

/// The list, in the form of the client's SDK.
pub(super) fn list(ask: &Ask<'_>) -> Result<Response, Refused> {
    let items = items(ask)?;
    let list = if anthropic::asks(&ask.headers) {
        let page = anthropic::page(&items, &ask.uri);
        page.map_err(|message| Refused::new(StatusCode::BAD_REQUEST, Family::Models, message))?
    } else {
        json!({"object": "list", "data": items})
    };
    let mut response = reply(StatusCode::OK, &list);
    if let Ok(now) = HeaderValue::try_from(ask.context.doors.clock.wall().to_string()) {
        response.headers_mut().insert("x-access-checked-at", now);
    }
    Ok(response)
}

/// The model of the list that has `id` among its names. A model that the caller may not use is as unknown as one that does not exist.
pub(super) fn retrieve(ask: &Ask<'_>, id: &str) -> Result<Response, Refused> {
    let items = items(ask)?;
    let is_named = |item: &&Value| {
        item["id"] == id || item["aliases"].as_array().is_some_and(|aliases| aliases.iter().any(|alias| alias == id))
    };
    // Names that are not in the list, because they are longer or common to several models, mean here what they mean in a call.
    let by_name = || match ask.context.actors.routing.by_name(id, &ask.caller) {
        Lookup::Found(model) => items.iter().find(|item| item["owned_by"] == model.id.to_string()),
        Lookup::Ambiguous(_) | Lookup::Unknown => None,
    };
    let Some(item) = items.iter().find(is_named).or_else(by_name) else {
        let message = format!("the model `{id}` does not exist, or you do not have access to it");
        return Err(Refused::new(StatusCode::NOT_FOUND, Family::Models, message).with_code("model_not_found"));
    };
    Ok(reply(StatusCode::OK, &if anthropic::asks(&ask.headers) { anthropic::model(item) } else { item.clone() }))
}

/// The models that the caller may use, as OpenAI's clients read them.
fn items(ask: &Ask<'_>) -> Result<Vec<Value>, Refused> {
    let context = ask.context;
    let named = named_subscription(&ask.headers);
    // A key is bound to its subscription: the header cannot change that.
    let named = if ask.caller.key_id().is_some() { None } else { named };
    let models = context.actors.routing.models_for(&ask.caller, named).map_err(|denied| refused(&denied))?;
    let view = context.cluster.view();
    let taken = Taken::count(&models);
    Ok(models.iter().filter_map(|(model, through)| item(ask, &view, model, through, &taken)).collect())
}

/// The subscription a token's bearer wants to look through: the last `X-MaaS-Subscription` that is not blank.
fn named_subscription(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all("x-maas-subscription").iter().filter_map(|value| value.to_str().ok());
    values.map(str::trim).rfind(|value| !value.is_empty())
}

fn refused(denied: &Denied) -> Refused {
    let message = match denied {
        Denied::SubscriptionNotFound(_) => "requested subscription not found".to_owned(),
        Denied::NotOwner { .. } => "access denied to requested subscription".to_owned(),
        Denied::NoSubscription { .. } => "no matching subscription found for user".to_owned(),
        Denied::ModelNotInSubscription { .. }
        | Denied::MultipleSubscriptions
        | Denied::SubscriptionNotReady(_)
        | Denied::NoPolicy { .. } => denied.to_string(),
    };
    Refused::new(StatusCode::FORBIDDEN, Family::Models, message)
}

/// How many of the models would answer to each name.
struct Taken<'a>(BTreeMap<&'a str, usize>);

impl<'a> Taken<'a> {
    fn count(models: &'a [(Arc<Model>, Vec<Name>)]) -> Taken<'a> {
        let mut counts = BTreeMap::new();
        for (model, _) in models {
            *counts.entry(&*model.id.name).or_insert(0) += 1;
            if model.served_name != model.id.name {
                *counts.entry(&*model.served_name).or_insert(0) += 1;
            }
        }
        Taken(counts)
    }

    fn is_unique(&self, name: &str) -> bool {
        self.0.get(name) == Some(&1)
    }
}

/// `None` if the model has been deleted meanwhile.
fn item(ask: &Ask<'_>, view: &View, model: &Model, through: &[Name], taken: &Taken<'_>) -> Option<Value> {
    let (namespace, name) = (&*model.id.namespace, &*model.id.name);
    let object = view.object(&ObjectKey::new(Kind::ModelRef, namespace, name))?;
    let kind = match &object.spec {
        Spec::ModelRef(spec) => spec.kind.as_str(),
        _ => return None,
    };
    let status = status(object, view, &ask.context.actors.pools);
    let qualified = format!("{namespace}/{name}");
    let id = if taken.is_unique(name) { name } else { qualified.as_str() };
    let mut item = json!({
        "id": id,
        "object": "model",
        "created": object.created.seconds(),
        "owned_by": qualified,
        "kind": if kind.is_empty() { "llmisvc" } else { kind },
    });
    if let Some(url) = status.json["endpoint"].as_str().filter(|url| !url.is_empty()) {
        item["url"] = json!(url);
    }
    item["ready"] = json!(status.phase == "Ready");
    if let Some(details) = details(object) {
        item["modelDetails"] = details;
    }
    let served = Some(&*model.served_name).filter(|served| *served != name && taken.is_unique(served));
    let aliases: Vec<&str> =
        [Some(qualified.as_str()), served].into_iter().flatten().filter(|alias| *alias != id).collect();
    if !aliases.is_empty() {
        item["aliases"] = json!(aliases);
    }
    let subscriptions: Vec<Value> = through.iter().map(|name| subscription(view, name)).collect();
    if !subscriptions.is_empty() {
        item["subscriptions"] = json!(subscriptions);
    }
    Some(item)
}

/// What the annotations tell about a model.
fn details(object: &Object) -> Option<Value> {
    let texts = [
        ("genaiUseCase", USE_CASE),
        ("description", DESCRIPTION),
        ("displayName", DISPLAY_NAME),
        ("contextWindow", CONTEXT_WINDOW),
    ];
    let mut details = Map::new();
    for (field, annotation) in texts {
        if let Some(text) = object.annotations.get(annotation).filter(|text| !text.is_empty()) {
            details.insert(field.to_owned(), json!(text));
        }
    }
    let capabilities =
        object.annotations.get(CAPABILITIES).and_then(|text| serde_json::from_str::<Vec<String>>(text).ok());
    if let Some(capabilities) = capabilities {
        details.insert("modelCapabilities".to_owned(), json!(capabilities));
    }
    (!details.is_empty()).then_some(Value::Object(details))
}

fn subscription(view: &View, name: &Name) -> Value {
    let mut entry = json!({"name": &*name.name});
    let object = view.object(&ObjectKey::new(Kind::Subscription, &*name.namespace, &*name.name));
    for (field, annotation) in [("displayName", DISPLAY_NAME), ("description", DESCRIPTION)] {
        if let Some(text) = object.and_then(|object| object.annotations.get(annotation)).filter(|text| !text.is_empty())
        {
            entry[field] = json!(text);
        }
    }
    entry
}
