//! Anthropic: error objects, error events, `anthropic-ratelimit-*` headers.

use actors::quota::LimitStanding;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use crate::gateway::refusal::Refusal;

/// `error.type`, by status.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    }
}

pub(super) fn error_body(refusal: &Refusal, request_id: &str) -> Bytes {
    let error = json!({
        "type": "error",
        "error": {"type": kind(refusal.status()), "message": refusal.to_string()},
        "request_id": request_id,
    });
    Bytes::from(error.to_string())
}

pub(super) fn error_event(message: &str) -> Bytes {
    let error = json!({"type": "error", "error": {"type": "api_error", "message": message}});
    Bytes::from(format!("event: error\ndata: {error}\n\n"))
}

pub(super) fn limit_headers(tightest: &LimitStanding, headers: &mut HeaderMap) {
    headers.insert("anthropic-ratelimit-tokens-limit", HeaderValue::from(tightest.limit));
    headers.insert("anthropic-ratelimit-tokens-remaining", HeaderValue::from(tightest.remaining));
    if let Ok(reset) = HeaderValue::try_from(tightest.resets_at.to_string()) {
        headers.insert("anthropic-ratelimit-tokens-reset", reset);
    }
}
