//! What they may use: which model is meant, and through which subscription. Makes the [`Permit`].

use std::sync::Arc;

use actors::routing::Model;
use actors::{Caller, Denied, Permit, routing::Lookup};
use http::HeaderMap;

use super::refusal::Refusal;
use super::request::ModelPath;
use crate::Context;

/// Finds the model that the path or the body names, and the caller's permit for it.
///
/// A model that is not the caller's and one that does not exist are refused alike, in the words of the request: which models there
/// are is not to be found out by asking for them.
pub(super) fn authorize(
    context: &Context,
    caller: Caller,
    path: Option<&ModelPath<'_>>,
    body: Option<&str>,
    headers: &HeaderMap,
) -> Result<Permit, Refusal> {
    let routing = &context.actors.routing;
    let model = match path {
        Some(path) => routing.by_path(&path.namespace, &path.name),
        None => by_name(context, body.ok_or_else(no_name)?, &caller)?,
    };
    let asked = || path.map_or_else(|| body.unwrap_or_default().to_owned(), shown);
    // A key's own subscription counts; for tokens the header chooses.
    let requested = headers.get("x-maas-subscription").and_then(|value| value.to_str().ok());
    let unlisted = || routing.unlisted(&caller, asked(), requested);
    let model = model.ok_or_else(unlisted)?;
    let permit = routing.authorize(caller.clone(), &model, requested).map_err(|denied| match denied {
        Denied::ModelNotInSubscription { .. } | Denied::NoSubscription { .. } => unlisted(),
        denied => denied,
    })?;
    match (path, body) {
        (Some(path), Some(body)) if !is_called(context, &permit, body) => {
            Err(Refusal::ModelMismatch { path: shown(path), body: body.to_owned() })
        }
        _ => Ok(permit),
    }
}

fn no_name() -> Refusal {
    Refusal::field("model", "name a model: in `model`, or in the path")
}

fn shown(path: &ModelPath<'_>) -> String {
    format!("{}/{}", path.namespace, path.name)
}

/// Whether `name` is one of the names of the permit's model.
fn is_called(context: &Context, permit: &Permit, name: &str) -> bool {
    let model = permit.model();
    let is_plain = [&model.id.name, &model.served_name, &model.service.name].into_iter().any(|known| **known == *name);
    is_plain
        || match context.actors.routing.by_name(name, permit.caller()) {
            Lookup::Found(named) => named.id == model.id,
            Lookup::Ambiguous(names) => names.contains(&model.id),
            Lookup::Unknown => false,
        }
}

fn by_name(context: &Context, name: &str, caller: &Caller) -> Result<Option<Arc<Model>>, Refusal> {
    match context.actors.routing.by_name(name, caller) {
        Lookup::Found(model) => Ok(Some(model)),
        Lookup::Unknown => Ok(None),
        Lookup::Ambiguous(names) => Err(Refusal::AmbiguousModel {
            name: name.to_owned(),
            candidates: names.iter().map(|name| format!("{}/{}", name.namespace, name.name)).collect(),
        }),
    }
}
