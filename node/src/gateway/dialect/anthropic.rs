//! Anthropic: error objects, error events, `anthropic-ratelimit-*` headers.

use actors::quota::LimitStanding;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use raft::resources::Unit;

use crate::anthropic;
use crate::gateway::refusal::Refusal;

pub(super) fn error_body(refusal: &Refusal, request_id: &str) -> Bytes {
    let kind = anthropic::error_kind(refusal.status());
    Bytes::from(anthropic::error(kind, &refusal.to_string(), request_id).to_string())
}

pub(super) fn error_event(kind: &str, message: &str, request_id: &str) -> Bytes {
    Bytes::from(format!("event: error\ndata: {}\n\n", anthropic::error(kind, message, request_id)))
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
