//! Refusals, in the error body of the route's family.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use raft::ProposeError;
use serde_json::{Value, json};
use tracing::warn;

use super::reply;
use crate::admin::body::Unread;
use crate::admin::shares::NoShare;
use crate::anthropic;

/// Which error body a route uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `{"error":"…"}`, sometimes with a `code`.
    Keys,
    /// `{"error":{"message":"…","type":"…"}}`, as OpenAI clients expect.
    Models,
}

/// A refusal.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    family: Family,
    message: String,
    code: Option<&'static str>,
    retry_after: Option<Duration>,
    /// What the path takes, if not this method.
    allowed: Option<&'static str>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, family: Family, message: impl Into<String>) -> Refused {
        Refused { status, family, message: message.into(), code: None, retry_after: None, allowed: None }
    }

    /// 400 on a key route.
    pub(super) fn bad_request(message: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, Family::Keys, message)
    }

    /// 403 on a key route.
    pub(super) fn forbidden(message: impl Into<String>) -> Refused {
        Refused::new(StatusCode::FORBIDDEN, Family::Keys, message)
    }

    pub(super) fn no_route() -> Refused {
        Refused::new(StatusCode::NOT_FOUND, Family::Keys, "not found")
    }

    /// The path takes only these methods.
    pub(super) fn method(family: Family, allowed: &'static str) -> Refused {
        let refused = Refused::new(StatusCode::METHOD_NOT_ALLOWED, family, "method not allowed");
        Refused { allowed: Some(allowed), ..refused }
    }

    /// No such key, or somebody else's: one answer, so that existence cannot be probed.
    pub(super) fn no_key() -> Refused {
        Refused::new(StatusCode::NOT_FOUND, Family::Keys, "API key not found")
    }

    /// Adds what programs match on.
    pub(super) fn with_code(mut self, code: &'static str) -> Refused {
        self.code = Some(code);
        self
    }

    /// Says when to come back.
    pub(super) fn with_retry_after(mut self, wait: Duration) -> Refused {
        self.retry_after = Some(wait);
        self
    }

    /// What the leader knows could not be found out, so nothing was done.
    pub(super) fn not_answered(error: &ProposeError, family: Family) -> Refused {
        warn!(%error, "a request was refused: the leader was asked what it knows");
        let message = "this node cannot find out now what the cluster knows, and nothing was done: try again";
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, family, message)
    }

    /// A change of keys that the cluster did not answer. The text is upstream's; what happened is in the log.
    pub(super) fn not_proposed(error: &ProposeError, message: &str) -> Refused {
        warn!(%error, "{}", message.to_lowercase());
        let status = match error {
            ProposeError::Stopping | ProposeError::Retired | ProposeError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            ProposeError::Unknown(_) | ProposeError::TooLarge { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refused::new(status, Family::Keys, message)
    }
}

impl From<NoShare> for Refused {
    fn from(none: NoShare) -> Refused {
        Refused::new(StatusCode::TOO_MANY_REQUESTS, Family::Keys, none.to_string())
            .with_code("too_many_queries")
            .with_retry_after(Duration::from_secs(1))
    }
}

impl From<Unread> for Refused {
    fn from(unread: Unread) -> Refused {
        Refused::new(unread.status(), Family::Keys, unread.to_string())
    }
}

impl Refused {
    /// As Anthropic's clients read it.
    pub(super) fn to_anthropic(&self, request_id: &str) -> Response {
        self.reply(&anthropic::error(anthropic::error_kind(self.status), &self.message, request_id))
    }

    fn reply(&self, body: &Value) -> Response {
        let mut response = reply(self.status, body);
        // What is busy now may not be in a moment.
        let is_busy = self.status == StatusCode::SERVICE_UNAVAILABLE;
        if let Some(wait) = self.retry_after.or(is_busy.then_some(Duration::from_secs(1))) {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allowed) = self.allowed {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = match (self.family, self.code) {
            (Family::Keys, None) => json!({"error": self.message}),
            (Family::Keys, Some(code)) => json!({"error": self.message, "code": code}),
            (Family::Models, code) => {
                let kind = match self.status {
                    StatusCode::UNAUTHORIZED => "authentication_error",
                    StatusCode::FORBIDDEN => "permission_error",
                    StatusCode::NOT_FOUND => "not_found_error",
                    status if status.is_server_error() => "server_error",
                    _ => "invalid_request_error",
                };
                let mut error = json!({"message": self.message, "type": kind});
                if let Some(code) = code {
                    error["code"] = json!(code);
                }
                json!({ "error": error })
            }
        };
        self.reply(&body)
    }
}
