//! Answers that the gateway itself gives. The only place where a refusal becomes HTTP.

use actors::quota::LimitStanding;
use actors::{Permit, QuotaRefusal};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use raft::View;
use raft::resources::{Kind, ObjectKey};
use serde_json::json;

use super::dialect::Dialect;
use super::refusal::Refusal;
use super::stream::Body;

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
    if let Some(reason) = refusal.auth_reason() {
        headers.insert("x-ext-auth-reason", HeaderValue::from_static(reason));
    }
    if let Some(reason) = refusal.dropped_reason() {
        headers.insert("x-llm-d-request-dropped-reason", HeaderValue::from_static(reason));
    }
    if let Some(after) = refusal.retry_after() {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
        headers.insert("retry-after-ms", HeaderValue::from(millis.max(1)));
    }
    if let Refusal::Quota(quota) = refusal
        && let QuotaRefusal::Exhausted { standing, .. } = &**quota
    {
        add_limits(std::slice::from_ref(standing), dialect, headers);
    }
    response
}

/// Adds rate-limit headers: the dialect's own for the tightest limit (the first of `standing`), and the IETF draft's for all of them.
pub(super) fn add_limits(standing: &[LimitStanding], dialect: Dialect, headers: &mut HeaderMap) {
    let Some(tightest) = standing.first() else { return };
    dialect.limit_headers(tightest, headers);
    let (mut policy, mut limits) = (String::with_capacity(64), String::with_capacity(64));
    for limit in standing {
        if !policy.is_empty() {
            policy.push_str(", ");
            limits.push_str(", ");
        }
        let seconds = limit.resets_in.as_millis().div_ceil(1000);
        policy.push_str(&format!(
            "\"{}\";q={};w={};maas-unit=\"tokens\"",
            limit.window, limit.limit, limit.window_seconds
        ));
        limits.push_str(&format!("\"{}\";r={};t={};maas-unit=\"tokens\"", limit.window, limit.remaining, seconds));
    }
    // Windows are digits and a unit, so these are valid header values.
    if let (Ok(policy), Ok(limits)) = (HeaderValue::try_from(policy), HeaderValue::try_from(limits)) {
        headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
        headers.insert(HeaderName::from_static("ratelimit"), limits);
    }
}

/// The list of one model, at its own prefix.
pub(super) fn models(permit: &Permit, view: &View) -> Response<Body> {
    let model = permit.model();
    let key = ObjectKey::new(Kind::ModelRef, &*model.id.namespace, &*model.id.name);
    let created = view.object(&key).map_or(0, |object| object.created.seconds());
    let list = json!({"object": "list", "data": [{
        "id": &*model.id.name,
        "object": "model",
        "created": created,
        "owned_by": format!("{}/{}", model.id.namespace, model.id.name),
    }]});
    let mut response = Response::new(Body::Whole(list.to_string().into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raft::Timestamp;

    use super::*;

    fn limit(window: &str, remaining: u64) -> LimitStanding {
        LimitStanding {
            limit: 1000,
            window: window.to_owned(),
            window_seconds: 3600,
            used: 1000 - remaining,
            reserved: 0,
            remaining,
            resets_in: Duration::from_millis(1500),
            resets_at: Timestamp(1_795_351_209_000),
        }
    }

    fn headers(dialect: Dialect) -> Vec<String> {
        let mut headers = HeaderMap::new();
        add_limits(&[limit("1h", 10), limit("24h", 20)], dialect, &mut headers);
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
        assert_eq!(headers(Dialect::OpenAi), [&standard[..], &openai[..]].concat());
        assert_eq!(headers(Dialect::Anthropic), [&anthropic[..], &standard[..]].concat());
    }
}
