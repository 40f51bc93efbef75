//! What is Tollgate's own, below `/tollgate/v1`: plain JSON, for administrators, on the admin port.
//!
//! - [`members`]: who is in the cluster, and how a lost node is replaced.
//! - [`quota`]: which limits apply to a key, and where they stand.

mod members;
mod quota;

use actors::NotFound;
use axum::Router;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use raft::ProposeError;
use raft::cluster::MemberError;
use serde_json::{Value, json};

use super::body::Unread;
use crate::Context;
use crate::credentials::bearer;

/// `/tollgate/v1`.
pub(super) fn router(context: Context) -> Router {
    members::routes()
        .merge(quota::routes())
        .method_not_allowed_fallback(async || Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"))
        .with_state(context)
}

/// The name of the administrator who asks. API keys are for models, whoever owns them.
async fn authorize(context: &Context, headers: &HeaderMap) -> Result<String, Refused> {
    match context.actors.auth.find(bearer(headers)).await {
        Err(NotFound::NotAnswered(error)) => Err(error.into()),
        Err(NotFound::Unauthenticated(_)) => {
            Err(Refused::new(StatusCode::UNAUTHORIZED, "send an administrator's bearer token"))
        }
        Ok(caller) if !caller.is_admin() => {
            Err(Refused::new(StatusCode::FORBIDDEN, "this is for administrators: send a token of system:masters"))
        }
        Ok(caller) => Ok(caller.user().to_owned()),
    }
}

fn reply(status: StatusCode, value: &Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    let never = HeaderValue::from_static("no-store");
    (status, [(CONTENT_TYPE, json), (CACHE_CONTROL, never)], value.to_string()).into_response()
}

/// A refusal: `{"error":"…"}`.
struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, message: impl Into<String>) -> Refused {
        Refused { status, message: message.into() }
    }
}

impl From<ProposeError> for Refused {
    fn from(error: ProposeError) -> Refused {
        MemberError::from(error).into()
    }
}

impl From<MemberError> for Refused {
    fn from(error: MemberError) -> Refused {
        let status = match &error {
            MemberError::NotAMember(_) => StatusCode::NOT_FOUND,
            MemberError::Retired(_)
            | MemberError::IsMember { .. }
            | MemberError::AddressTaken { .. }
            | MemberError::LastMember(_)
            | MemberError::NoMajority { .. } => StatusCode::CONFLICT,
            MemberError::NotAnswered(ProposeError::Unknown(within)) => {
                let message =
                    format!("not done within {within:?}, and perhaps not begun: try again, it goes on from there");
                return Refused::new(StatusCode::GATEWAY_TIMEOUT, message);
            }
            MemberError::NoAnswer { .. } | MemberError::NotAnswered(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refused::new(status, error.to_string())
    }
}

impl From<Unread> for Refused {
    fn from(unread: Unread) -> Refused {
        Refused::new(unread.status(), unread.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = reply(self.status, &json!({"error": self.message}));
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
