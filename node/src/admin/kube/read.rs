//! Get and list: the newest state there is, unless the caller says that an older one will do.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use raft::View;
use raft::resources::{Kind, Object, ObjectKey};
use serde_json::{Value, json};

use super::error::Failure;
use super::options::Options;
use super::{Call, Kube, reply, table};

/// So many objects are shown before others have a turn.
const TURN: usize = 64;

pub(super) async fn get(kube: &Kube, call: &Call, key: &ObjectKey) -> Result<Response, Failure> {
    let view = at_least(kube, call.options.resource_version).await?;
    let object = view.object(key).ok_or_else(|| Failure::not_found(key))?;
    let value = if table::is_wanted(&call.head.headers) {
        let row = table::line(object, &kube.status(object, &view), kube.now(), call.options.include_object);
        table::write(key.kind.columns(), object.resource_version, vec![row])
    } else {
        kube.shown(object, &view)
    };
    Ok(reply(StatusCode::OK, &value))
}

pub(super) async fn list(kube: &Kube, call: &Call, kind: Kind, namespace: Option<&str>) -> Result<Response, Failure> {
    let view = view_for(kube, &call.options).await?;
    let selected = select(&view, kind, namespace, &call.options);
    let (version, now, as_table) = (list_version(&view), kube.now(), table::is_wanted(&call.head.headers));
    let mut items: Vec<Value> = Vec::new();
    for object in selected {
        items.push(match as_table {
            true => table::line(object, &kube.status(object, &view), now, call.options.include_object),
            false => kube.shown(object, &view),
        });
        if items.len().is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
    let value = if as_table {
        table::write(kind.columns(), version, items)
    } else {
        json!({
            "kind": format!("{}List", kind.name()),
            "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": version.to_string()},
            "items": items,
        })
    };
    Ok(reply(StatusCode::OK, &value))
}

/// The objects of a kind that a request selects, by namespace and name.
pub(super) fn select<'a>(
    view: &'a View,
    kind: Kind,
    namespace: Option<&'a str>,
    options: &'a Options,
) -> impl Iterator<Item = &'a Arc<Object>> {
    view.objects_of(kind)
        .filter(move |object| namespace.is_none_or(|namespace| object.key.namespace == namespace))
        .filter(|object| options.labels.matches(object) && options.fields.matches(object))
}

/// The `resourceVersion` of a list: of the last change to any object. Never 0, which means "any" in requests.
pub(super) fn list_version(view: &View) -> u64 {
    view.access_version.max(1)
}

async fn view_for(kube: &Kube, options: &Options) -> Result<Arc<View>, Failure> {
    match options.resource_version {
        Some(exactly) if options.exact => kube.history.at(exactly).ok_or_else(expired),
        not_older => at_least(kube, not_older).await,
    }
}

/// A view that contains everything up to `resource_version`, which another node may have handed out; 0: the newest that this
/// node happens to have. Without one: everything acknowledged anywhere before the call.
pub(super) async fn at_least(kube: &Kube, resource_version: Option<u64>) -> Result<Arc<View>, Failure> {
    let view = kube.view();
    if resource_version.is_some_and(|wanted| wanted <= view.applied) {
        return Ok(view);
    }
    kube.context.cluster.read_barrier().await?;
    let view = kube.view();
    let wanted = resource_version.unwrap_or_default();
    if wanted <= view.applied {
        return Ok(view);
    }
    let message = format!("Too large resource version: {wanted}, current: {}", view.applied);
    Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).retry_after(1))
}

/// The version is too old to say what has changed since.
pub(super) fn expired() -> Failure {
    Failure::new(
        StatusCode::GONE,
        "Expired",
        "this resourceVersion is too old or was not handed out by this node: list again",
    )
}
