//! What they may use: which model is meant, and through which subscription. Makes the [`Permit`].

use std::sync::Arc;

use actors::routing::Model;
use actors::{Caller, Permit, routing::Lookup};
use http::HeaderMap;

use super::refusal::Refusal;
use super::request::ModelPath;
use crate::Context;

/// Finds the model that the path or the body names, and the caller's permit for it.
pub(super) fn authorize(
    context: &Context,
    caller: Caller,
    path: Option<&ModelPath<'_>>,
    body: Option<&str>,
    headers: &HeaderMap,
) -> Result<Permit, Refusal> {
    let model = match path {
        Some(path) => by_path(context, path, body, &caller)?,
        None => {
            let name = body.ok_or_else(|| Refusal::field("model", "name a model: in `model`, or in the path"))?;
            by_name(context, name, &caller)?
        }
    };
    // A key's own subscription counts; for tokens the header chooses.
    let requested = headers.get("x-maas-subscription").and_then(|value| value.to_str().ok());
    Ok(context.actors.routing.authorize(caller, &model, requested)?)
}

/// The path decides. A model in the body must be the same one, by any of its names.
fn by_path(
    context: &Context,
    path: &ModelPath<'_>,
    body: Option<&str>,
    caller: &Caller,
) -> Result<Arc<Model>, Refusal> {
    let shown = || format!("{}/{}", path.namespace, path.name);
    let model =
        context.actors.routing.by_path(&path.namespace, &path.name).ok_or_else(|| Refusal::UnknownModel(shown()))?;
    let Some(body) = body else { return Ok(model) };
    let plainly_same =
        [&model.id.name, &model.served_name, &model.service.name].into_iter().any(|name| **name == *body);
    let same = plainly_same
        || match context.actors.routing.by_name(body, caller) {
            Lookup::Found(named) => named.id == model.id,
            Lookup::Ambiguous(names) => names.contains(&model.id),
            Lookup::Unknown => false,
        };
    if same { Ok(model) } else { Err(Refusal::ModelMismatch { path: shown(), body: body.to_owned() }) }
}

fn by_name(context: &Context, name: &str, caller: &Caller) -> Result<Arc<Model>, Refusal> {
    match context.actors.routing.by_name(name, caller) {
        Lookup::Found(model) => Ok(model),
        Lookup::Unknown => Err(Refusal::UnknownModel(name.to_owned())),
        Lookup::Ambiguous(names) => Err(Refusal::AmbiguousModel {
            name: name.to_owned(),
            candidates: names.iter().map(|name| format!("{}/{}", name.namespace, name.name)).collect(),
        }),
    }
}
