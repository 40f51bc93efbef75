//! The bearer tokens there are, administrators' and ServiceAccounts': `kubectl get tokens`, `kubectl delete token ID`.
//!
//! They are no stored objects: each is shown from what the cluster keeps of it, never the token itself. One that has expired is not
//! there. A deletion is answered when no node accepts the token any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use http::{Method, StatusCode};
use raft::resources::{Column, age};
use raft::state::Token;
use raft::{Command, CommandRefusal, Reply, Timestamp, View};
use serde_json::{Value, json};
use tracing::info;
use uuid::Uuid;

use super::access::{Wish, authorize};
use super::error::{Failure, internal};
use super::options::IncludeObject;
use super::{Call, Kube, read, reply, table, write};

pub(super) const GROUP: &str = "tollgate.dev";
pub(super) const VERSION: &str = "v1";
pub(super) const PLURAL: &str = "tokens";
pub(super) const KIND: &str = "Token";

/// Columns of `kubectl get`, after the name.
const COLUMNS: [Column; 4] = [
    Column::text("User", "whom it stands for"),
    Column::text("Expires", "when it stops working"),
    Column::text("Last used", "how long ago, to the minute"),
    Column::AGE,
];
/// What stands in a cell where there is no time.
const NEVER: &str = "<never>";
const UNKNOWN: &str = "<unknown>";

/// Answers for all tokens, or for the one with this id.
pub(super) async fn answer(kube: &Kube, call: &Call, id: Option<&str>) -> Result<Response, Failure> {
    let verb = match (call.method(), id) {
        (Method::GET, None) if call.options.watch => return Err(Failure::method_not_allowed()),
        (Method::GET, None) => "list",
        (Method::GET, Some(_)) => "get",
        (Method::DELETE, Some(_)) => "delete",
        _ => return Err(Failure::method_not_allowed()),
    };
    authorize(&call.caller, &wish(verb, id))?;
    match (verb, id) {
        ("delete", Some(id)) => delete(kube, call, id).await,
        (_, id) => show(kube, call, id).await,
    }
}

fn wish(verb: &str, id: Option<&str>) -> Wish {
    Wish {
        verb: verb.to_owned(),
        group: GROUP.to_owned(),
        resource: PLURAL.to_owned(),
        name: id.unwrap_or_default().to_owned(),
        ..Wish::default()
    }
}

async fn show(kube: &Kube, call: &Call, id: Option<&str>) -> Result<Response, Failure> {
    let view = read::at_least(kube, call.options.resource_version).await?;
    let now = view.time.max(kube.now());
    let tokens: Vec<(String, &Token)> = match id {
        Some(id) => vec![(id.to_owned(), find(&view, id, now).ok_or_else(|| not_found(id))?)],
        None => {
            // No token has labels.
            let labels_fit = call.options.labels.selects(&BTreeMap::new());
            let mut all: Vec<(String, &Token)> = valid(&view, now).map(|token| (token.id(), &**token)).collect();
            all.retain(|(id, _)| labels_fit && call.options.fields.selects("", id));
            all.sort_by(|(_, one), (_, other)| (&one.username, one.created).cmp(&(&other.username, other.created)));
            all
        }
    };
    let version = read::list_version(&view);
    let value = if table::is_wanted(&call.head.headers) {
        let rows = tokens.iter().map(|(_, token)| row(token, now, call.options.include_object)).collect();
        table::write(&COLUMNS, version, rows)
    } else if let (Some(_), [(_, token)]) = (id, tokens.as_slice()) {
        shown(token)
    } else {
        json!({
            "kind": format!("{KIND}List"),
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "metadata": {"resourceVersion": version.to_string()},
            "items": tokens.iter().map(|(_, token)| shown(token)).collect::<Vec<_>>(),
        })
    };
    Ok(reply(StatusCode::OK, &value))
}

async fn delete(kube: &Kube, call: &Call, id: &str) -> Result<Response, Failure> {
    let view = kube.view();
    let Some(token) = find(&view, id, view.time.max(kube.now())) else {
        // Perhaps an earlier request ended it, and its answer was lost.
        kube.context.cluster.fence(view.access_version).await;
        return Err(not_found(id));
    };
    let details = json!({"name": id, "group": GROUP, "kind": PLURAL, "uid": uid(token).to_string()});
    if !write::is_dry_run(call, &call.json()?.unwrap_or_default()) {
        match kube.in_force(Command::RevokeToken { hash: token.hash }).await? {
            Reply::Done => {}
            Reply::Refused(CommandRefusal::TokenNotFound) => return Err(not_found(id)),
            _ => return Err(internal("the cluster answered something unexpected")),
        }
        info!(user = call.caller.user(), token = id, owner = token.username, "token revoked");
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(reply(StatusCode::OK, &status))
}

fn valid(view: &View, now: Timestamp) -> impl Iterator<Item = &Arc<Token>> {
    view.tokens.values().filter(move |token| token.is_valid(now))
}

fn find<'a>(view: &'a View, id: &str, now: Timestamp) -> Option<&'a Token> {
    valid(view, now).find(|token| token.id() == id).map(|token| &**token)
}

fn not_found(id: &str) -> Failure {
    let message = format!("{PLURAL}.{GROUP} {id:?} not found");
    Failure::new(StatusCode::NOT_FOUND, "NotFound", message)
}

/// Half of the hash: clients tell two objects of one name apart by it.
fn uid(token: &Token) -> Uuid {
    Uuid::from_slice(&token.hash[..16]).unwrap_or_default()
}

/// The token as it is sent. Neither it nor its hash is part of that.
fn shown(token: &Token) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let account = token.service_account.as_ref();
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": KIND,
        "metadata": metadata(token),
        "spec": {
            "user": token.username,
            "groups": token.groups,
            "serviceAccount": account.map(|key| json!({"namespace": key.namespace, "name": key.name})),
            "expirationTimestamp": time(token.expires),
        },
        "status": {"lastUsedTimestamp": time(token.last_used)},
    })
}

fn metadata(token: &Token) -> Value {
    let created = token.created.map(|created| created.to_string());
    json!({"name": token.id(), "uid": uid(token).to_string(), "creationTimestamp": created})
}

fn row(token: &Token, now: Timestamp, include: IncludeObject) -> Value {
    let ago = |time: Timestamp| age(now.since(time));
    let cells = json!([
        token.id(),
        token.username,
        token.expires.map_or_else(|| NEVER.to_owned(), |expires| expires.to_string()),
        token.last_used.map_or_else(|| NEVER.to_owned(), ago),
        token.created.map_or_else(|| UNKNOWN.to_owned(), ago),
    ]);
    match include {
        IncludeObject::None => json!({"cells": cells}),
        IncludeObject::Metadata => json!({"cells": cells, "object": table::partial(metadata(token))}),
        IncludeObject::Object => json!({"cells": cells, "object": shown(token)}),
    }
}
