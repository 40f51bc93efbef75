//! OpenAI: error objects, error events, `x-ratelimit-*` headers.

use std::time::Duration;

use actors::QuotaRefusal;
use actors::quota::LimitStanding;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use raft::resources::Unit;
use serde_json::json;

use crate::gateway::refusal::Refusal;

/// `type` of an error, by status.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

pub(super) fn error_body(refusal: &Refusal) -> Bytes {
    let param = match refusal {
        Refusal::InvalidBody { field, .. } => *field,
        Refusal::UnknownModel(_) | Refusal::AmbiguousModel { .. } | Refusal::ModelMismatch { .. } => Some("model"),
        _ => None,
    };
    let mut error = json!({
        "message": refusal.to_string(),
        "type": kind(refusal.status()),
        "param": param,
        "code": refusal.code(),
    });
    if let Refusal::Quota(quota) = refusal
        && let QuotaRefusal::Exhausted { subscription, standing, needed, retry_after, .. } = &**quota
    {
        let amount = |amount| standing.unit.number(amount);
        error["quota"] = json!({
            "subscription": format!("{}/{}", subscription.namespace, subscription.name),
            "limit": amount(standing.limit),
            "unit": standing.unit.name(),
            "window": standing.window,
            "used": amount(standing.used),
            "reserved": amount(standing.reserved),
            "debt": amount(standing.debt),
            "needed": amount(*needed),
            "fits_now": amount(standing.remaining),
            "resets_at": (standing.unit != Unit::InProgress).then(|| standing.resets_at.to_string()),
            "retry_after_ms": u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
        });
    }
    Bytes::from(json!({ "error": error }).to_string())
}

pub(super) fn error_event(message: &str) -> Bytes {
    let error =
        json!({"error": {"message": message, "type": "server_error", "param": null, "code": "upstream_failed"}});
    Bytes::from(format!("data: {error}\n\n"))
}

pub(super) fn responses_error_event(message: &str) -> Bytes {
    let error = json!({"type": "error", "code": "server_error", "message": message, "param": null});
    Bytes::from(format!("event: error\ndata: {error}\n\n"))
}

pub(super) fn limit_headers(limit: &LimitStanding, headers: &mut HeaderMap) {
    let [most, remaining, reset] = match limit.unit {
        Unit::Requests => {
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
        }
        Unit::Total | Unit::Input | Unit::Output => {
            ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]
        }
        Unit::InProgress | Unit::Cost => return,
    };
    if headers.contains_key(most) {
        return;
    }
    headers.insert(most, HeaderValue::from(limit.limit));
    headers.insert(remaining, HeaderValue::from(limit.remaining));
    if let Ok(value) = HeaderValue::try_from(go_duration(limit.resets_in)) {
        headers.insert(reset, value);
    }
}

/// A duration as Go prints it, which is what these headers carry: `12ms`, `1s`, `6m0s`, `1h0m0s`. Rounded up.
fn go_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_micros().div_ceil(1000));
    }
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        (_, _) => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        let cases = [
            (0, "0ms"),
            (12, "12ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1001, "2s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
        ];
        for (millis, text) in cases {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
