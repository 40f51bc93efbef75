//! Questions callers ask about themselves: `kubectl auth whoami`, `kubectl auth can-i`, `kubectl auth can-i --list`.

use actors::Caller;
use axum::response::Response;
use http::{Method, StatusCode};
use raft::resources::Kind;
use serde_json::{Value, json};

use super::access::{Wish, authorize, is_allowed};
use super::error::Failure;
use super::target::Review;
use super::{Call, reply};

/// Paths that every caller may read.
const PUBLIC_PATHS: [&str; 8] = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", "/version", "/readyz"];

pub(super) fn answer(call: &Call, review: Review) -> Result<Response, Failure> {
    if call.method() != Method::POST {
        return Err(Failure::method_not_allowed());
    }
    let wish = Wish {
        verb: "create".to_owned(),
        group: review.group().to_owned(),
        resource: review.plural().to_owned(),
        ..Wish::default()
    };
    authorize(&call.caller, &wish)?;
    let body = call.json()?.unwrap_or_default();
    let spec = &body["spec"];
    let status = match review {
        Review::Access => access(&call.caller, spec)?,
        Review::Rules => rules(&call.caller),
        Review::Subject => json!({"userInfo": {"username": call.caller.user(), "groups": call.caller.groups()}}),
    };
    let mut answer = json!({
        "kind": review.kind(),
        "apiVersion": format!("{}/v1", review.group()),
        "metadata": {"creationTimestamp": null},
    });
    if spec.is_object() {
        answer["spec"] = spec.clone();
    }
    answer["status"] = status;
    Ok(reply(StatusCode::CREATED, &answer))
}

fn access(caller: &Caller, spec: &Value) -> Result<Value, Failure> {
    let allowed = match (&spec["resourceAttributes"], &spec["nonResourceAttributes"]) {
        (wanted @ Value::Object(_), Value::Null) => {
            let text = |name: &str| wanted[name].as_str().unwrap_or_default().to_owned();
            let wish = Wish {
                verb: text("verb"),
                group: text("group"),
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
            };
            is_allowed(caller, &wish)
        }
        (Value::Null, wanted @ Value::Object(_)) => {
            let path = wanted["path"].as_str().unwrap_or_default();
            let is_public = PUBLIC_PATHS.iter().any(|known| match known.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => path == *known,
            });
            caller.is_admin() || (is_public && wanted["verb"] == "get")
        }
        _ => {
            let message = "exactly one of spec.resourceAttributes and spec.nonResourceAttributes must be set";
            return Err(Failure::bad_request(message));
        }
    };
    let reason = match (allowed, caller.is_admin()) {
        (true, true) => "member of system:masters",
        (true, false) => "allowed to every authenticated user",
        (false, _) => "allowed to members of system:masters only",
    };
    Ok(json!({"allowed": allowed, "reason": reason}))
}

fn rules(caller: &Caller) -> Value {
    let (resources, paths) = if caller.is_admin() {
        (vec![json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})], vec!["*"])
    } else {
        let mut rules: Vec<Value> = Review::ALL
            .into_iter()
            .map(|review| json!({"verbs": ["create"], "apiGroups": [review.group()], "resources": [review.plural()]}))
            .collect();
        let (group, plural) = (Kind::ModelRef.group(), Kind::ModelRef.plural());
        rules.push(json!({"verbs": ["get", "list", "watch"], "apiGroups": [group], "resources": [plural]}));
        (rules, PUBLIC_PATHS.to_vec())
    };
    json!({
        "resourceRules": resources,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": paths}],
        "incomplete": false,
    })
}
