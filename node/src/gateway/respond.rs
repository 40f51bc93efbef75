//! Answers that the gateway itself gives. The only place where a refusal becomes HTTP.

use actors::quota::LimitStanding;
use actors::{Permit, QuotaRefusal};
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use raft::View;
use raft::resources::{Kind, LimitScope, ObjectKey, Unit};
use serde_json::{Value, json};

use super::dialect::Dialect;
use super::refusal::Refusal;
use super::retry::RetryAdvice;
use super::stream::Body;
use crate::anthropic;

/// The refusal as the caller's SDK understands it, with everything that helps to do better next time.
pub(super) fn refuse(refusal: &Refusal, dialect: Dialect, request_id: &HeaderValue) -> Response<Body> {
    let id = request_id.to_str().unwrap_or_default();
    let mut response = Response::new(Body::Whole(dialect.error_body(refusal, id)));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if refusal.status() == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Refusal::MethodNotAllowed { allowed, .. } = refusal {
        headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    if matches!(refusal, Refusal::UnknownCoding) {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(super::body::ACCEPTED));
    }
    if let Some(reason) = refusal.auth_reason() {
        headers.insert("x-ext-auth-reason", HeaderValue::from_static(reason));
    }
    if let Some(reason) = refusal.dropped_reason() {
        headers.insert("x-llm-d-request-dropped-reason", HeaderValue::from_static(reason));
    }
    if let Refusal::NoWebSocket { .. } = refusal {
        // The protocol to use instead (RFC 9110, section 15.5.22).
        headers.insert(header::UPGRADE, HeaderValue::from_static("HTTP/1.1"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    RetryAdvice { after: refusal.retry_after(), should: refusal.should_retry() }.add_to(headers);
    if let Refusal::Quota(quota) = refusal
        && let QuotaRefusal::Exhausted { standing, .. } = &**quota
    {
        add_limits(std::slice::from_ref(standing), dialect, headers);
    }
    response
}

/// Adds rate-limit headers: the dialect's own for the tightest limit of each kind it knows (`standing` has the tightest first), and the
/// IETF draft's for all of them.
pub(super) fn add_limits(standing: &[LimitStanding], dialect: Dialect, headers: &mut HeaderMap) {
    if standing.is_empty() {
        return;
    }
    let (mut policy, mut limits) = (String::with_capacity(64), String::with_capacity(64));
    for limit in standing {
        if !policy.is_empty() {
            policy.push_str(", ");
            limits.push_str(", ");
        }
        dialect.limit_headers(limit, headers);
        let (name, unit) = (policy_name(limit), unit_name(limit.unit));
        let seconds = limit.resets_in.as_millis().div_ceil(1000);
        let (most, remaining) = (in_headers(limit.unit, limit.limit), in_headers(limit.unit, limit.remaining));
        let (window, reset) = match (limit.window_seconds, limit.unit) {
            (_, Unit::InProgress) => (";qu=\"concurrent-requests\"".to_owned(), String::new()),
            (0, _) => (String::new(), format!(";t={seconds}")),
            (window, _) => (format!(";w={window}"), format!(";t={seconds}")),
        };
        policy.push_str(&format!("\"{name}\";q={most}{window};maas-unit=\"{unit}\""));
        limits.push_str(&format!("\"{name}\";r={remaining}{reset};maas-unit=\"{unit}\""));
    }
    // Windows are digits and a unit, so these are valid header values.
    if let (Ok(policy), Ok(limits)) = (HeaderValue::try_from(policy), HeaderValue::try_from(limits)) {
        headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
        headers.insert(HeaderName::from_static("ratelimit"), limits);
    }
}

/// `1h`, and what is unusual about the limit: `1h-requests-key`.
fn policy_name(limit: &LimitStanding) -> String {
    let unit = match limit.unit {
        Unit::Total => "",
        Unit::Input => "-input",
        Unit::Output => "-output",
        Unit::Requests => "-requests",
        Unit::InProgress => "in-progress",
        Unit::Cost => "-budget",
    };
    let scope = match limit.scope {
        LimitScope::User => "",
        LimitScope::Key => "-key",
        LimitScope::Subscription => "-subscription",
    };
    format!("{}{unit}{scope}", limit.window)
}

/// As headers say it.
fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Total => "tokens",
        Unit::Input => "input-tokens",
        Unit::Output => "output-tokens",
        Unit::Requests => "requests",
        Unit::InProgress => "calls-in-progress",
        Unit::Cost => "cost-micros",
    }
}

/// An amount as headers say it: they have integers only, so money is in millionths.
fn in_headers(unit: Unit, amount: u64) -> u64 {
    /// Money is counted in trillionths.
    const MICRO: u64 = 1_000_000;
    if unit == Unit::Cost { amount / MICRO } else { amount }
}

/// The list of one model, at its own prefix.
pub(super) fn models(permit: &Permit, view: &View, head: &Parts) -> Result<Response<Body>, Refusal> {
    let items = [item(permit, view)];
    let list = if anthropic::asks(&head.headers) {
        anthropic::page(&items, &head.uri).map_err(Refusal::body)?
    } else {
        json!({"object": "list", "data": items})
    };
    Ok(ok(&list))
}

/// The one model of that list.
pub(super) fn model(permit: &Permit, view: &View, head: &Parts) -> Response<Body> {
    let item = item(permit, view);
    ok(&if anthropic::asks(&head.headers) { anthropic::model(&item) } else { item })
}

fn item(permit: &Permit, view: &View) -> Value {
    let model = permit.model();
    let key = ObjectKey::new(Kind::ModelRef, &*model.id.namespace, &*model.id.name);
    let created = view.object(&key).map_or(0, |object| object.created.seconds());
    json!({
        "id": &*model.id.name,
        "object": "model",
        "created": created,
        "owned_by": format!("{}/{}", model.id.namespace, model.id.name),
    })
}

/// What this is, for whoever asks without a path: people with a browser, and clients that look whether somebody is there.
pub(super) fn root() -> Response<Body> {
    ok(&json!({
        "name": "Tollgate",
        "description": "a gateway to language models: send an API key as `Authorization: Bearer <key>` or `x-api-key: <key>`",
        "paths": {
            "models": "/v1/models",
            "chat": "/v1/chat/completions",
            "responses": "/v1/responses",
            "messages": "/v1/messages",
            "one model": "/<namespace>/<model>/v1",
            "keys": "/maas-api/v1/api-keys",
        },
    }))
}

fn ok(body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::Whole(body.to_string().into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raft::Timestamp;
    use raft::resources::Price;

    use super::*;

    fn limit(window: &str, remaining: u64) -> LimitStanding {
        LimitStanding {
            unit: Unit::Total,
            scope: LimitScope::User,
            is_hard: false,
            limit: 1000,
            window: window.to_owned(),
            price: Price::default(),
            window_seconds: 3600,
            used: 1000 - remaining,
            reserved: 0,
            remaining,
            debt: 0,
            resets_in: Duration::from_millis(1500),
            resets_at: Timestamp(1_795_351_209_000),
        }
    }

    fn headers(dialect: Dialect, standing: &[LimitStanding]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        add_limits(standing, dialect, &mut headers);
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn callers_see_the_tightest_limit_in_their_dialect_and_all_of_them_in_the_standard_one() {
        let standard = [
            r#"ratelimit-policy: "1h";q=1000;w=3600;maas-unit="tokens", "24h";q=1000;w=3600;maas-unit="tokens""#,
            r#"ratelimit: "1h";r=10;t=2;maas-unit="tokens", "24h";r=20;t=2;maas-unit="tokens""#,
        ];
        let openai =
            ["x-ratelimit-limit-tokens: 1000", "x-ratelimit-remaining-tokens: 10", "x-ratelimit-reset-tokens: 2s"];
        let anthropic = [
            "anthropic-ratelimit-tokens-limit: 1000",
            "anthropic-ratelimit-tokens-remaining: 10",
            "anthropic-ratelimit-tokens-reset: 2026-11-22T12:40:09Z",
        ];
        let standing = [limit("1h", 10), limit("24h", 20)];
        assert_eq!(headers(Dialect::OpenAi, &standing), [&standard[..], &openai[..]].concat());
        assert_eq!(headers(Dialect::Anthropic, &standing), [&anthropic[..], &standard[..]].concat());
    }

    #[test]
    fn calls_in_progress_and_money_are_in_the_standard_headers_only() {
        let calls = LimitStanding { unit: Unit::InProgress, window_seconds: 0, ..limit("", 3) };
        let trillionths = |units: u64| units * 1_000_000_000_000;
        let budget = LimitStanding {
            unit: Unit::Cost,
            scope: LimitScope::Subscription,
            limit: trillionths(500),
            remaining: trillionths(12),
            window_seconds: 0,
            ..limit("month", 0)
        };
        let expected = [
            r#"ratelimit-policy: "in-progress";q=1000;qu="concurrent-requests";maas-unit="calls-in-progress", "month-budget-subscription";q=500000000;maas-unit="cost-micros""#,
            r#"ratelimit: "in-progress";r=3;maas-unit="calls-in-progress", "month-budget-subscription";r=12000000;t=2;maas-unit="cost-micros""#,
        ];
        let standing = [calls, budget];
        assert_eq!(headers(Dialect::OpenAi, &standing), expected);
        assert_eq!(headers(Dialect::Anthropic, &standing), expected);
    }

    #[test]
    fn limits_of_other_units_have_headers_of_their_own() {
        let requests = LimitStanding { unit: Unit::Requests, scope: LimitScope::Key, ..limit("60s", 3) };
        let output = LimitStanding { unit: Unit::Output, scope: LimitScope::Subscription, ..limit("1h", 7) };
        let standing = [requests, output, limit("24h", 20)];
        let standard = [
            r#"ratelimit-policy: "60s-requests-key";q=1000;w=3600;maas-unit="requests", "1h-output-subscription";q=1000;w=3600;maas-unit="output-tokens", "24h";q=1000;w=3600;maas-unit="tokens""#,
            r#"ratelimit: "60s-requests-key";r=3;t=2;maas-unit="requests", "1h-output-subscription";r=7;t=2;maas-unit="output-tokens", "24h";r=20;t=2;maas-unit="tokens""#,
        ];
        let openai = [
            "x-ratelimit-limit-requests: 1000",
            "x-ratelimit-limit-tokens: 1000",
            "x-ratelimit-remaining-requests: 3",
            "x-ratelimit-remaining-tokens: 7",
            "x-ratelimit-reset-requests: 2s",
            "x-ratelimit-reset-tokens: 2s",
        ];
        let anthropic = ["output-tokens", "requests", "tokens"].map(|unit| {
            let remaining = if unit == "requests" {
                3
            } else if unit == "tokens" {
                20
            } else {
                7
            };
            [
                format!("anthropic-ratelimit-{unit}-limit: 1000"),
                format!("anthropic-ratelimit-{unit}-remaining: {remaining}"),
                format!("anthropic-ratelimit-{unit}-reset: 2026-11-22T12:40:09Z"),
            ]
        });
        let standard = standard.map(str::to_owned);
        let openai = openai.map(str::to_owned);
        assert_eq!(headers(Dialect::OpenAi, &standing), [&standard[..], &openai[..]].concat());
        assert_eq!(headers(Dialect::Anthropic, &standing), [&anthropic.concat()[..], &standard[..]].concat());
    }
}
