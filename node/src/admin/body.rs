//! Request bodies: bounded in size and in time, whatever the port allows.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// How long a client may take to send a body. Admin bodies are small: a client this slow is stuck or hostile.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    /// It is larger than accepted.
    #[error("the request body is larger than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// It did not arrive in time.
    #[error("the request body did not arrive within {READ_DEADLINE:?}")]
    TooSlow,
    /// The connection failed.
    #[error("the request body could not be read")]
    Broken,
}

impl Unread {
    /// What a client is told.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Unread::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Unread::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Unread::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// The whole body, if it has at most `max` bytes.
pub(super) async fn read(body: Body, max: usize) -> Result<Bytes, Unread> {
    let collected = tokio::time::timeout(READ_DEADLINE, Limited::new(body, max).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLarge { max }),
        Ok(Err(_)) => Err(Unread::Broken),
        Err(_) => Err(Unread::TooSlow),
    }
}
