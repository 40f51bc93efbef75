//! The dialects a caller may speak: how an error looks, how a stream says that it failed.

mod anthropic;
mod openai;

use actors::quota::LimitStanding;
use bytes::Bytes;
use http::HeaderMap;

use super::refusal::Refusal;

/// Who the caller's SDK thinks it talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// The same in answers; its streams consist of typed events.
    Responses,
    /// `{"type": "error", "error": {"type", "message"}}`.
    Anthropic,
}

impl Dialect {
    /// The body of a refusal.
    pub(super) fn error_body(self, refusal: &Refusal, request_id: &str) -> Bytes {
        match self {
            Dialect::OpenAi | Dialect::Responses => openai::error_body(refusal),
            Dialect::Anthropic => anthropic::error_body(refusal, request_id),
        }
    }

    /// The event that ends a stream which failed.
    pub(super) fn error_event(self, message: &str) -> Bytes {
        match self {
            Dialect::OpenAi => openai::error_event(message),
            Dialect::Responses => openai::responses_error_event(message),
            Dialect::Anthropic => anthropic::error_event(message),
        }
    }

    /// Adds this dialect's own rate-limit headers for a limit, unless a tighter one of its kind has them already.
    pub(super) fn limit_headers(self, limit: &LimitStanding, headers: &mut HeaderMap) {
        match self {
            Dialect::OpenAi | Dialect::Responses => openai::limit_headers(limit, headers),
            Dialect::Anthropic => anthropic::limit_headers(limit, headers),
        }
    }
}
