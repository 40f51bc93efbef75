//! Every refusal of this API: a `v1` Status with a code, a reason that clients match on, and a message for people.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use raft::resources::{FieldError, Kind, ObjectKey};
use raft::{CommandRefusal, ProposeError};
use serde_json::{Map, Value, json};

use crate::admin::body::Unread;
use crate::admin::shares::NoShare;

/// A refusal. Boxed, so that the good case stays small.
#[derive(Debug)]
pub(super) struct Failure(Box<Facts>);

#[derive(Debug)]
struct Facts {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Map<String, Value>,
    retry_after_seconds: Option<u32>,
}

impl Failure {
    pub(super) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Failure {
        Failure(Box::new(Facts {
            code,
            reason,
            message: message.into(),
            details: Map::new(),
            retry_after_seconds: None,
        }))
    }

    pub(super) fn code(&self) -> StatusCode {
        self.0.code
    }

    /// Nobody has been found who sends this.
    pub(super) fn unauthorized(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// No such path, or no such kind of resource.
    pub(super) fn no_resource() -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn not_found(key: &ObjectKey) -> Failure {
        let message = format!("{} {:?} not found", resource(key.kind), key.name);
        Failure::new(StatusCode::NOT_FOUND, "NotFound", message).about(key)
    }

    fn conflict(key: &ObjectKey, why: &str) -> Failure {
        let message = format!("Operation cannot be fulfilled on {} {:?}: {why}", resource(key.kind), key.name);
        Failure::new(StatusCode::CONFLICT, "Conflict", message).about(key)
    }

    /// The uid is not the one the client has in mind.
    pub(super) fn uid_mismatch(key: &ObjectKey) -> Failure {
        Failure::conflict(key, "the UID in the precondition is not the object's: it was deleted and created again")
    }

    /// The object has moved on from the version the client has in mind.
    pub(super) fn version_mismatch(key: &ObjectKey) -> Failure {
        Failure::conflict(
            key,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(super) fn already_exists(key: &ObjectKey) -> Failure {
        let message = format!("{} {:?} already exists", resource(key.kind), key.name);
        Failure::new(StatusCode::CONFLICT, "AlreadyExists", message).about(key)
    }

    pub(super) fn method_not_allowed() -> Failure {
        let message = "the server does not allow this method on the requested resource";
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(super) fn unsupported_media_type(accepted: &str) -> Failure {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// Fields that are wrong, each with its path.
    pub(super) fn invalid(key: &ObjectKey, errors: &[FieldError]) -> Failure {
        let group = key.kind.group();
        let dot = if group.is_empty() { "" } else { "." };
        let said: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        let said = match said.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let message = format!("{}{dot}{group} {:?} is invalid: {said}", key.kind.name(), key.name);
        let mut failure = Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(key);
        failure.0.details.insert("kind".to_owned(), json!(key.kind.name()));
        let causes = errors
            .iter()
            .map(|error| json!({"reason": "FieldValueInvalid", "message": error.message, "field": error.path}))
            .collect();
        failure.0.details.insert("causes".to_owned(), Value::Array(causes));
        failure
    }

    /// Asks the client to come back.
    pub(super) fn retry_after(mut self, seconds: u32) -> Failure {
        self.0.details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        self.0.retry_after_seconds = Some(seconds);
        self
    }

    fn about(mut self, key: &ObjectKey) -> Failure {
        self.0.details = details(key);
        self
    }

    /// The Status object.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.0.message,
            "reason": self.0.reason,
        });
        if !self.0.details.is_empty() {
            status["details"] = Value::Object(self.0.details.clone());
        }
        status["code"] = json!(self.0.code.as_u16());
        status
    }
}

/// `details` of a Status that is about an object.
pub(super) fn details(key: &ObjectKey) -> Map<String, Value> {
    let mut details = Map::new();
    details.insert("name".to_owned(), json!(key.name));
    if !key.kind.group().is_empty() {
        details.insert("group".to_owned(), json!(key.kind.group()));
    }
    details.insert("kind".to_owned(), json!(key.kind.plural()));
    details
}

/// `plural.group`, or just the plural in the core group.
pub(super) fn resource(kind: Kind) -> String {
    let dot = if kind.group().is_empty() { "" } else { "." };
    format!("{}{dot}{}", kind.plural(), kind.group())
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.0.code, self.status().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.0.code == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Failure {
        match unread {
            Unread::TooLarge { .. } => {
                Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", unread.to_string())
            }
            Unread::Coded => {
                Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", unread.to_string())
            }
            Unread::TooSlow(_) => Failure::new(StatusCode::REQUEST_TIMEOUT, "Timeout", unread.to_string()),
            Unread::Broken(_) => Failure::bad_request(unread.to_string()),
        }
    }
}

impl From<NoShare> for Failure {
    fn from(none: NoShare) -> Failure {
        Failure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", none.to_string()).retry_after(1)
    }
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Failure {
        let message = error.to_string();
        match error {
            ProposeError::Unknown(_) => Failure::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message),
            ProposeError::Stopping | ProposeError::Retired | ProposeError::Busy(_) => {
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message).retry_after(1)
            }
            ProposeError::TooLarge { .. } => {
                Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
            }
        }
    }
}

impl From<CommandRefusal> for Failure {
    fn from(refusal: CommandRefusal) -> Failure {
        match refusal {
            CommandRefusal::AlreadyExists(key) => Failure::already_exists(&key),
            CommandRefusal::ObjectNotFound(key) => Failure::not_found(&key),
            CommandRefusal::NamespaceNotFound(name) => Failure::not_found(&ObjectKey::new(Kind::Namespace, "", name)),
            CommandRefusal::Conflict { key, .. } => Failure::version_mismatch(&key),
            CommandRefusal::UidMismatch(key) => Failure::uid_mismatch(&key),
            CommandRefusal::TooManyTokens { .. } => {
                Failure::new(StatusCode::FORBIDDEN, "Forbidden", refusal.to_string())
            }
            CommandRefusal::TooLate => {
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", refusal.to_string()).retry_after(1)
            }
            CommandRefusal::TooManyKeys { .. }
            | CommandRefusal::KeyFieldTooLong { .. }
            | CommandRefusal::KeyTextUsedUp { .. }
            | CommandRefusal::KeyNotFound
            | CommandRefusal::Duplicate
            | CommandRefusal::StaleBatch { .. }
            | CommandRefusal::LastNode(_)
            | CommandRefusal::TokenNotFound
            | CommandRefusal::TokenRevoked => internal(&refusal.to_string()),
        }
    }
}

/// Something that should not happen did.
pub(super) fn internal(message: &str) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
}
