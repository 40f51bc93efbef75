//! Tokens of ServiceAccounts: `kubectl create token NAME --duration 24h`.
//!
//! A token is opaque and random, shown once; the cluster keeps its hash. Deleting the ServiceAccount ends it.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use raft::command::NewToken;
use raft::resources::{FieldError, ObjectKey};
use raft::{Command, Reply};
use serde_json::{Value, json};
use tracing::info;

use super::error::{Failure, internal};
use super::{Call, Kube, reply, warn};
use crate::admin::secret;

/// Unless asked otherwise.
const SECONDS_DEFAULT: u64 = 3600;
/// As in Kubernetes.
const SECONDS_MIN: u64 = 600;
/// A year. A longer wish is shortened, with a warning.
const SECONDS_MAX: u64 = 365 * 24 * 3600;

pub(super) async fn answer(kube: &Kube, call: &Call, key: ObjectKey) -> Result<Response, Failure> {
    let body = call.json()?.unwrap_or_default();
    let asked = seconds_asked(&key, &body["spec"])?;
    let seconds = asked.min(SECONDS_MAX);
    let view = kube.view();
    if view.object(&key).is_none() {
        return Err(Failure::not_found(&key));
    }
    let token = secret::service_account_token(&*kube.context.doors.chance);
    let expires = kube.now().plus(Duration::from_secs(seconds));
    let username = format!("system:serviceaccount:{}:{}", key.namespace, key.name);
    if !call.options.dry_run {
        let new = NewToken {
            hash: token.hash,
            username: username.clone(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{}", key.namespace),
                "system:authenticated".to_owned(),
            ],
            expires: Some(expires),
            service_account: Some(key.clone()),
        };
        let applied = kube.context.cluster.propose(Command::MakeToken { token: new, seen: view.applied }).await?;
        match applied.reply {
            Reply::Done => kube.context.cluster.spread(applied.index).await,
            Reply::Refused(refusal) => return Err(refusal.into()),
            Reply::Object(_) | Reply::Key(_) | Reply::Revoked(_) | Reply::Quota(_) => {
                return Err(internal("the cluster answered something unexpected"));
            }
        }
        info!(user = call.caller.user(), service_account = username, %expires, "token created");
    }
    let answer = json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": key.name, "namespace": key.namespace, "creationTimestamp": null},
        "spec": {"audiences": [], "expirationSeconds": seconds},
        "status": {"token": token.text, "expirationTimestamp": expires.to_string()},
    });
    let shortened = (asked > SECONDS_MAX)
        .then(|| format!("requested expiration of {asked} seconds shortened to {SECONDS_MAX} seconds"));
    Ok(warn(reply(StatusCode::CREATED, &answer), shortened.as_slice()))
}

fn seconds_asked(key: &ObjectKey, spec: &Value) -> Result<u64, Failure> {
    let wrong = |path: &str, message: &str| {
        Failure::invalid(key, &[FieldError { path: path.to_owned(), message: message.to_owned() }])
    };
    if spec["audiences"].as_array().is_some_and(|audiences| !audiences.is_empty()) {
        return Err(wrong("spec.audiences", "tokens are for this cluster only: leave it empty"));
    }
    if !spec["boundObjectRef"].is_null() {
        return Err(wrong("spec.boundObjectRef", "tokens are bound to their ServiceAccount only: leave it out"));
    }
    match &spec["expirationSeconds"] {
        Value::Null => Ok(SECONDS_DEFAULT),
        value => value
            .as_u64()
            .filter(|seconds| *seconds >= SECONDS_MIN)
            .ok_or_else(|| wrong("spec.expirationSeconds", "may not specify a duration less than 10 minutes")),
    }
}
