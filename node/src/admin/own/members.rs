//! Who is in the cluster, for those who administer it: a lost node is taken out, and a new one takes its place.
//!
//! | below `/tollgate/v1` | what |
//! |---|---|
//! | `GET /members` | every member, and the numbers of those that were taken out |
//! | `POST /members` | `{"id":4,"address":"host:7443"}`: adds a node that runs with `cluster.join`; answered when it has a vote |
//! | `DELETE /members/{id}` | takes a member out for good, whether it runs or not; answered when it is out |
//!
//! Each answers with what `GET` shows, and can be repeated until it does. Any member may be asked.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, Request, StatusCode};
use raft::NodeId;
use raft::cluster::{MemberError, Membership};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::{Refused, authorize, reply};
use crate::Context;
use crate::admin::{body, json as unambiguous};
use crate::config::check_member;

/// Request bodies, in bytes: a number and a host name.
const BODY_BYTES_MAX: usize = 4096;

/// `/tollgate/v1/members`.
pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/tollgate/v1/members", get(list).post(add))
        .route("/tollgate/v1/members/{id}", axum::routing::delete(remove))
}

async fn list(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Refused> {
    authorize(&context, &headers).await?;
    context.cluster.read_barrier().await.map_err(MemberError::from)?;
    Ok(shown(&context, &context.cluster.membership()))
}

/// A node to be added.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Newcomer {
    id: u64,
    address: String,
}

async fn add(State(context): State<Context>, request: Request<Body>) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    // The body first: it may take a while, and who sends it must be an administrator when it is here.
    let body = body::read(&head.headers, body, BODY_BYTES_MAX).await?;
    let user = authorize(&context, &head.headers).await?;
    let wrong = |what: String| Refused::new(StatusCode::BAD_REQUEST, format!("invalid request body: {what}"));
    let wanted: Value = unambiguous::parse(&body).map_err(wrong)?;
    if !wanted.is_object() {
        return Err(wrong("send a JSON object".to_owned()));
    }
    let Newcomer { id, address } = serde_json::from_value(wanted).map_err(|error| wrong(error.to_string()))?;
    check_member(id, &address).map_err(wrong)?;

    let node = NodeId(id);
    context.cluster.add_member(node, address.clone()).await?;
    info!(user, %node, address, "a node was added to the cluster");
    context.cluster.read_barrier().await.map_err(MemberError::from)?;
    Ok(shown(&context, &context.cluster.membership()))
}

async fn remove(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let user = authorize(&context, &headers).await?;
    let is_number = |id: &u64| *id > 0;
    let Some(id) = id.parse().ok().filter(is_number) else {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            format!("\"{id}\" is not a node's number: write 1, 2, 3, …"),
        ));
    };
    let node = NodeId(id);
    context.cluster.remove_member(node).await?;
    info!(user, %node, "a node was taken out of the cluster");
    if !context.cluster.is_retired() {
        context.cluster.read_barrier().await.map_err(MemberError::from)?;
    }
    // A node that was taken out itself may not have heard the end of it.
    let mut membership = Membership::clone(&context.cluster.membership());
    membership.addresses.remove(&node);
    Ok(shown(&context, &membership))
}

fn shown(context: &Context, membership: &Membership) -> Response {
    let leader = context.cluster.standing().leader;
    let member = |(node, address): (&NodeId, &String)| {
        let (leads, votes) = (leader == Some(*node), membership.voters.contains(node));
        json!({"id": node.0, "address": address, "leader": leads, "voter": votes})
    };
    let members: Vec<Value> = membership.addresses.iter().map(member).collect();
    let retired: Vec<u64> = context.cluster.view().retired.iter().map(|node| node.0).collect();
    reply(StatusCode::OK, &json!({"members": members, "retired": retired}))
}
