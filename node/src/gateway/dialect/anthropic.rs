//! Anthropic: error objects, error events, `anthropic-ratelimit-*` headers.

use actors::quota::LimitStanding;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use raft::resources::Unit;
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

pub(super) fn limit_headers(limit: &LimitStanding, headers: &mut HeaderMap) {
    let [most, remaining, reset] = match limit.unit {
        Unit::Total => [
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
        ],
        Unit::Input => [
            "anthropic-ratelimit-input-tokens-limit",
            "anthropic-ratelimit-input-tokens-remaining",
            "anthropic-ratelimit-input-tokens-reset",
        ],
        Unit::Output => [
            "anthropic-ratelimit-output-tokens-limit",
            "anthropic-ratelimit-output-tokens-remaining",
            "anthropic-ratelimit-output-tokens-reset",
        ],
        Unit::Requests => [
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ],
        Unit::InProgress | Unit::Cost => return,
    };
    if headers.contains_key(most) {
        return;
    }
    headers.insert(most, HeaderValue::from(limit.limit));
    headers.insert(remaining, HeaderValue::from(limit.remaining));
    if let Ok(value) = HeaderValue::try_from(limit.resets_at.to_string()) {
        headers.insert(reset, value);
    }
}
